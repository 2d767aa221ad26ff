package ec2

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// subnets are those of the default VPC, by zone.
func (b *bench) subnets() (ids []string) {
	b.Helper()
	for _, s := range try(b, b.DescribeSubnets, `{}`).Subnets {
		ids = append(ids, *s.SubnetId)
	}
	return ids
}

func (b *bench) eni(body string) string {
	b.Helper()
	return *try(b, b.CreateNetworkInterface, body).NetworkInterface.NetworkInterfaceId
}

func (b *bench) showENI(id string) api.NetworkInterface {
	b.Helper()
	return try(b, b.DescribeNetworkInterfaces, `{"NetworkInterfaceIds":["`+id+`"]}`).NetworkInterfaces[0]
}

// instance puts an instance of a type on a machine, with its device 0.
func (b *bench) instance(id, kind, is string) {
	b.Helper()
	subnet := b.subnets()[0]
	device := b.eni(`{"SubnetId":"` + subnet + `"}`)
	b.put(func(tx *store.Tx) {
		s, _ := state.Subnets.Get(tx, subnet)
		state.Instances.Put(tx, &state.Instance{ID: id, Account: account, VPC: s.VPC, Subnet: subnet, Zone: s.Zone, Type: kind, State: is, Want: is, Node: "one", SourceDestCheck: true})
		n, _ := state.NetworkInterfaces.Get(tx, device)
		m := *n
		m.Node, m.Attached, m.AttachmentID = "one", is == "running", "eni-attach-0"+id
		m.Attachment = &state.InterfaceAttachment{Instance: id, AttachedAt: now}
		state.NetworkInterfaces.Put(tx, &m)
	})
}

// reclaim does what control/address does with interfaces that go.
func (b *bench) reclaim() {
	b.Helper()
	b.put(func(tx *store.Tx) {
		for n := range state.NetworkInterfaces.All(tx) {
			if n.Deleting {
				for _, l := range n.Leases(tx) {
					state.AddressLeases.Delete(tx, state.LeaseKey(l.Scope, l.Address))
				}
				state.NetworkInterfaces.Delete(tx, n.ID)
			}
		}
	})
}

