package dns

import (
	"net/netip"
	"slices"
	"testing"
)

func TestNamesOfPeersAndEndpoints(t *testing.T) {
	cfg := Config{Region: "us-east-1", VPCs: []VPC{
		{ID: "vpc-a", Peers: []string{"vpc-b"}, Records: map[string][]netip.Addr{
			"*.dkr.ecr.us-east-1.amazonaws.com":      {addr("10.0.0.9")},
			"1.dkr.ecr.us-east-1.amazonaws.com":      {addr("10.0.0.8")},
			"ecs.us-east-1.amazonaws.com":            {addr("10.0.0.7"), addr("10.0.1.7")},
			"ec2-198-18-0-9.compute-1.amazonaws.com": {addr("10.0.0.6")},
		}},
		{ID: "vpc-b", Interfaces: []Interface{{Private: addr("10.1.0.5"), Public: addr("198.18.0.5")}}},
		{ID: "vpc-c", Interfaces: []Interface{{Private: addr("10.2.0.5"), Public: addr("198.18.0.9")}}},
	}}
	a, b, c := namesOf(cfg, cfg.VPCs[0], nil), namesOf(cfg, cfg.VPCs[1], nil), namesOf(cfg, cfg.VPCs[2], nil)
	for _, want := range []struct {
		in   *names
		name string
		as   []netip.Addr
	}{
		{a, "ec2-198-18-0-5.compute-1.amazonaws.com.", []netip.Addr{addr("10.1.0.5")}}, // a peer's, private
		{c, "ec2-198-18-0-5.compute-1.amazonaws.com.", []netip.Addr{addr("198.18.0.5")}},
		{a, "ip-10-1-0-5.ec2.internal.", []netip.Addr{addr("10.1.0.5")}},
		{c, "ip-10-1-0-5.ec2.internal.", nil},
		{a, "x.y.dkr.ecr.us-east-1.amazonaws.com.", []netip.Addr{addr("10.0.0.9")}},
		{a, "1.dkr.ecr.us-east-1.amazonaws.com.", []netip.Addr{addr("10.0.0.8")}}, // its own goes first
		{a, "dkr.ecr.us-east-1.amazonaws.com.", nil},
		{b, "x.dkr.ecr.us-east-1.amazonaws.com.", nil},
		{a, "ecs.us-east-1.amazonaws.com.", []netip.Addr{addr("10.0.0.7"), addr("10.0.1.7")}},
		{a, "ec2-198-18-0-9.compute-1.amazonaws.com.", []netip.Addr{addr("10.0.0.6")}}, // hides what is known otherwise
	} {
		if got, _ := want.in.lookup(want.name); !slices.Equal(got, want.as) {
			t.Errorf("%s: %v, want %v", want.name, got, want.as)
		}
	}
}
