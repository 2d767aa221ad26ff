package dns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// A network gives out sockets at ports of its own and remembers which address each stands for.
type network struct {
	mu sync.Mutex
	at map[string]string // "vpc udp 10.0.0.2:53" → real address
}

func (n *network) options(upstreams ...string) Options {
	n.at = map[string]string{}
	return Options{
		Upstreams: append([]string{}, upstreams...),
		Listen: func(vpc, proto, a string) (net.Listener, error) {
			l, err := net.Listen("tcp4", "127.0.0.1:0")
			if err == nil {
				n.put(vpc+" tcp "+a, l.Addr().String())
			}
			return l, err
		},
		ListenPacket: func(vpc, proto, a string) (net.PacketConn, error) {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err == nil {
				n.put(vpc+" udp "+a, c.LocalAddr().String())
			}
			return c, err
		},
	}
}

func (n *network) put(k, v string) { n.mu.Lock(); n.at[k] = v; n.mu.Unlock() }

func (n *network) ask(t *testing.T, vpc, proto, server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	n.mu.Lock()
	to := n.at[vpc+" "+proto+" "+server+":53"]
	n.mu.Unlock()
	reply, _, err := (&dns.Client{Net: proto}).Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), to)
	if err != nil {
		t.Fatalf("%s %s: %v", server, name, err)
	}
	return reply
}

func text(m *dns.Msg) string {
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func config() Config {
	return Config{Region: "us-east-1", Localhost: addr("198.18.0.0"), VPCs: []VPC{
		{ID: "vpc-a", Resolver: addr("10.0.0.2"),
			Interfaces: []Interface{{Private: addr("10.0.0.5"), Public: addr("198.18.0.5")}, {Private: addr("10.0.0.6")}},
			Records:    map[string][]netip.Addr{"Web.app.local": {addr("10.0.0.5"), addr("10.0.0.6"), addr("2001:db8::5")}}},
		{ID: "vpc-b", Resolver: addr("10.0.0.2"), Interfaces: []Interface{{Private: addr("10.0.0.5"), Public: addr("198.18.0.6")}}},
	}}
}

// upstream answers 203.0.113.9 for example.com, refuses refused.example, and a long list for long.example.
func upstream(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		count := 1
		switch q.Question[0].Name {
		case "refused.example.":
			m.Rcode, count = dns.RcodeRefused, 0
		case "long.example.":
			count = 100
		}
		for i := range count {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(203, 0, 113, byte(9+i))})
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m.Truncate(512)
		}
		w.WriteMsg(m)
	})
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // runs after the shutdowns below
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		wg.Go(func() { s.ActivateAndServe() })
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

