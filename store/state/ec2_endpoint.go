package state

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/berth-run/berth/store"
)

// EndpointService is a service of the region that an endpoint may be made for.
type EndpointService struct {
	Name    string   // as com.amazonaws.<region>. is followed by it
	Host    string   // how the names of its endpoints continue
	Private []string // the names that it has without an endpoint, before .<region>.amazonaws.com
}

// EndpointServices are those that the region answers, in the order of their names.
var EndpointServices = []EndpointService{
	{"ec2", "ec2", []string{"ec2"}},
	{"ecr.api", "api.ecr", []string{"api.ecr"}},
	{"ecr.dkr", "dkr.ecr", []string{"*.dkr.ecr"}},
	{"ecs", "ecs", []string{"ecs"}},
	{"ecs-agent", "ecs-agent", []string{"ecs-a"}},
	{"ecs-telemetry", "ecs-telemetry", []string{"ecs-t"}},
	{"logs", "logs", []string{"logs"}},
	{"ssm", "ssm", []string{"ssm"}},
	{"sts", "sts", []string{"sts"}},
}

// EndpointServiceOf finds a service by its full name.
func EndpointServiceOf(region, full string) (EndpointService, bool) {
	name, ok := strings.CutPrefix(full, "com.amazonaws."+region+".")
	i := slices.IndexFunc(EndpointServices, func(s EndpointService) bool { return s.Name == name })
	if !ok || i < 0 {
		return EndpointService{}, false
	}
	return EndpointServices[i], true
}

// PrivateNames are the names of a service that resolve to an endpoint where one
// has private DNS.
func (s EndpointService) PrivateNames(region string) (names []string) {
	for _, p := range s.Private {
		names = append(names, p+"."+region+".amazonaws.com")
	}
	return names
}

// host is the name of an endpoint, in one zone if that is not "".
func (e *Endpoint) host(s EndpointService, region, zone string) string {
	_, digits, _ := strings.Cut(e.ID, "-")
	name := e.ID + "-" + digits[max(0, len(digits)-8):]
	if zone != "" {
		name += "-" + zone
	}
	return name + "." + s.Host + "." + region + ".vpce.amazonaws.com"
}

// Hosts are the names of an endpoint: its own, that of each of its zones, and,
// with private DNS, those of the service.
func (e *Endpoint) Hosts(region string, zones []string) (names []string) {
	s, ok := EndpointServiceOf(region, e.Service)
	if !ok {
		return nil
	}
	names = append(names, e.host(s, region, ""))
	for _, z := range slices.Sorted(slices.Values(zones)) {
		names = append(names, e.host(s, region, z))
	}
	if e.PrivateDNS {
		names = append(names, s.PrivateNames(region)...)
	}
	return names
}

// EndpointNames are the names that resolve, inside a VPC, to the interfaces of
// its endpoints, with their addresses. A name that begins with "*." is that of
// every name below it.
func EndpointNames(r store.Reader, region, vpc string) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for e := range Endpoints.By(r, "vpc", vpc) {
		s, ok := EndpointServiceOf(region, e.Service)
		if !ok || e.State != "available" {
			continue
		}
		for n := range NetworkInterfaces.By(r, "owner", e.ID) {
			if n.Leaving() {
				continue
			}
			names := []string{e.host(s, region, ""), e.host(s, region, n.Zone)}
			if e.PrivateDNS {
				names = append(names, s.PrivateNames(region)...)
			}
			for _, name := range names {
				out[name] = append(out[name], n.Address)
			}
		}
	}
	for _, as := range out {
		slices.SortFunc(as, netip.Addr.Compare)
	}
	return out
}
