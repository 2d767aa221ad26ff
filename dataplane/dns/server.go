package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
)

// Options is what a Server needs of its surroundings.
type Options struct {
	// Listen and ListenPacket open sockets inside a VPC. Required.
	Listen       func(vpcID, network, addr string) (net.Listener, error)
	ListenPacket func(vpcID, network, addr string) (net.PacketConn, error)
	// Upstreams are asked what the server does not know itself, as host:port. Nil: those of /etc/resolv.conf.
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
	// Localhost is answered for every name below *.localhost. Zero: such names do not exist.
	Localhost netip.Addr
}

// VPC is one namespace of names.
type VPC struct {
	ID       string
	Resolver netip.Addr
	// Interfaces gets the private and the public name of each address.
	Interfaces []Interface
	// Records are further A and AAAA records; names with or without the final dot.
	Records map[string][]netip.Addr
}

// Interface is an address with AWS's names.
type Interface struct{ Private, Public netip.Addr }

// Server answers the DNS queries of VPCs.
type Server struct{}

// New returns a server that answers nothing yet.
func New(opts Options) *Server { return &Server{} }

// Set replaces everything the server answers, and opens and closes sockets to match.
func (s *Server) Set(ctx context.Context, cfg Config) error { return nil }

// Close stops answering.
func (s *Server) Close() error { return nil }
