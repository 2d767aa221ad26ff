package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// amazonDNS is the second address of every VPC's resolver.
const amazonDNS = "169.254.169.253"

// maxForwards is how many questions of one VPC may be with an upstream at once. More are refused: a task that asks
// faster than upstreams answer must not fill the memory that all VPCs share.
const maxForwards = 256

// Options is what a Server needs of its surroundings.
type Options struct {
	// Listen and ListenPacket open sockets inside a VPC. Required.
	Listen       func(vpcID, network, addr string) (net.Listener, error)
	ListenPacket func(vpcID, network, addr string) (net.PacketConn, error)
	// Upstreams are asked what the server does not know itself, as host:port. Nil: those of /etc/resolv.conf, read
	// again at each Set.
	Upstreams []string
	// Log is optional.
	Log *slog.Logger
}

// Config is everything that the server shall answer.
type Config struct {
	// Region decides the domains: ec2.internal and compute-1.amazonaws.com in us-east-1, <region>.compute.internal
	// and <region>.compute.amazonaws.com elsewhere.
	Region string
	VPCs   []VPC
	// Localhost is answered for every name below localhost. Zero: such names do not exist.
	Localhost netip.Addr
}

// VPC is one namespace of names.
type VPC struct {
	ID       string
	Resolver netip.Addr
	// Interfaces gets the private and, if it has one, the public name of each.
	Interfaces []Interface
	// Records are further A and AAAA records; names with or without the final dot. One that begins with "*." is that of
	// every name below it which has none of its own.
	Records map[string][]netip.Addr
	// Peers are VPCs whose names resolve to private addresses here too.
	Peers []string
}

// Interface is a pair of addresses with AWS's names.
type Interface struct{ Private, Public netip.Addr }

// Server answers the DNS queries of VPCs.
type Server struct {
	opts Options
	log  *slog.Logger

	mu        sync.Mutex
	closed    bool
	resolvers map[string]*resolver
}

// A resolver is the pair of addresses of one VPC and the sockets at them.
type resolver struct {
	address netip.Addr
	names   atomic.Pointer[names]
	servers []*dns.Server
	serving sync.WaitGroup
	// forwards has a place for each question that is with an upstream.
	forwards chan struct{}
	// lifetime ends when the resolver closes, and with it the questions that are still with an upstream.
	lifetime context.Context
	end      context.CancelFunc
}

// New returns a server that answers nothing yet.
func New(opts Options) *Server {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{opts: opts, log: opts.Log, resolvers: map[string]*resolver{}}
}

// Set replaces everything the server answers, and opens and closes sockets to match. A VPC whose sockets cannot be
// opened does not keep others from being served; the next Set tries again.
func (s *Server) Set(ctx context.Context, cfg Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("dns server is closed")
	}
	upstreams := s.opts.Upstreams
	if upstreams == nil {
		upstreams = machineResolvers("/etc/resolv.conf")
	}
	want := map[string]VPC{}
	for _, v := range cfg.VPCs {
		want[v.ID] = v
	}
	for id, r := range s.resolvers {
		if v, ok := want[id]; !ok || v.Resolver != r.address {
			r.close()
			delete(s.resolvers, id)
		}
	}
	var errs []error
	for _, v := range cfg.VPCs {
		n := namesOf(cfg, v, upstreams)
		if r := s.resolvers[v.ID]; r != nil {
			r.names.Store(n)
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		r, err := s.open(v, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("resolver of %s: %w", v.ID, err))
			continue
		}
		s.resolvers[v.ID] = r
	}
	return errors.Join(errs...)
}

// Close stops answering and waits until nobody is being answered.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for id, r := range s.resolvers {
		r.close()
		delete(s.resolvers, id)
	}
	return nil
}

func (s *Server) open(v VPC, n *names) (*resolver, error) {
	r := &resolver{address: v.Resolver, forwards: make(chan struct{}, maxForwards)}
	r.names.Store(n)
	r.lifetime, r.end = context.WithCancel(context.Background())
	for _, host := range []string{v.Resolver.String(), amazonDNS} {
		addr := net.JoinHostPort(host, "53")
		pc, err := s.opts.ListenPacket(v.ID, "udp4", addr)
		if err != nil {
			r.close()
			return nil, err
		}
		r.serve(s.log, &dns.Server{PacketConn: pc})
		l, err := s.opts.Listen(v.ID, "tcp4", addr)
		if err != nil {
			r.close()
			return nil, err
		}
		r.serve(s.log, &dns.Server{Listener: l})
	}
	return r, nil
}

// serve returns when srv can be shut down.
func (r *resolver) serve(log *slog.Logger, srv *dns.Server) {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	srv.Handler = r
	failed := make(chan struct{})
	r.serving.Go(func() {
		defer close(failed)
		if err := srv.ActivateAndServe(); err != nil {
			log.Error("dns socket failed", "resolver", r.address, "error", err)
		}
	})
	select {
	case <-started:
	case <-failed:
	}
	r.servers = append(r.servers, srv)
}

func (r *resolver) close() {
	r.end()
	for _, srv := range r.servers {
		_ = srv.Shutdown() // fails only for a server that has stopped by itself
	}
	r.serving.Wait()
}

// forward asks the upstreams, unless too many questions are there already.
func (r *resolver) forward(n *names, q *dns.Msg, tcp bool) *dns.Msg {
	select {
	case r.forwards <- struct{}{}:
		defer func() { <-r.forwards }()
	default:
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	ctx, cancel := context.WithTimeout(r.lifetime, 8*time.Second)
	defer cancel()
	return n.forward(ctx, q, tcp)
}

// ServeDNS implements dns.Handler.
func (r *resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	_, tcp := w.RemoteAddr().(*net.TCPAddr)
	n := r.names.Load()
	reply := n.answer(q)
	if reply == nil {
		reply = r.forward(n, q, tcp)
	}
	if !tcp {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // whoever asked has gone; there is nobody to tell
}
