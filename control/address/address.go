// Package address owns the addresses of tasks: it takes one from the task's
// subnet (and a public one where asked), makes the network interface, and
// gives all of it back once the node has said that nothing is left in the
// kernel. It gives back so for interfaces of every kind.
//
// It is the only writer that creates interfaces of tasks, and that deletes any.
// It never chooses the subnet (package place).
package address

import (
	"errors"
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
	free := state.FreeAddresses(in.Read)
	for t := range state.Tasks.By(in.Read, "status", state.Provisioning) {
		if t.Instance != "" && t.ENI == "" && t.Network != nil && t.DesiredStatus == state.Running {
			give(&p, in, region, free, t)
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
func give(p *control.Plan, in control.Input, region *state.Region, free *state.Addresses, t *state.Task) {
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
	eni, leases, err := state.NewInterface(free, "eni-"+in.NewID()[:17], subnet, state.InterfaceAddresses{Public: t.Network.AssignPublicIp == "ENABLED" && t.LaunchType == "FARGATE"}, in.Now)
	switch {
	case errors.Is(err, state.ErrPoolEmpty):
		fail(fmt.Sprintf("Unexpected EC2 error while attempting to Create Network Interface with public IP assignment enabled in subnet '%s': InsufficientAddressCapacity", subnet.ID))
		return
	case err != nil:
		fail(fmt.Sprintf("Unexpected EC2 error while attempting to Create Network Interface in subnet '%s': InsufficientFreeAddressesInSubnet", subnet.ID))
		return
	}
	eni.Account, eni.Groups, eni.Node, eni.Task, eni.RequesterManaged = t.Account, groups, node, t.ARN, true
	if i, ok := state.ContainerInstances.Get(in.Read, t.Instance); ok && t.LaunchType != "FARGATE" {
		if _, trunked := i.Attribute("ecs.awsvpc-trunk-id"); trunked {
			eni.Type = "branch"
		}
	}
	eni.Description = fmt.Sprintf("arn:aws:ecs:%s:%s:attachment/%s", region.Name, t.Account, a.ID)
	eni.AttachmentID = "eni-attach-" + in.NewID()[:17]
	for _, tag := range t.Tags {
		// What ECS tags by itself it puts on the interface too.
		if strings.HasPrefix(tag.Key, "aws:ecs:") {
			eni.Tags = append(eni.Tags, tag)
		}
	}
	// Neither a subnet nor a group can go while an interface comes to carry it: who deletes one guards the interfaces.
	control.Require(p, state.Subnets, subnet.ID, subnet)
	for _, id := range groups {
		g, _ := state.SecurityGroups.Get(in.Read, id)
		control.Require(p, state.SecurityGroups, id, g)
	}
	n.ENI = eni.ID
	a.Status = "ATTACHING"
	a.SetDetail("networkInterfaceId", eni.ID)
	a.SetDetail("macAddress", eni.MAC)
	a.SetDetail("privateDnsName", eni.PrivateDNSName)
	a.SetDetail("privateIPv4Address", eni.Address.String())
	n.Version++
	control.Put(p, state.NetworkInterfaces, eni.ID, nil, eni)
	for _, l := range leases {
		control.Put(p, state.AddressLeases, state.LeaseKey(l.Scope, l.Address), nil, l)
	}
	control.Put(p, state.Tasks, t.ARN, t, n)
}

// takeBack deletes an interface that the kernel no longer has, and lets the
// task that waited for it be STOPPED.
func takeBack(p *control.Plan, in control.Input, e *state.NetworkInterface) {
	for _, l := range e.Leases(in.Read) {
		control.Delete(p, state.AddressLeases, state.LeaseKey(l.Scope, l.Address), l)
	}
	// An Elastic IP stays its owner's, with nothing that uses it.
	for ip := range state.ElasticIPs.By(in.Read, "eni", e.ID) {
		n := *ip
		n.ENI, n.Association, n.Private = "", "", netip.Addr{}
		control.Put(p, state.ElasticIPs, ip.ID, ip, &n)
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
