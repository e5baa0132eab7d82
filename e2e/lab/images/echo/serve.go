package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func serve(args []string) error {
	f := flags("serve")
	httpPorts := f.String("http", "8080", "ports for HTTP, comma separated, or none")
	tcpPorts := f.String("tcp", "9090", "ports for TCP, comma separated, or none")
	udpPorts := f.String("udp", "9090", "ports for UDP, comma separated, or none")
	if err := f.Parse(args); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	failed := make(chan error)
	for _, s := range []struct {
		ports string
		serve func(port string) error
	}{{*httpPorts, serveHTTP}, {*tcpPorts, serveTCP}, {*udpPorts, serveUDP}} {
		if s.ports == "none" || s.ports == "" {
			continue
		}
		for _, port := range strings.Split(s.ports, ",") {
			go func() { failed <- s.serve(strings.TrimSpace(port)) }()
		}
	}
	fmt.Printf("%s http=%s tcp=%s udp=%s\n", who(), *httpPorts, *tcpPorts, *udpPorts)
	select {
	case err := <-failed:
		return err
	case <-stop:
		return nil
	}
}

// serveHTTP: "/" answers as text, "/json" as JSON, "/slow?ms=N" after N milliseconds,
// "/stream?ms=N&count=M" with a line every N milliseconds.
func serveHTTP(port string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { text(w, r) })
	mux.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) {
		client, clientPort, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"pod": os.Getenv("POD"), "node": os.Getenv("NODE"), "client": client, "port": clientPort,
			"method": r.Method, "path": r.URL.Path, "host": r.Host, "headers": r.Header,
		})
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(milliseconds(r, 1000))
		text(w, r)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.Atoi(r.URL.Query().Get("count"))
		if err != nil {
			count = 10
		}
		for i := range count {
			fmt.Fprintf(w, "%d %s\n", i, who())
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(milliseconds(r, 100)):
			}
		}
	})
	return http.ListenAndServe(":"+port, mux)
}

func milliseconds(r *http.Request, otherwise int) time.Duration {
	n, err := strconv.Atoi(r.URL.Query().Get("ms"))
	if err != nil {
		n = otherwise
	}
	return time.Duration(n) * time.Millisecond
}

func text(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s\n", who(), seen(r.RemoteAddr))
	fmt.Fprintf(w, "%s %s host=%s\n", r.Method, r.URL, r.Host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s: %s\n", name, strings.Join(r.Header[name], ", "))
	}
}

func seen(remote string) string {
	client, port, err := net.SplitHostPort(remote)
	if err != nil {
		return "client=" + remote
	}
	return fmt.Sprintf("client=%s port=%s", client, port)
}

// serveTCP greets with one line, then gives every line back.
func serveTCP(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "%s %s\n", who(), seen(c.RemoteAddr().String()))
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				fmt.Fprintf(c, "%s\n", lines.Text())
			}
		}()
	}
}

// serveUDP answers each datagram with one.
func serveUDP(port string) error {
	c, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		answer := fmt.Sprintf("%s %s data=%s\n", who(), seen(from.String()), strings.TrimRight(string(buf[:n]), "\n"))
		// The client may be gone: nothing to tell it.
		_, _ = c.WriteTo([]byte(answer), from)
	}
}
