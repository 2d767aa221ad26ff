package ecs

import (
	"context"
	"fmt"
	"slices"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// trunkAttribute says of a container instance which interface its tasks' branch.
const trunkAttribute = "ecs.awsvpc-trunk-id"

// trunk gives an EC2 instance that registers its trunk interface, if who
// registers has awsvpcTrunking on and the type can have one. An instance that
// has a trunk keeps it, whatever the setting says later. Where there is no
// device or address left for one, the instance goes without, as do its tasks.
func (e *ECS) trunk(ctx context.Context, tx *store.Tx, host *state.Instance, attributes []api.Attribute) []api.Attribute {
	// That of an instance of this region is not for its agent to say.
	attributes = slices.DeleteFunc(attributes, func(a api.Attribute) bool { return val(a.Name) == trunkAttribute })
	with := func(id string) []api.Attribute {
		return append(attributes, api.Attribute{Name: new(trunkAttribute), Value: new(id)})
	}
	m, ok := state.InstanceType(host.Type)
	taken := map[int]bool{}
	var first *state.NetworkInterface
	for n := range state.NetworkInterfaces.By(tx, "instance", host.ID) {
		if n.Type == "trunk" && !n.Leaving() {
			return with(n.ID)
		}
		if taken[n.Attachment.Device] = true; n.Attachment.Device == 0 {
			first = n
		}
	}
	principal := e.caller(ctx).PrincipalARN()
	if !ok || m.Branches == 0 || first == nil || len(taken) >= m.MaxENIs || effective(tx, host.Account, principal, string(api.SettingNameAwsvpcTrunking)).value != "enabled" {
		return attributes
	}
	subnet, ok := state.Subnets.Get(tx, first.Subnet)
	if !ok {
		return attributes
	}
	n, leases, err := state.NewInterface(state.FreeAddresses(tx), "eni-"+e.cfg.NewID()[:17], subnet, state.InterfaceAddresses{NoDefault: true}, e.now())
	if err != nil {
		return attributes
	}
	device := 1
	for taken[device] {
		device++
	}
	n.Account, n.Type, n.Groups, n.Node, n.RequesterManaged = host.Account, "trunk", first.Groups, host.Node, true
	n.Description = fmt.Sprintf("ECS trunk interface of %s", host.ID)
	n.AttachmentID = "eni-attach-" + e.cfg.NewID()[:17]
	n.Attachment = &state.InterfaceAttachment{Instance: host.ID, Device: device, DeleteOnTermination: true, AttachedAt: e.now()}
	state.NetworkInterfaces.Put(tx, n)
	for _, l := range leases {
		state.AddressLeases.Put(tx, l)
	}
	return with(n.ID)
}
