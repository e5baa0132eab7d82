// echo is the test server of the lab: it tells who answered and whom it saw as the client, over HTTP,
// TCP and UDP. The same binary is the client for what curl cannot do.
//
//	echo [--http 8080,…] [--tcp 9090,…] [--udp 9090,…]   serve (the default; "none" for no port)
//	echo get [--count N] [--timeout T] URL               ask over HTTP
//	echo tcp|udp [--from PORT] [--count N] [--timeout T] HOST:PORT [TEXT]
//	echo arp [--clients N] [--from IP] [--every T] [--interface DEV] IP   ask who has it, until killed
//
// Environment: POD and NODE, from the downward API.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	args := os.Args[1:]
	verb := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	var err error
	switch verb {
	case "serve":
		err = serve(args)
	case "get":
		err = get(args)
	case "tcp", "udp":
		err = ask(verb, args)
	case "arp":
		err = arp(args)
	default:
		err = fmt.Errorf("unknown verb %q: serve, get, tcp, udp or arp", verb)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// who is the first part of every answer.
func who() string {
	return fmt.Sprintf("pod=%s node=%s", orDash(os.Getenv("POD")), orDash(os.Getenv("NODE")))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func flags(verb string) *flag.FlagSet { return flag.NewFlagSet("echo "+verb, flag.ExitOnError) }