func TestCreateAndDeleteInterface(t *testing.T) {
	b := newBench(t)
	subnet, g := b.subnets()[0], b.create("web")
	free := func() int32 {
		return *try(b, b.DescribeSubnets, `{"SubnetIds":["`+subnet+`"]}`).Subnets[0].AvailableIpAddressCount
	}
	before := free()
	out := try(b, b.CreateNetworkInterface, `{"SubnetId":"`+subnet+`","Description":"d","Groups":["`+g+`"],"PrivateIpAddress":"172.31.0.10","SecondaryPrivateIpAddressCount":1,
		"ClientToken":"t","TagSpecifications":[{"ResourceType":"network-interface","Tags":[{"Key":"a","Value":"b"}]}]}`).NetworkInterface
	id := *out.NetworkInterfaceId
	if out.Status != "available" || *out.PrivateIpAddress != "172.31.0.10" || len(out.PrivateIpAddresses) != 2 || *out.Groups[0].GroupName != "web" || out.Attachment != nil ||
		*out.PrivateDnsName != "ip-172-31-0-10.eu-west-1.compute.internal" || !*out.SourceDestCheck || *out.RequesterManaged || out.InterfaceType != "interface" || *out.TagSet[0].Value != "b" {
		t.Errorf("%+v", out)
	}
	if again := b.eni(`{"SubnetId":"` + subnet + `","Description":"d","ClientToken":"t"}`); again != id {
		t.Errorf("the same token made %s", again)
	}
	if n := free(); n != before-2 {
		t.Errorf("%d addresses are free, of %d", n, before)
	}
	for body, want := range map[string]string{
		`{"SubnetId":"subnet-9"}`: "InvalidSubnetID.NotFound: The subnet ID 'subnet-9' does not exist",
		`{"SubnetId":"` + subnet + `","PrivateIpAddress":"172.31.0.10"}`:                                                                        "InvalidIPAddress.InUse: Address 172.31.0.10 is in use.",
		`{"SubnetId":"` + subnet + `","PrivateIpAddress":"172.31.0.1"}`:                                                                         "InvalidParameterValue: Address 172.31.0.1 is in subnet's reserved address range",
		`{"SubnetId":"` + subnet + `","PrivateIpAddress":"10.0.0.1"}`:                                                                           "InvalidParameterValue: Address does not fall within the subnet's address range",
		`{"SubnetId":"` + subnet + `","PrivateIpAddress":"x"}`:                                                                                  "InvalidParameterValue: invalid value for parameter address: x",
		`{"SubnetId":"` + subnet + `","Groups":["sg-9"]}`:                                                                                       "InvalidGroup.NotFound: The security group 'sg-9' does not exist",
		`{"SubnetId":"` + subnet + `","InterfaceType":"efa"}`:                                                                                   "UnsupportedOperation: InterfaceType efa is not supported.",
		`{"SubnetId":"` + subnet + `","Ipv4PrefixCount":1}`:                                                                                     "UnsupportedOperation: Ipv4Prefix is not supported.",
		`{"SubnetId":"` + subnet + `","Ipv6AddressCount":1}`:                                                                                    "InvalidParameterValue: Subnet '" + subnet + "' has no associated IPv6 CIDR block",
		`{"SubnetId":"` + subnet + `","ClientToken":"t"}`:                                                                                       "IdempotentParameterMismatch: The specified idempotent token, t, is already in use with different parameters.",
		`{"SubnetId":"` + subnet + `","PrivateIpAddress":"172.31.0.9","PrivateIpAddresses":[{"Primary":true,"PrivateIpAddress":"172.31.0.8"}]}`: "InvalidParameterCombination: The parameter 'privateIpAddress' may not be used in combination with a primary address in 'privateIpAddresses'",
	} {
		refuse(b, b.CreateNetworkInterface, body, want)
	}
	if n := free(); n != before-2 {
		t.Errorf("a refused call took addresses: %d", n)
	}
	refuse(b, b.DeleteNetworkInterface, `{"NetworkInterfaceId":"nonsense"}`, `InvalidNetworkInterfaceId.Malformed: Invalid id: "nonsense" (expecting "eni-...")`)
	try(b, b.DeleteNetworkInterface, `{"NetworkInterfaceId":"`+id+`"}`)
	gone := "InvalidNetworkInterfaceID.NotFound: The networkInterface ID '" + id + "' does not exist"
	refuse(b, b.DescribeNetworkInterfaces, `{"NetworkInterfaceIds":["`+id+`"]}`, gone)
	refuse(b, b.DeleteNetworkInterface, `{"NetworkInterfaceId":"`+id+`"}`, gone)
	b.reclaim()
	if n := free(); n != before {
		t.Errorf("%d addresses are free, of %d", n, before)
	}
}

