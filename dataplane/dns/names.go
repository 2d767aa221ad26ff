package dns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ttl is what AWS gives its own names.
const ttl = 60

// PrivateDomain is the domain of private names, and the search domain of tasks.
func PrivateDomain(region string) string {
	if region == "us-east-1" {
		return "ec2.internal"
	}
	return region + ".compute.internal"
}

// PublicDomain is the domain of public names.
func PublicDomain(region string) string {
	if region == "us-east-1" {
		return "compute-1.amazonaws.com"
	}
	return region + ".compute.amazonaws.com"
}

// PrivateName is the name of a private address: ip-10-0-0-5.ec2.internal.
func PrivateName(region string, a netip.Addr) string {
	return "ip-" + strings.ReplaceAll(a.String(), ".", "-") + "." + PrivateDomain(region)
}

// PublicName is the name of a public address: ec2-198-51-100-7.compute-1.amazonaws.com.
func PublicName(region string, a netip.Addr) string {
	return "ec2-" + strings.ReplaceAll(a.String(), ".", "-") + "." + PublicDomain(region)
}

// ResolvConf is the content of /etc/resolv.conf in a task.
func ResolvConf(region string, resolver netip.Addr) string {
	return "search " + PrivateDomain(region) + "\nnameserver " + resolver.String() + "\n"
}

// names is what one VPC knows. It never changes.
type names struct {
	private   string // domain, canonical
	addresses map[string][]netip.Addr
	pointers  map[string]string // reverse name: name
	localhost netip.Addr
	upstreams []string
}

func namesOf(cfg Config, v VPC, upstreams []string) *names {
	n := &names{
		private:   dns.CanonicalName(PrivateDomain(cfg.Region)),
		addresses: map[string][]netip.Addr{},
		pointers:  map[string]string{},
		localhost: cfg.Localhost,
		upstreams: upstreams,
	}
	put := func(name string, a netip.Addr) {
		name = dns.CanonicalName(name)
		n.addresses[name] = append(n.addresses[name], a)
	}
	point := func(a netip.Addr, name string) {
		if reverse, err := dns.ReverseAddr(a.String()); err == nil {
			n.pointers[reverse] = dns.Fqdn(name)
		}
	}
	for _, other := range cfg.VPCs {
		for _, i := range other.Interfaces {
			switch {
			case other.ID == v.ID || slices.Contains(v.Peers, other.ID):
				put(PrivateName(cfg.Region, i.Private), i.Private)
				point(i.Private, PrivateName(cfg.Region, i.Private))
				if i.Public.IsValid() {
					put(PublicName(cfg.Region, i.Public), i.Private) // from inside a public name is the private address
				}
			case i.Public.IsValid():
				put(PublicName(cfg.Region, i.Public), i.Public)
			}
			if i.Public.IsValid() {
				point(i.Public, PublicName(cfg.Region, i.Public))
			}
		}
	}
	for name, as := range v.Records {
		// What the VPC says itself hides what is known otherwise.
		delete(n.addresses, dns.CanonicalName(name))
		for _, a := range as {
			put(name, a)
		}
	}
	return n
}

// answer returns the reply to q, nil if the names do not decide it.
func (n *names) answer(q *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.RecursionAvailable = true
	if opt := q.IsEdns0(); opt != nil {
		reply.SetEdns0(opt.UDPSize(), false)
	}
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		reply.Rcode = dns.RcodeNotImplemented
		return reply
	}
	question := q.Question[0]
	if question.Qclass != dns.ClassINET {
		reply.Rcode = dns.RcodeNotImplemented
		return reply
	}
	name := dns.CanonicalName(question.Name)
	header := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: question.Name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
	}
	if target, ok := n.pointers[name]; ok {
		if question.Qtype == dns.TypePTR || question.Qtype == dns.TypeANY {
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: header(dns.TypePTR), Ptr: target})
		}
		return reply
	}
	addresses, ok := n.lookup(name)
	if !ok {
		// Private names exist nowhere else, and localhost must not leave the machine (RFC 6761).
		if dns.IsSubDomain(n.private, name) || dns.IsSubDomain("localhost.", name) {
			reply.Rcode = dns.RcodeNameError
			return reply
		}
		return nil
	}
	for _, a := range addresses {
		switch {
		case a.Is4() && (question.Qtype == dns.TypeA || question.Qtype == dns.TypeANY):
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header(dns.TypeA), A: a.AsSlice()})
		case a.Is6() && (question.Qtype == dns.TypeAAAA || question.Qtype == dns.TypeANY):
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return reply // without records: the name exists, the type does not
}

func (n *names) lookup(name string) ([]netip.Addr, bool) {
	if as, ok := n.addresses[name]; ok {
		return as, true
	}
	for rest := name; ; {
		_, after, more := strings.Cut(rest, ".")
		if !more || after == "" {
			break
		}
		if as, ok := n.addresses["*."+after]; ok {
			return as, true
		}
		rest = after
	}
	if name == "localhost." {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, true
	}
	if n.localhost.IsValid() && dns.IsSubDomain("localhost.", name) {
		return []netip.Addr{n.localhost}, true
	}
	return nil, false
}

// forward asks the upstreams in turn. A refusal or failure of one is answered only if no other does better.
func (n *names) forward(ctx context.Context, q *dns.Msg, tcp bool) *dns.Msg {
	var last *dns.Msg
	for _, upstream := range n.upstreams {
		reply, err := exchange(ctx, q, upstream, tcp)
		if err != nil {
			continue
		}
		last = reply
		if reply.Rcode != dns.RcodeServerFailure && reply.Rcode != dns.RcodeRefused {
			break
		}
	}
	if last == nil {
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	last.Id = q.Id
	return last
}

func exchange(ctx context.Context, q *dns.Msg, upstream string, tcp bool) (*dns.Msg, error) {
	client := &dns.Client{Net: "udp", Timeout: 3 * time.Second}
	if tcp {
		client.Net = "tcp"
	}
	ask := q.Copy()
	ask.Id = dns.Id() // whoever can guess the task's ids must not be able to guess ours
	reply, _, err := client.ExchangeContext(ctx, ask, upstream)
	return reply, err
}

// machineResolvers reads a resolv.conf. A machine without one resolves nothing.
func machineResolvers(path string) []string {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range c.Servers {
		out = append(out, net.JoinHostPort(s, c.Port))
	}
	return out
}
