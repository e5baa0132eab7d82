package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// get asks anew, over a connection of its own, each time.
func get(args []string) error {
	f := flags("get")
	count := f.Int("count", 1, "how often to ask")
	timeout := f.Duration("timeout", 3*time.Second, "for each request")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return fmt.Errorf("get: one URL")
	}
	client := http.Client{Timeout: *timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	for range *count {
		answer, err := client.Get(f.Arg(0))
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, answer.Body)
		answer.Body.Close()
		if err != nil {
			return err
		}
		if answer.StatusCode >= 400 {
			return fmt.Errorf("get: %s", answer.Status)
		}
	}
	return nil
}

// ask sends TEXT and prints what comes back: of TCP the greeting and the line, of UDP the datagram.
func ask(network string, args []string) error {
	f := flags(network)
	count := f.Int("count", 1, "how often to ask")
	from := f.Int("from", 0, "source port; 0 lets the kernel choose")
	timeout := f.Duration("timeout", 3*time.Second, "for each question")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() < 1 {
		return fmt.Errorf("%s: HOST:PORT [TEXT]", network)
	}
	text := "hello"
	if f.NArg() > 1 {
		text = f.Arg(1)
	}
	dialer := net.Dialer{Timeout: *timeout}
	if *from != 0 {
		if network == "tcp" {
			dialer.LocalAddr = &net.TCPAddr{Port: *from}
		} else {
			dialer.LocalAddr = &net.UDPAddr{Port: *from}
		}
	}
	for range *count {
		if err := once(dialer, network, f.Arg(0), text, *timeout); err != nil {
			return err
		}
	}
	return nil
}

func once(dialer net.Dialer, network, to, text string, timeout time.Duration) error {
	c, err := dialer.Dial(network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "%s\n", text); err != nil {
		return err
	}
	if network == "udp" {
		buf := make([]byte, 65536)
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(buf[:n])
		return err
	}
	lines := bufio.NewReader(c)
	for range 2 {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		fmt.Print(line)
	}
	return nil
}
