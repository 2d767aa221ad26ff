package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Inside VPCs the machine has the first address of the public pool. The API is
// there too, so that instances reach it as they reach anything outside of their
// VPC: by their own routes, or not at all.

// insideAddress is the API's host and port as instances know it.
func insideAddress(listen string, pool netip.Prefix) string {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(pool.Masked().Addr().String(), port)
}

// listenInside listens there, unless the address that the server listens on
// covers it. The address itself comes with the node's network, perhaps later.
func listenInside(ctx context.Context, listen string, pool netip.Prefix) (net.Listener, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("listen inside VPCs: %w", err)
	}
	address := insideAddress(listen, pool)
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && (ip.IsUnspecified() || ip == pool.Masked().Addr()) {
		return nil, nil
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("listen inside VPCs: %w", err)
	}
	return &inner{l, pool}, nil
}

// inner accepts from VPCs and from this machine. Others that find a way to the
// address are not meant by it.
type inner struct {
	net.Listener
	pool netip.Prefix
}

var linkLocal = netip.MustParsePrefix("169.254.0.0/16") // of the links between VPCs and the machine

func (l *inner) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if from, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			if a := from.Addr().Unmap(); l.pool.Contains(a) || linkLocal.Contains(a) || a.IsLoopback() {
				return c, nil
			}
		}
		c.Close()
	}
}
