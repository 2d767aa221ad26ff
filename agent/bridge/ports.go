package bridge

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bound lists the instance's ports that p needs.
func (p Port) bound() []bound {
	out := make([]bound, 0, max(1, p.Range))
	for i := range max(1, p.Range) {
		out = append(out, bound{p.Protocol, p.Host + i})
	}
	return out
}

// publish gives an endpoint its ports: those that were asked for first, so
// that none of them is chosen for another.
func (n *Network) publish(e *Endpoint, ports []Port) error {
	e.Ports = make([]Port, len(ports))
	for _, chosen := range []bool{false, true} {
		for i, p := range ports {
			if (p.Host == 0) != chosen {
				continue
			}
			switch {
			case p.Protocol != "tcp" && p.Protocol != "udp":
				return fmt.Errorf("protocol %q cannot be published", p.Protocol)
			case p.Host == 0:
				host, err := n.choose(p)
				if err != nil {
					return err
				}
				p.Host = host
			default:
				if b, err := n.take(p); err != nil {
					return fmt.Errorf("Bind for 0.0.0.0:%d failed: port is already allocated: %w", b.port, errors.Join(ErrPort, err))
				}
			}
			e.Ports[i] = p
		}
	}
	return nil
}

// take reserves all ports of p, or none.
func (n *Network) take(p Port) (bound, error) {
	var have []bound
	for _, b := range p.bound() {
		s, err := n.reserve(b)
		if err != nil {
			for _, b := range have {
				n.give(b)
			}
			return b, err
		}
		n.taken[b] = s
		have = append(have, b)
	}
	return bound{}, nil
}

func (n *Network) give(b bound) {
	n.taken[b].close()
	delete(n.taken, b)
}

func (n *Network) release(e *Endpoint) {
	for _, p := range e.Ports {
		if p.Protocol == "" {
			continue // it was never taken
		}
		for _, b := range p.bound() {
			n.give(b)
		}
	}
}

// choose takes the next port, or ports in a row, after the last one that was
// chosen, and begins again at the end of the range, as Amazon's agent does
// (facts: networking, dynamic host ports).
func (n *Network) choose(p Port) (uint16, error) {
	size := int(n.high) - int(n.low) + 1
	start := int(n.last[p.Protocol]) - int(n.low) + 1
	if n.last[p.Protocol] == 0 {
		start = 0
	}
	count := int(max(1, p.Range))
	for i := range size {
		offset := ((start+i)%size + size) % size
		if offset+count > size {
			continue
		}
		p.Host = n.low + uint16(offset)
		if _, err := n.take(p); err == nil {
			n.last[p.Protocol] = p.Host + uint16(count) - 1
			return p.Host, nil
		}
	}
	return 0, fmt.Errorf("no %d %s ports in a row are free between %d and %d: %w", count, p.Protocol, n.low, n.high, ErrPort)
}

// socket keeps a port from the rest of the instance: it is bound and never
// listens, for what comes to the port is sent on before it gets here.
type socket struct{ fd int }

func (s *socket) close() {
	if s != nil {
		_ = unix.Close(s.fd)
	}
}

// reserve binds a port of the instance.
func (n *Network) reserve(b bound) (*socket, error) {
	if _, used := n.taken[b]; used {
		return nil, fmt.Errorf("port %d/%s belongs to a container", b.port, b.protocol)
	}
	kind := unix.SOCK_STREAM
	if b.protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	s := &socket{-1}
	err := in(n.ns, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(b.port)}); err != nil {
		s.close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	return s, nil
}

// ephemeral is the kernel's range of the calling thread's namespace.
func ephemeral() (low, high uint16, err error) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) == 2 {
		l, lerr := strconv.ParseUint(fields[0], 10, 16)
		h, herr := strconv.ParseUint(fields[1], 10, 16)
		if lerr == nil && herr == nil && l > 0 && l <= h {
			return uint16(l), uint16(h), nil
		}
	}
	return 0, 0, fmt.Errorf("ip_local_port_range %q is not two ports", b)
}
