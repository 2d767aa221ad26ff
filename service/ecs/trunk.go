package ecs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// trunkAttribute names the trunk interface of an instance. With one it takes as
// many awsvpc tasks as its type has branches (facts: networking, ENI table).
const trunkAttribute = "ecs.awsvpc-trunk-id"

// trunk is the trunk interface of an instance, "" if it has none. One is made
// when the instance registers for the first time, if the setting of who
// registers says so, the type has branches, and there is room for it.
func (e *ECS) trunk(tx *store.Tx, caller *auth.Caller, host *state.Instance, again bool) string {
	own := slices.Collect(state.NetworkInterfaces.By(tx, "instance", host.ID))
	var first *state.NetworkInterface
	used := map[int]bool{}
	for _, i := range own {
		if i.Type == "trunk" {
			return i.ID
		}
		used[i.Attachment.Device] = true
		if i.Attachment.Device == 0 {
			first = i
		}
	}
	kind, _ := state.InstanceType(host.Type)
	if again || first == nil || kind.Branches == 0 || len(own) >= kind.MaxENIs ||
		effective(tx, caller.Account, caller.PrincipalARN(), string(api.SettingNameAwsvpcTrunking)).value != "enabled" {
		return ""
	}
	subnet, ok := state.Subnets.Get(tx, first.Subnet)
	if !ok {
		return ""
	}
	hex := strings.ReplaceAll(e.cfg.NewID(), "-", "")
	t, leases, err := state.NewInterface(state.FreeAddresses(tx), "eni-"+hex[:17], subnet, state.InterfaceAddresses{}, e.now())
	if err != nil {
		return "" // without an address for it the instance has the limit of its type
	}
	device := 1
	for used[device] {
		device++
	}
	t.Account, t.Type, t.Groups, t.RequesterManaged, t.Node = host.Account, "trunk", first.Groups, true, host.Node
	t.Description = fmt.Sprintf("ecs trunk interface of %s", host.ID)
	t.AttachmentID = "eni-attach-" + hex[len(hex)-17:]
	t.Attachment = &state.InterfaceAttachment{Instance: host.ID, Device: device, DeleteOnTermination: true, AttachedAt: e.now()}
	// Whoever attaches another interface at this moment looks again.
	state.Instances.Put(tx, host)
	state.NetworkInterfaces.Put(tx, t)
	for _, l := range leases {
		state.AddressLeases.Put(tx, l)
	}
	return t.ID
}
