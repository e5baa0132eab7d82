package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"syscall"
	"time"
)

// arp asks the LAN who has ADDRESS, in the name of one client after the other, until it is killed.
func arp(args []string) error {
	f := flags("arp")
	clients := f.Int("clients", 200, "how many clients")
	first := f.String("from", "172.30.1.0", "address of the first one; the others follow")
	every := f.Duration("every", 5*time.Millisecond, "between two questions, whichever client's")
	device := f.String("interface", "eth0", "where to ask")
	if err := f.Parse(args); err != nil {
		return err
	}
	target, from := net.ParseIP(f.Arg(0)).To4(), net.ParseIP(*first).To4()
	if target == nil || from == nil || *clients < 1 {
		return fmt.Errorf("arp: one IPv4 ADDRESS, asked for from IPv4 addresses")
	}
	link, err := net.InterfaceByName(*device)
	if err != nil {
		return err
	}
	// Protocol 0: it sends, and hears nothing.
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	to := &syscall.SockaddrLinklayer{Ifindex: link.Index}
	for number := 0; ; number++ {
		client := binary.BigEndian.Uint32(from) + uint32(number%*clients)
		if err := syscall.Sendto(socket, question(link.HardwareAddr, client, target), 0, to); err != nil {
			return err
		}
		time.Sleep(*every)
	}
}

// question is a frame with an ARP request (RFC 826), to everybody.
func question(mac net.HardwareAddr, client uint32, target net.IP) []byte {
	frame := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame = append(frame, mac...)
	frame = append(frame, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	frame = append(frame, mac...)
	frame = binary.BigEndian.AppendUint32(frame, client)
	frame = append(frame, 0, 0, 0, 0, 0, 0)
	return append(frame, target...)
}