func TestAnswers(t *testing.T) {
	var n network
	dead := "127.0.0.1:1"
	s := New(n.options(dead, upstream(t)))
	defer s.Close()
	if err := s.Set(context.Background(), config()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		vpc, name string
		qtype     uint16
		want      string
	}{
		{"vpc-a", "ip-10-0-0-5.ec2.internal", dns.TypeA, "10.0.0.5"},
		{"vpc-a", "IP-10-0-0-5.EC2.Internal", dns.TypeA, "10.0.0.5"},
		{"vpc-a", "ip-10-0-0-5.ec2.internal", dns.TypeAAAA, ""},
		{"vpc-a", "ip-10-0-0-7.ec2.internal", dns.TypeA, "NXDOMAIN"},
		{"vpc-b", "ip-10-0-0-6.ec2.internal", dns.TypeA, "NXDOMAIN"}, // another VPC's
		{"vpc-a", "ec2-198-18-0-5.compute-1.amazonaws.com", dns.TypeA, "10.0.0.5"},
		{"vpc-b", "ec2-198-18-0-5.compute-1.amazonaws.com", dns.TypeA, "198.18.0.5"},
		{"vpc-a", "5.0.0.10.in-addr.arpa", dns.TypePTR, "ip-10-0-0-5.ec2.internal."},
		{"vpc-a", "5.0.18.198.in-addr.arpa", dns.TypePTR, "ec2-198-18-0-5.compute-1.amazonaws.com."},
		{"vpc-a", "web.app.local", dns.TypeA, "10.0.0.5 10.0.0.6"},
		{"vpc-a", "web.app.local", dns.TypeAAAA, "2001:db8::5"},
		{"vpc-a", "web.app.local", dns.TypeTXT, ""},
		{"vpc-a", "000000000000.dkr.ecr.us-east-1.localhost", dns.TypeA, "198.18.0.0"},
		{"vpc-a", "localhost", dns.TypeA, "127.0.0.1"},
		{"vpc-a", "example.com", dns.TypeA, "203.0.113.9"},
		{"vpc-a", "refused.example", dns.TypeA, "REFUSED"},
	} {
		for _, server := range []string{"10.0.0.2", "169.254.169.253"} {
			for _, proto := range []string{"udp", "tcp"} {
				if got := text(n.ask(t, c.vpc, proto, server, c.name, c.qtype)); got != c.want {
					t.Errorf("%s asks %s by %s for %s %s: %q, want %q", c.vpc, server, proto, c.name, dns.TypeToString[c.qtype], got, c.want)
				}
			}
		}
	}
	if m := n.ask(t, "vpc-a", "udp", "10.0.0.2", "long.example", dns.TypeA); !m.Truncated || len(m.Answer) == 100 {
		t.Errorf("a long answer by UDP: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
	if m := n.ask(t, "vpc-a", "tcp", "10.0.0.2", "long.example", dns.TypeA); len(m.Answer) != 100 {
		t.Errorf("a long answer by TCP: %d records", len(m.Answer))
	}
}

func TestSetReplaces(t *testing.T) {
	var n network
	s := New(n.options())
	defer s.Close()
	ctx := context.Background()
	cfg := config()
	if err := s.Set(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	before := n.at["vpc-a udp 10.0.0.2:53"]
	if got := text(n.ask(t, "vpc-a", "udp", "10.0.0.2", "example.com", dns.TypeA)); got != "SERVFAIL" {
		t.Errorf("without upstreams: %q", got)
	}
	cfg.Region, cfg.Localhost = "eu-west-1", netip.Addr{}
	cfg.VPCs[0].Interfaces = append(cfg.VPCs[0].Interfaces, Interface{Private: addr("10.0.0.7")})
	cfg.VPCs = cfg.VPCs[:1]
	if err := s.Set(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if n.at["vpc-a udp 10.0.0.2:53"] != before {
		t.Error("sockets were opened anew")
	}
	if got := text(n.ask(t, "vpc-a", "udp", "10.0.0.2", "ip-10-0-0-7.eu-west-1.compute.internal", dns.TypeA)); got != "10.0.0.7" {
		t.Errorf("new interface: %q", got)
	}
	if got := text(n.ask(t, "vpc-a", "udp", "10.0.0.2", "x.localhost", dns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("x.localhost: %q", got)
	}
	if c, err := net.Dial("tcp4", n.at["vpc-b tcp 10.0.0.2:53"]); err == nil {
		c.Close()
		t.Error("the resolver of a VPC that went still listens")
	}
}

// A flood of questions is refused, not collected; what the server knows itself
// is answered all the same.
func TestForwardsAreBounded(t *testing.T) {
	upstream, err := net.ListenPacket("udp4", "127.0.0.1:0") // never answers
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	var n network
	s := New(n.options(upstream.LocalAddr().String()))
	defer s.Close()
	if err := s.Set(t.Context(), config()); err != nil {
		t.Fatal(err)
	}
	busy := s.resolvers["vpc-a"].forwards
	for range cap(busy) {
		busy <- struct{}{}
	}
	if reply := n.ask(t, "vpc-a", "udp", "10.0.0.2", "example.com", dns.TypeA); reply.Rcode != dns.RcodeServerFailure {
		t.Errorf("one too many: %v", reply)
	}
	if reply := n.ask(t, "vpc-a", "udp", "10.0.0.2", "ip-10-0-0-5.ec2.internal", dns.TypeA); len(reply.Answer) != 1 {
		t.Errorf("own name: %v", reply)
	}
}

func TestResolvConf(t *testing.T) {
	if got, want := ResolvConf("eu-west-1", addr("10.0.0.2")), "search eu-west-1.compute.internal\nnameserver 10.0.0.2\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzAnswer(f *testing.F) {
	cfg := config()
	n := namesOf(cfg, cfg.VPCs[0], nil)
	for _, name := range []string{"ip-10-0-0-5.ec2.internal.", "x.localhost.", "."} {
		b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q dns.Msg
		if q.Unpack(b) != nil {
			return
		}
		if reply := n.answer(&q); reply != nil {
			if reply.Id != q.Id || !reply.Response {
				t.Errorf("%v", reply)
			}
			if _, err := reply.Pack(); err != nil && q.Question != nil {
				t.Errorf("reply to %v: %v", q.Question, err)
			}
		}
	})
}