// An interface comes to an instance that runs, is attached when the machine
// says so, and is free again when the machine says that it is gone.
func TestAttachAndDetach(t *testing.T) {
	b := newBench(t)
	subnets := b.subnets()
	b.instance("i-1", "t3.micro", "running") // two interfaces, two addresses each
	id := b.eni(`{"SubnetId":"` + subnets[0] + `"}`)
	attach := func(eni, instance string, device int) string {
		return fmt.Sprintf(`{"NetworkInterfaceId":%q,"InstanceId":%q,"DeviceIndex":%d}`, eni, instance, device)
	}
	elsewhere := b.eni(`{"SubnetId":"` + subnets[1] + `"}`)
	many := b.eni(`{"SubnetId":"` + subnets[0] + `","SecondaryPrivateIpAddressCount":2}`)
	refuse(b, b.AttachNetworkInterface, attach(id, "i-9", 1), "InvalidInstanceID.NotFound: The instance ID 'i-9' does not exist")
	refuse(b, b.AttachNetworkInterface, attach(id, "i-1", 0), "InvalidParameterValue: Instance 'i-1' already has an interface attached at device index '0'.")
	refuse(b, b.AttachNetworkInterface, attach(elsewhere, "i-1", 1), "InvalidParameterCombination: You may not attach a network interface to an instance if they are not in the same availability zone")
	refuse(b, b.AttachNetworkInterface, attach(many, "i-1", 1), "PrivateIpAddressLimitExceeded: Number of private addresses will exceed limit.")
	a := *try(b, b.AttachNetworkInterface, attach(id, "i-1", 1)).AttachmentId
	if v := b.showENI(id); v.Status != "in-use" || v.Attachment.Status != "attaching" || *v.Attachment.InstanceId != "i-1" || *v.Attachment.DeviceIndex != 1 || *v.Attachment.DeleteOnTermination {
		t.Errorf("%+v", v)
	}
	if n, _ := state.NetworkInterfaces.Get(b.db.Snapshot(), id); n.Node != "one" {
		t.Errorf("it is on %q", n.Node)
	}
	refuse(b, b.AttachNetworkInterface, attach(id, "i-1", 2), "InvalidNetworkInterface.InUse: Interface: ["+id+"] in use.")
	third := b.eni(`{"SubnetId":"` + subnets[0] + `"}`)
	refuse(b, b.AttachNetworkInterface, attach(third, "i-1", 2), "AttachmentLimitExceeded: Interface count 3 exceeds the limit for t3.micro")
	refuse(b, b.DeleteNetworkInterface, `{"NetworkInterfaceId":"`+id+`"}`, "InvalidParameterValue: Network interface '"+id+"' is currently in use.")

	report := func(change func(*state.NetworkInterface) *state.NetworkInterface) {
		b.put(func(tx *store.Tx) {
			n, _ := state.NetworkInterfaces.Get(tx, id)
			state.NetworkInterfaces.Put(tx, change(n))
		})
	}
	report(func(n *state.NetworkInterface) *state.NetworkInterface { m := *n; m.Attached = true; return &m })
	if v := b.showENI(id); v.Attachment.Status != "attached" {
		t.Errorf("%+v", v.Attachment)
	}
	try(b, b.ModifyNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","Attachment":{"AttachmentId":"`+a+`","DeleteOnTermination":true}}`)
	if v := try(b, b.DescribeNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","Attribute":"attachment"}`).Attachment; !*v.DeleteOnTermination {
		t.Errorf("%+v", v)
	}
	refuse(b, b.DetachNetworkInterface, `{"AttachmentId":"eni-attach-0i-1"}`, "OperationNotPermitted: The network interface at device index 0 and networkCard index 0 cannot be detached.")
	refuse(b, b.DetachNetworkInterface, `{"AttachmentId":"eni-attach-9"}`, "InvalidAttachmentID.NotFound: The interface attachment ID 'eni-attach-9' does not exist")
	try(b, b.DetachNetworkInterface, `{"AttachmentId":"`+a+`"}`)
	if v := b.showENI(id); v.Attachment == nil || v.Attachment.Status != "detaching" {
		t.Errorf("%+v", v)
	}
	report((*state.NetworkInterface).Left)
	if v := b.showENI(id); v.Status != "available" || v.Attachment != nil {
		t.Errorf("%+v", v)
	}
	try(b, b.DeleteNetworkInterface, `{"NetworkInterfaceId":"`+id+`"}`)

	// One that no machine has is free at once; a stopped instance's says attached.
	b.instance("i-2", "t3.large", "stopped")
	a = *try(b, b.AttachNetworkInterface, attach(third, "i-2", 1)).AttachmentId
	if v := b.showENI(third); v.Attachment.Status != "attached" {
		t.Errorf("%+v", v.Attachment)
	}
}

// What a service of AWS has made for the account is shown, and not the account's to change.
func TestManagedInterfacesAreRefused(t *testing.T) {
	b := newBench(t)
	id := b.eni(`{"SubnetId":"` + b.subnets()[0] + `"}`)
	b.put(func(tx *store.Tx) {
		n, _ := state.NetworkInterfaces.Get(tx, id)
		m := *n
		m.RequesterManaged, m.Task, m.AttachmentID = true, "task/1", "eni-attach-1"
		state.NetworkInterfaces.Put(tx, &m)
	})
	const no = "OperationNotPermitted: You do not have permission to access the specified resource."
	refuse(b, b.DeleteNetworkInterface, `{"NetworkInterfaceId":"`+id+`"}`, no)
	refuse(b, b.ModifyNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","Description":{"Value":"x"}}`, no)
	refuse(b, b.ResetNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","SourceDestCheck":"true"}`, no)
	refuse(b, b.AssignPrivateIpAddresses, `{"NetworkInterfaceId":"`+id+`","SecondaryPrivateIpAddressCount":1}`, no)
	refuse(b, b.DetachNetworkInterface, `{"AttachmentId":"eni-attach-1"}`, "OperationNotPermitted: You are not allowed to manage 'eni-attach' attachments.")
}

func TestInterfaceAttributes(t *testing.T) {
	b := newBench(t)
	id, g := b.eni(`{"SubnetId":"`+b.subnets()[0]+`"}`), b.create("web")
	modify := func(what string) {
		try(b, b.ModifyNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`",`+what+`}`)
	}
	modify(`"Description":{"Value":"new"}`)
	modify(`"SourceDestCheck":{"Value":false}`)
	modify(`"Groups":["` + g + `"]`)
	modify(`"ConnectionTrackingSpecification":{"TcpEstablishedTimeout":600}`)
	if v := b.showENI(id); *v.Description != "new" || *v.SourceDestCheck || *v.Groups[0].GroupId != g || *v.ConnectionTrackingConfiguration.TcpEstablishedTimeout != 600 {
		t.Errorf("%+v", v)
	}
	try(b, b.ResetNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","SourceDestCheck":"true"}`)
	attribute := func(name string) *api.DescribeNetworkInterfaceAttributeOutput {
		return try(b, b.DescribeNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","Attribute":"`+name+`"}`)
	}
	if !*attribute("sourceDestCheck").SourceDestCheck.Value || *attribute("description").Description.Value != "new" || *attribute("groupSet").Groups[0].GroupId != g {
		t.Error("attributes are not what was set")
	}
	for what, want := range map[string]string{
		`"Description":{"Value":"x"},"SourceDestCheck":{"Value":true}`: "InvalidParameterCombination: Fields for multiple attribute types specified",
		`"Groups":["sg-9"]`: "InvalidGroup.NotFound: The security group 'sg-9' does not exist",
		`"ConnectionTrackingSpecification":{"UdpTimeout":5}`: "InvalidParameterValue: Value (5) for parameter UdpTimeout is invalid. It must be between 30 and 60.",
		`"EnablePrimaryIpv6":true`:                           "UnsupportedOperation: EnablePrimaryIpv6 is not supported.",
	} {
		refuse(b, b.ModifyNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`",`+what+`}`, want)
	}
	refuse(b, b.ModifyNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`"}`, "InvalidParameterCombination: No attributes specified.")
	b.account = "999999999999"
	refuse(b, b.ModifyNetworkInterfaceAttribute, `{"NetworkInterfaceId":"`+id+`","Description":{"Value":"x"}}`, "InvalidNetworkInterfaceID.NotFound: The networkInterface ID '"+id+"' does not exist")
}

func TestSecondaryAddresses(t *testing.T) {
	b := newBench(t)
	subnet := b.subnets()[0]
	a, c := b.eni(`{"SubnetId":"`+subnet+`"}`), b.eni(`{"SubnetId":"`+subnet+`"}`)
	have := func(id string) (out []string) {
		for _, p := range b.showENI(id).PrivateIpAddresses[1:] {
			out = append(out, *p.PrivateIpAddress)
		}
		return out
	}
	assign := func(id, what string) string { return `{"NetworkInterfaceId":"` + id + `",` + what + `}` }
	try(b, b.AssignPrivateIpAddresses, assign(a, `"PrivateIpAddresses":["172.31.0.100","172.31.0.101"]`))
	if got := try(b, b.AssignPrivateIpAddresses, assign(a, `"SecondaryPrivateIpAddressCount":2`)).AssignedPrivateIpAddresses; len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if got := have(a); len(got) != 4 || got[0] != "172.31.0.100" {
		t.Errorf("%q", got)
	}
	refuse(b, b.AssignPrivateIpAddresses, assign(c, `"PrivateIpAddresses":["172.31.0.100"]`), "InvalidIPAddress.InUse: Address 172.31.0.100 is in use.")
	// An Elastic IP of an address that moves is nobody's afterwards.
	b.put(func(tx *store.Tx) {
		n, _ := state.NetworkInterfaces.Get(tx, a)
		m := *n
		m.Secondary = slices.Clone(n.Secondary)
		m.Secondary[0].Public, m.Secondary[0].Allocation = netip.MustParseAddr("198.18.0.9"), "eipalloc-1"
		state.NetworkInterfaces.Put(tx, &m)
		state.ElasticIPs.Put(tx, &state.ElasticIP{ID: "eipalloc-1", Account: account, Address: netip.MustParseAddr("198.18.0.9"), Association: "eipassoc-1", ENI: a, Private: netip.MustParseAddr("172.31.0.100")})
	})
	if v := b.showENI(a).PrivateIpAddresses[1].Association; *v.AllocationId != "eipalloc-1" || *v.AssociationId != "eipassoc-1" || *v.IpOwnerId != account {
		t.Errorf("%+v", v)
	}
	try(b, b.AssignPrivateIpAddresses, assign(c, `"AllowReassignment":true,"PrivateIpAddresses":["172.31.0.100"]`))
	if ip, _ := state.ElasticIPs.Get(b.db.Snapshot(), "eipalloc-1"); ip.ENI != "" || ip.Association != "" {
		t.Errorf("%+v", ip)
	}
	if x, y := have(a), have(c); slices.Contains(x, "172.31.0.100") || !slices.Equal(y, []string{"172.31.0.100"}) {
		t.Errorf("%q %q", x, y)
	}
	refuse(b, b.UnassignPrivateIpAddresses, assign(a, `"PrivateIpAddresses":["172.31.0.100"]`), "InvalidParameterValue: Some of the specified addresses are not assigned to interface "+a)
	try(b, b.UnassignPrivateIpAddresses, assign(a, `"PrivateIpAddresses":["172.31.0.101"]`))
	if got := b.eni(`{"SubnetId":"` + subnet + `","PrivateIpAddress":"172.31.0.101"}`); got == "" {
		t.Error("the address is not free again")
	}

	refuse(b, b.AssignIpv6Addresses, assign(a, `"Ipv6AddressCount":1`), "InvalidParameterValue: Subnet '"+subnet+"' has no associated IPv6 CIDR block")
	b.put(func(tx *store.Tx) {
		s, _ := state.Subnets.Get(tx, subnet)
		n := *s
		n.IPv6 = []state.IPv6Block{{CIDR: netip.MustParsePrefix("2001:db8::/64"), Association: "subnet-cidr-assoc-1"}}
		state.Subnets.Put(tx, &n)
	})
	got := try(b, b.AssignIpv6Addresses, assign(a, `"Ipv6AddressCount":2`)).AssignedIpv6Addresses
	if len(got) != 2 || len(b.showENI(a).Ipv6Addresses) != 2 {
		t.Errorf("%q", got)
	}
	if found := try(b, b.DescribeNetworkInterfaces, `{"Filters":[{"Name":"ipv6-addresses.ipv6-address","Values":["`+got[0]+`"]}]}`).NetworkInterfaces; len(found) != 1 {
		t.Errorf("%d interfaces have %s", len(found), got[0])
	}
	try(b, b.UnassignIpv6Addresses, assign(a, `"Ipv6Addresses":["`+got[0]+`"]`))
	if v := b.showENI(a).Ipv6Addresses; len(v) != 1 || *v[0].Ipv6Address != got[1] {
		t.Errorf("%+v", v)
	}
}

// Two that ask for the same address at once: one gets it.
func TestOneAddressIsGivenOnce(t *testing.T) {
	b := newBench(t)
	subnet := b.subnets()[0]
	results := make(chan error)
	for range 8 {
		go func() {
			_, err := b.CreateNetworkInterface(context.Background(), &api.CreateNetworkInterfaceInput{SubnetId: &subnet, PrivateIpAddress: new("172.31.0.77")})
			results <- err
		}()
	}
	made := 0
	for range 8 {
		if err := <-results; err == nil {
			made++
		} else if wire.Code(err) != "InvalidIPAddress.InUse" {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d got it", made)
	}
}

// Every documented filter is known, finds the one interface and not another value.
func TestInterfaceFilters(t *testing.T) {
	b := newBench(t)
	b.instance("i-1", "t3.large", "running")
	subnet := b.subnets()[0]
	id := b.eni(`{"SubnetId":"` + subnet + `","Description":"needle","SecondaryPrivateIpAddressCount":1,"TagSpecifications":[{"ResourceType":"network-interface","Tags":[{"Key":"k","Value":"v"}]}]}`)
	a := *try(b, b.AttachNetworkInterface, `{"NetworkInterfaceId":"`+id+`","InstanceId":"i-1","DeviceIndex":1}`).AttachmentId
	b.put(func(tx *store.Tx) {
		n, _ := state.NetworkInterfaces.Get(tx, id)
		m := *n
		m.Public, m.Allocation = netip.MustParseAddr("198.18.0.9"), "eipalloc-1"
		state.NetworkInterfaces.Put(tx, &m)
		state.ElasticIPs.Put(tx, &state.ElasticIP{ID: "eipalloc-1", Account: account, Address: m.Public, Association: "eipassoc-1", ENI: id, Private: m.Address})
	})
	v := b.showENI(id)
	for name, value := range map[string]string{
		"network-interface-id": id, "subnet-id": subnet, "vpc-id": b.vpc(), "availability-zone": "eu-west-1a", "description": "need*", "mac-address": *v.MacAddress, "status": "in-use",
		"private-ip-address": *v.PrivateIpAddress, "addresses.private-ip-address": *v.PrivateIpAddresses[1].PrivateIpAddress, "addresses.primary": "false", "group-name": "default", "owner-id": account,
		"association.public-ip": "198.18.0.9", "association.allocation-id": "eipalloc-1", "association.association-id": "eipassoc-1", "addresses.association.public-ip": "198.18.0.9", "association.ip-owner-id": account,
		"association.public-dns-name": *v.Association.PublicDnsName, "attachment.attachment-id": a, "attachment.instance-id": "i-1", "attachment.device-index": "1", "attachment.status": "attaching",
		"attachment.delete-on-termination": "false", "attachment.instance-owner-id": account, "attachment.attach-time": "2026-11-22T12:00:00.000Z", "interface-type": "interface", "requester-managed": "false",
		"source-dest-check": "true", "private-dns-name": *v.PrivateDnsName, "tag:k": "v", "tag-key": "k",
	} {
		find := func(value string) bool {
			return slices.ContainsFunc(try(b, b.DescribeNetworkInterfaces, fmt.Sprintf(`{"Filters":[{"Name":%q,"Values":[%q]}]}`, name, value)).NetworkInterfaces,
				func(n api.NetworkInterface) bool { return *n.NetworkInterfaceId == id })
		}
		if !find(value) || find("no such value") {
			t.Errorf("the filter %s does not tell %q", name, value)
		}
	}
	refuse(b, b.DescribeNetworkInterfaces, `{"Filters":[{"Name":"colour","Values":["x"]}]}`, "InvalidParameterValue: The filter 'colour' is invalid")
	refuse(b, b.DescribeNetworkInterfaces, `{"Filters":[{"Name":"vpc-id","Values":["`+strings.Join(make([]string, 201), `","`)+`"]}]}`,
		"FilterLimitExceeded: The maximum number of filter values specified on a single call is 200")
}
