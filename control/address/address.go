// Package address owns the addresses of tasks: it takes one from the task's
// subnet (and a public one where asked), makes the network interface, and
// gives all of it back once the node has said that nothing is left in the
// kernel.
//
// It is the only writer that creates and deletes interfaces of tasks. It never
// chooses the subnet (package place).
package address

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"

	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Controller gives and takes back addresses.
var Controller = control.Controller{
	Name:  "address",
	Reads: []store.AnyTable{state.Tasks, state.NetworkInterfaces},
	Plan:  Plan,
}

// Plan makes interfaces for placed tasks and finishes those that are gone.
func Plan(in control.Input) (p control.Plan) {
	region, ok := state.Regions.Get(in.Read, state.RegionKey)
	if !ok {
		return p
	}
	take := &taker{r: in.Read, taken: map[string]bool{}, from: map[string]netip.Addr{}}
	for t := range state.Tasks.By(in.Read, "status", state.Provisioning) {
		if t.Instance != "" && t.ENI == "" && t.Network != nil && t.DesiredStatus == state.Running {
			give(&p, in, region, take, t)
		}
	}
	for e := range removed(in) {
		takeBack(&p, in, e)
	}
	return p
}

func removed(in control.Input) func(yield func(*state.NetworkInterface) bool) {
	return func(yield func(*state.NetworkInterface) bool) {
		if in.All {
			for e := range state.NetworkInterfaces.All(in.Read) {
				if e.Deleting && (e.Removed || e.Node == "") && !yield(e) {
					return
				}
			}
			return
		}
		for _, id := range in.Changed.Keys(state.NetworkInterfaces) {
			if e, ok := state.NetworkInterfaces.Get(in.Read, id); ok && e.Deleting && (e.Removed || e.Node == "") && !yield(e) {
				return
			}
		}
	}
}

// give makes the interface of one task.
func give(p *control.Plan, in control.Input, region *state.Region, take *taker, t *state.Task) {
	n := t.Clone()
	a := n.NetworkAttachment()
	subnet, ok := state.Subnets.Get(in.Read, a.Detail("subnetId"))
	fail := func(reason string) {
		a.Status = "FAILED"
		n.WantStop("TaskFailedToStart", reason, in.Now)
		control.Put(p, state.Tasks, t.ARN, t, n)
	}
	if !ok {
		fail(fmt.Sprintf("Unexpected EC2 error while attempting to Create Network Interface in subnet '%s': InvalidSubnetID.NotFound", a.Detail("subnetId")))
		return
	}
	groups := t.Network.SecurityGroups
	if len(groups) == 0 {
		groups = defaultGroup(in.Read, subnet.VPC)
	}
	for _, id := range groups {
		if g, ok := state.SecurityGroups.Get(in.Read, id); !ok || g.VPC != subnet.VPC {
			fail(fmt.Sprintf("Unexpected EC2 error while attempting to Create Network Interface in subnet '%s': InvalidGroup.NotFound", subnet.ID))
			return
		}
	}
	node := ""
	if ci, ok := state.ContainerInstances.Get(in.Read, t.Instance); ok {
		node = ci.Node
		if machine, ok := state.Instances.Get(in.Read, ci.EC2InstanceID); ok && node == "" {
			node = machine.Node
		}
	}
	address, ok := take.in(subnet.ID, subnet.CIDR, 4)
	if !ok {
		fail(fmt.Sprintf("Unexpected EC2 error while attempting to Create Network Interface in subnet '%s': InsufficientFreeAddressesInSubnet", subnet.ID))
		return
	}
	var public netip.Addr
	if t.Network.AssignPublicIp == "ENABLED" && t.LaunchType == "FARGATE" { // any other never has one
		// The first address of the pool is the machine's own end.
		if public, ok = take.in(state.PublicScope, region.PublicPool, 2); !ok {
			take.back(subnet.ID, address)
			fail(fmt.Sprintf("Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet '%s': InsufficientAddressCapacity", subnet.ID))
			return
		}
	}
	eni := &state.NetworkInterface{
		ID: "eni-" + in.NewID()[:17], Account: t.Account, VPC: subnet.VPC, Subnet: subnet.ID, Zone: subnet.Zone,
		Address: address, Public: public, Groups: groups,
		Description:      fmt.Sprintf("arn:aws:ecs:%s:%s:attachment/%s", region.Name, t.Account, a.ID),
		SourceDestCheck:  true,
		RequesterManaged: true, Type: "interface", Node: node, Task: t.ARN,
		AttachmentID:   "eni-attach-" + in.NewID()[:17],
		PrivateDNSName: PrivateName(address, region.Name),
		CreatedAt:      in.Now,
	}
	eni.MAC = mac(eni.ID)
	for _, tag := range t.Tags {
		// What ECS tags by itself it puts on the interface too.
		if strings.HasPrefix(tag.Key, "aws:ecs:") {
			eni.Tags = append(eni.Tags, tag)
		}
	}
	// A group cannot go while an interface comes to carry it: who deletes one guards the interfaces.
	for _, id := range groups {
		g, _ := state.SecurityGroups.Get(in.Read, id)
		control.Require(p, state.SecurityGroups, id, g)
	}
	n.ENI = eni.ID
	a.Status = "ATTACHING"
	a.SetDetail("networkInterfaceId", eni.ID)
	a.SetDetail("macAddress", eni.MAC)
	a.SetDetail("privateDnsName", eni.PrivateDNSName)
	a.SetDetail("privateIPv4Address", address.String())
	n.Version++
	control.Put(p, state.NetworkInterfaces, eni.ID, nil, eni)
	lease(p, subnet.ID, address, eni.ID)
	if public.IsValid() {
		lease(p, state.PublicScope, public, eni.ID)
	}
	control.Put(p, state.Tasks, t.ARN, t, n)
}

func lease(p *control.Plan, scope string, a netip.Addr, eni string) {
	l := &state.AddressLease{Scope: scope, Address: a, ENI: eni}
	control.Put(p, state.AddressLeases, l.Scope+"/"+l.Address.String(), nil, l)
}

// takeBack deletes an interface that the kernel no longer has, and lets the
// task that waited for it be STOPPED.
func takeBack(p *control.Plan, in control.Input, e *state.NetworkInterface) {
	drop := func(scope string, a netip.Addr) {
		key := scope + "/" + a.String()
		if l, ok := state.AddressLeases.Get(in.Read, key); ok && l.ENI == e.ID {
			control.Delete(p, state.AddressLeases, key, l)
		}
	}
	drop(e.Subnet, e.Address)
	if e.Public.IsValid() {
		drop(state.PublicScope, e.Public)
	}
	control.Delete(p, state.NetworkInterfaces, e.ID, e)
	t, ok := state.Tasks.Get(in.Read, e.Task)
	if !ok || t.LastStatus != state.Deprovisioning {
		return
	}
	n := t.Clone()
	n.End(in.Now)
	control.Put(p, state.Tasks, t.ARN, t, n)
}

func defaultGroup(r store.Reader, vpc string) []string {
	for g := range state.SecurityGroups.By(r, "vpc", vpc) {
		if g.Name == "default" {
			return []string{g.ID}
		}
	}
	return nil
}

// taker hands out free addresses of one plan.
type taker struct {
	r     store.Reader
	taken map[string]bool       // scope/address given in this plan
	from  map[string]netip.Addr // where the next search of a scope begins
}

// in finds a free address of prefix, leaving out the first reserved ones and
// the last (facts: five of each subnet are AWS's own). The search goes round
// the subnet from a point that moves, so that an address just given back is
// not at once somebody else's: a peer's connection would end at a stranger.
func (t *taker) in(scope string, prefix netip.Prefix, reserved int) (netip.Addr, bool) {
	size := 1 << (32 - prefix.Bits())
	usable := size - reserved - 1
	if usable <= 0 || !prefix.Addr().Is4() {
		return netip.Addr{}, false
	}
	base := prefix.Masked().Addr().As4()
	nth := func(i int) netip.Addr {
		v := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
		v += uint32(reserved + i)
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	start := 0
	if at, ok := t.from[scope]; ok {
		b := at.As4()
		v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		o := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
		start = int(v-o) - reserved + 1
	} else {
		for range state.AddressLeases.By(t.r, "scope", scope) {
			start++
		}
	}
	for i := range usable {
		a := nth((start + i) % usable)
		key := scope + "/" + a.String()
		if t.taken[key] {
			continue
		}
		if _, used := state.AddressLeases.Get(t.r, key); used {
			continue
		}
		t.taken[key] = true
		t.from[scope] = a
		return a, true
	}
	return netip.Addr{}, false
}

func (t *taker) back(scope string, a netip.Addr) { delete(t.taken, scope+"/"+a.String()) }

// mac derives the address of an interface from its id: locally administered,
// and already different in its first three bytes, which Amazon's own CNI
// plug-in names a device by (facts: agent protocol, 2.4).
func mac(id string) string {
	h := sha256.Sum256([]byte(id))
	h[0] = h[0]&^1 | 2
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3], h[4], h[5])
}

// PrivateName is the private DNS name of an address (facts: networking).
func PrivateName(a netip.Addr, region string) string {
	name := "ip-" + strings.ReplaceAll(a.String(), ".", "-")
	if region == "us-east-1" {
		return name + ".ec2.internal"
	}
	return name + "." + region + ".compute.internal"
}
