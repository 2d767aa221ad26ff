package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// tokenLife is how long a client token of RunInstances is remembered.
const tokenLife = 24 * time.Hour

// RunInstances launches instances. They are pending until a node has booted them.
func (e *EC2) RunInstances(ctx context.Context, in *api.RunInstancesInput) (*api.RunInstancesOutput, error) {
	account := e.Account(ctx)
	request, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("digest of the request: %w", err)
	}
	digest := sha256.Sum256(request)
	reservation := ""
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		if token := wire.Value(in.ClientToken); token != "" {
			old, ok := state.LaunchTokens.Get(tx, account+"/"+token)
			if ok && e.Now().Sub(old.At) < tokenLife {
				if string(old.Digest) != string(digest[:]) {
					return bad("IdempotentParameterMismatch", "The request uses the same client token as a previous, but non-identical request.")
				}
				reservation = old.Reservation
				return nil
			}
			for t := range state.LaunchTokens.By(tx, "account", account) {
				if e.Now().Sub(t.At) >= tokenLife {
					state.LaunchTokens.Delete(tx, t.Account+"/"+t.Token)
				}
			}
		}
		made, err := state.Launch{Region: e.Region, Account: account, In: in, NewID: e.NewID, Now: e.Now()}.Plan(tx)
		if err != nil {
			return err
		}
		made.Put(tx)
		reservation = made.Reservation
		if token := wire.Value(in.ClientToken); token != "" {
			state.LaunchTokens.Put(tx, &state.LaunchToken{Account: account, Token: token, Digest: digest[:], Reservation: reservation, At: e.Now()})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	snap := e.DB.Snapshot()
	out := &api.RunInstancesOutput{ReservationId: new(reservation), OwnerId: new(account), Groups: []api.GroupIdentifier{}, Instances: []api.Instance{}}
	for _, i := range sorted(state.Instances.By(snap, "reservation", reservation)) {
		out.Instances = append(out.Instances, e.instanceView(snap, i))
	}
	return out, nil
}

// sorted are instances in the order of their launch index.
func sorted(rows iter.Seq[*state.Instance]) []*state.Instance {
	return slices.SortedFunc(rows, func(a, b *state.Instance) int { return a.Index - b.Index })
}

// noAddress is none.
var noAddress netip.Addr

var stateCodes = map[string]int32{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

func instanceState(name string) *api.InstanceState {
	return &api.InstanceState{Code: new(stateCodes[name]), Name: api.InstanceStateName(name)}
}

func noInstances(ids ...string) error {
	for _, id := range ids {
		if rest, ok := strings.CutPrefix(id, "i-"); !ok || rest == "" || strings.Trim(rest, "0123456789abcdef") != "" {
			return bad("InvalidInstanceID.Malformed", "Invalid id: \"%s\"", id)
		}
	}
	if len(ids) == 1 {
		return bad("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", ids[0])
	}
	return bad("InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", strings.Join(ids, ", "))
}

func noInstance(id string) error { return noInstances(id) }

// instance is an instance of the account's.
func instance(r store.Reader, account, id string) (*state.Instance, error) {
	i, ok := state.Instances.Get(r, id)
	if !ok || i.Account != account {
		return nil, noInstance(id)
	}
	return i, nil
}

// instances are those of the ids, or the error that names all that are missing.
func instances(r store.Reader, account string, ids []string) (out []*state.Instance, err error) {
	var missing []string
	for _, id := range ids {
		i, ok := state.Instances.Get(r, id)
		if !ok || i.Account != account {
			missing = append(missing, id)
			continue
		}
		if !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	if len(missing) > 0 {
		return nil, noInstances(missing...)
	}
	return out, nil
}

// devices are the interfaces of an instance, device 0 first.
func devices(r store.Reader, id string) []*state.NetworkInterface {
	return slices.SortedFunc(state.NetworkInterfaces.By(r, "instance", id), func(a, b *state.NetworkInterface) int {
		return a.Attachment.Device - b.Attachment.Device
	})
}

func groupView(r store.Reader, ids []string) []api.GroupIdentifier {
	out := []api.GroupIdentifier{}
	for _, id := range ids {
		g := api.GroupIdentifier{GroupId: new(id)}
		if sg, ok := state.SecurityGroups.Get(r, id); ok {
			g.GroupName = new(sg.Name)
		}
		out = append(out, g)
	}
	return out
}

// instanceView shows an instance. One that has ended shows no network any more.
func (e *EC2) instanceView(r store.Reader, i *state.Instance) api.Instance {
	m, _ := state.InstanceType(i.Type)
	out := api.Instance{InstanceId: new(i.ID), ImageId: new(i.Image), State: instanceState(i.State), AmiLaunchIndex: new(int32(i.Index)),
		InstanceType: api.InstanceType(i.Type), LaunchTime: new(i.LaunchedAt), KeyName: optional(i.KeyName), ClientToken: new(i.ClientToken),
		Architecture: api.ArchitectureValues(m.Arch), Hypervisor: "xen", VirtualizationType: "hvm", RootDeviceType: "ebs", RootDeviceName: new(rootDevice(r, i)),
		EbsOptimized: new(wire.Value(i.Options.EbsOptimized)), EnaSupport: new(true), StateTransitionReason: new(i.TransitionReason),
		Monitoring: &api.Monitoring{State: monitoring(i)}, PlatformDetails: new("Linux/UNIX"), UsageOperation: new("RunInstances"), UsageOperationUpdateTime: new(i.CreatedAt),
		PublicDnsName: new(""), PrivateDnsName: new(""), ProductCodes: []api.ProductCode{}, Tags: tagsView(i.Tags), SecurityGroups: []api.GroupIdentifier{},
		NetworkInterfaces: []api.InstanceNetworkInterface{}, BlockDeviceMappings: []api.InstanceBlockDeviceMapping{}, CurrentInstanceBootMode: "legacy-bios",
		SpotInstanceRequestId: optional(i.Spot), CapacityReservationSpecification: &api.CapacityReservationSpecificationResponse{CapacityReservationPreference: "open"},
		HibernationOptions: &api.HibernationOptions{Configured: new(false)}, EnclaveOptions: &api.EnclaveOptions{Enabled: new(false)},
		CpuOptions:         &api.CpuOptions{CoreCount: new(int32(m.Cores)), ThreadsPerCore: new(int32(m.VCPUs / max(m.Cores, 1)))},
		MaintenanceOptions: &api.InstanceMaintenanceOptions{AutoRecovery: "default", RebootMigration: "default"},
		MetadataOptions:    metadataView(i.Metadata), Placement: &api.Placement{AvailabilityZone: new(i.Zone), AvailabilityZoneId: optional(zoneIDs(r)[i.Zone]), GroupName: new(""), Tenancy: "default"}}
	if image, ok := state.ImageOf(r, i.Image); ok {
		out.BootMode = api.BootModeValues(image.BootMode)
		if image.BootMode != "" && m.Nitro {
			out.CurrentInstanceBootMode = "uefi"
		}
	}
	if i.Spot != "" {
		out.InstanceLifecycle = "spot"
	}
	if i.StateCode != "" {
		out.StateReason = &api.StateReason{Code: new(i.StateCode), Message: new(i.StateMessage)}
	} else if i.State == "pending" {
		out.StateReason = &api.StateReason{Code: new("pending"), Message: new("pending")}
	}
	if p := i.Options.Placement; p != nil {
		out.Placement.GroupName, out.Placement.GroupId = new(wire.Value(p.GroupName)), p.GroupId
		out.Placement.Affinity, out.Placement.PartitionNumber, out.Placement.SpreadDomain = p.Affinity, p.PartitionNumber, p.SpreadDomain
		if p.Tenancy != "" {
			out.Placement.Tenancy = p.Tenancy
		}
	}
	if c := i.Options.CpuOptions; c != nil {
		if c.CoreCount != nil {
			out.CpuOptions.CoreCount = c.CoreCount
		}
		if c.ThreadsPerCore != nil {
			out.CpuOptions.ThreadsPerCore = c.ThreadsPerCore
		}
	}
	if c := i.Options.CapacityReservationSpecification; c != nil && c.CapacityReservationPreference != "" {
		out.CapacityReservationSpecification.CapacityReservationPreference = c.CapacityReservationPreference
	}
	if o := i.Options.MaintenanceOptions; o != nil && o.AutoRecovery != "" {
		out.MaintenanceOptions.AutoRecovery = o.AutoRecovery
	}
	if o := i.Options.NetworkPerformanceOptions; o != nil {
		out.NetworkPerformanceOptions = &api.InstanceNetworkPerformanceOptions{BandwidthWeighting: o.BandwidthWeighting}
	}
	for _, l := range i.Options.LicenseSpecifications {
		out.Licenses = append(out.Licenses, api.LicenseConfiguration{LicenseConfigurationArn: l.LicenseConfigurationArn})
	}
	if i.Profile != "" {
		out.IamInstanceProfile = profileView(r, i)
	}
	if i.State == "terminated" {
		return out
	}
	out.BlockDeviceMappings = append(out.BlockDeviceMappings, api.InstanceBlockDeviceMapping{DeviceName: new(rootDevice(r, i)),
		Ebs: &api.EbsInstanceBlockDevice{AttachTime: new(i.CreatedAt), DeleteOnTermination: new(rootVolume(r, i).remove), Status: "attached", VolumeId: new(i.Volume)}})
	out.SourceDestCheck, out.SubnetId, out.VpcId = new(i.SourceDestCheck), new(i.Subnet), new(i.VPC)
	out.PrivateDnsNameOptions = &api.PrivateDnsNameOptionsResponse{HostnameType: "ip-name", EnableResourceNameDnsARecord: new(false), EnableResourceNameDnsAAAARecord: new(false)}
	if o := i.Options.PrivateDnsNameOptions; o != nil {
		if o.HostnameType != "" {
			out.PrivateDnsNameOptions.HostnameType = o.HostnameType
		}
		out.PrivateDnsNameOptions.EnableResourceNameDnsARecord = new(wire.Value(o.EnableResourceNameDnsARecord))
		out.PrivateDnsNameOptions.EnableResourceNameDnsAAAARecord = new(wire.Value(o.EnableResourceNameDnsAAAARecord))
	}
	for _, n := range devices(r, i.ID) {
		out.NetworkInterfaces = append(out.NetworkInterfaces, e.deviceView(r, n))
		if n.Attachment.Device != 0 {
			continue
		}
		out.PrivateIpAddress, out.PrivateDnsName, out.SecurityGroups, out.SourceDestCheck = new(n.Address.String()), new(n.PrivateDNSName), groupView(r, n.Groups), new(n.SourceDestCheck)
		if n.Public.IsValid() {
			out.PublicIpAddress = new(n.Public.String())
			if v, ok := state.VPCs.Get(r, i.VPC); ok && v.DNSHostnames {
				out.PublicDnsName = new(PublicName(n.Public, e.Region))
			}
		}
		if len(n.IPv6) > 0 {
			out.Ipv6Address = new(n.IPv6[0].String())
		}
	}
	return out
}

func monitoring(i *state.Instance) api.MonitoringState {
	if i.Monitoring {
		return "enabled"
	}
	return "disabled"
}

func metadataView(m state.InstanceMetadata) *api.InstanceMetadataOptionsResponse {
	on := func(b bool) string {
		if b {
			return "enabled"
		}
		return "disabled"
	}
	out := &api.InstanceMetadataOptionsResponse{State: "applied", HttpTokens: "optional", HttpPutResponseHopLimit: new(int32(m.HopLimit)),
		HttpEndpoint: api.InstanceMetadataEndpointState(on(m.Enabled)), HttpProtocolIpv6: api.InstanceMetadataProtocolState(on(m.IPv6)),
		InstanceMetadataTags: api.InstanceMetadataTagsState(on(m.Tags))}
	if m.TokenRequired {
		out.HttpTokens = "required"
	}
	return out
}

func profileView(r store.Reader, i *state.Instance) *api.IamInstanceProfile {
	out := &api.IamInstanceProfile{Arn: new(i.Profile)}
	if p, ok := state.InstanceProfiles.Get(r, state.IAMKey(i.Account, i.Profile[strings.LastIndexByte(i.Profile, '/')+1:])); ok {
		out.Id = new(p.ID)
	}
	return out
}

func (e *EC2) deviceView(r store.Reader, n *state.NetworkInterface) api.InstanceNetworkInterface {
	status := "attaching"
	switch {
	case n.Deleting:
		status = "detaching"
	case n.Attached:
		status = "attached"
	}
	out := api.InstanceNetworkInterface{NetworkInterfaceId: new(n.ID), Description: new(n.Description), Groups: groupView(r, n.Groups), MacAddress: new(n.MAC),
		OwnerId: new(n.Account), PrivateDnsName: optional(n.PrivateDNSName), PrivateIpAddress: new(n.Address.String()), SourceDestCheck: new(n.SourceDestCheck), Status: "in-use",
		SubnetId: new(n.Subnet), VpcId: new(n.VPC), InterfaceType: new(n.Type), Ipv6Addresses: []api.InstanceIpv6Address{}, PrivateIpAddresses: []api.InstancePrivateIpAddress{},
		Attachment: &api.InstanceNetworkInterfaceAttachment{AttachmentId: new(n.AttachmentID), AttachTime: new(n.Attachment.AttachedAt), DeviceIndex: new(int32(n.Attachment.Device)),
			DeleteOnTermination: new(n.Attachment.DeleteOnTermination), Status: api.AttachmentStatus(status), NetworkCardIndex: new(int32(0))}}
	association := func(public string, allocation string) *api.InstanceNetworkInterfaceAssociation {
		owner := "amazon"
		if allocation != "" {
			owner = n.Account
		}
		return &api.InstanceNetworkInterfaceAssociation{IpOwnerId: new(owner), PublicIp: new(public)}
	}
	first := api.InstancePrivateIpAddress{Primary: new(true), PrivateIpAddress: new(n.Address.String()), PrivateDnsName: optional(n.PrivateDNSName)}
	if n.Public.IsValid() {
		out.Association = association(n.Public.String(), n.Allocation)
		out.Association.PublicDnsName = new(PublicName(n.Public, e.Region))
		first.Association = out.Association
	}
	out.PrivateIpAddresses = append(out.PrivateIpAddresses, first)
	for _, s := range n.Secondary {
		x := api.InstancePrivateIpAddress{Primary: new(false), PrivateIpAddress: new(s.Address.String()), PrivateDnsName: new(state.PrivateName(s.Address, e.Region))}
		if s.Public.IsValid() {
			x.Association = association(s.Public.String(), s.Allocation)
			x.Association.PublicDnsName = new(PublicName(s.Public, e.Region))
		}
		out.PrivateIpAddresses = append(out.PrivateIpAddresses, x)
	}
	for k, a := range n.IPv6 {
		out.Ipv6Addresses = append(out.Ipv6Addresses, api.InstanceIpv6Address{Ipv6Address: new(a.String()), IsPrimaryIpv6: new(k == 0)})
	}
	return out
}

// instanceFilters are those of DescribeInstances.
func (e *EC2) instanceFilters(r store.Reader) filters[*state.Instance] {
	view := func(f func(api.Instance) []string) func(*state.Instance) []string {
		return func(i *state.Instance) []string { return f(e.instanceView(r, i)) }
	}
	text := func(f func(api.Instance) *string) func(*state.Instance) []string {
		return view(func(v api.Instance) []string { return one(wire.Value(f(v))) })
	}
	nic := func(f func(*state.NetworkInterface) []string) func(*state.Instance) []string {
		return func(i *state.Instance) []string { return each(devices(r, i.ID), f) }
	}
	seen := func(f func(api.InstanceNetworkInterface) []string) func(*state.Instance) []string {
		return view(func(v api.Instance) []string { return each(v.NetworkInterfaces, f) })
	}
	fixed := func(v ...string) func(*state.Instance) []string {
		return func(*state.Instance) []string { return v }
	}
	names := func(v []api.GroupIdentifier) []string {
		return each(v, func(g api.GroupIdentifier) []string { return one(wire.Value(g.GroupName)) })
	}
	ids := func(v []api.GroupIdentifier) []string {
		return each(v, func(g api.GroupIdentifier) []string { return one(wire.Value(g.GroupId)) })
	}
	when := func(f func(api.Instance) *time.Time) func(*state.Instance) []string {
		return view(func(v api.Instance) []string { return instant(wire.Value(f(v))) })
	}
	mapping := func(f func(*state.Instance) []string) func(*state.Instance) []string {
		return func(i *state.Instance) []string {
			if i.State == "terminated" {
				return nil
			}
			return f(i)
		}
	}
	privates := seen(func(n api.InstanceNetworkInterface) []string {
		return each(n.PrivateIpAddresses, func(a api.InstancePrivateIpAddress) []string { return one(wire.Value(a.PrivateIpAddress)) })
	})
	return filters[*state.Instance]{
		"affinity":                                   text(func(v api.Instance) *string { return v.Placement.Affinity }),
		"architecture":                               view(func(v api.Instance) []string { return one(string(v.Architecture)) }),
		"availability-zone":                          func(i *state.Instance) []string { return one(i.Zone) },
		"availability-zone-id":                       text(func(v api.Instance) *string { return v.Placement.AvailabilityZoneId }),
		"block-device-mapping.attach-time":           mapping(func(i *state.Instance) []string { return instant(i.CreatedAt) }),
		"block-device-mapping.delete-on-termination": mapping(func(i *state.Instance) []string { return flag(rootVolume(r, i).remove) }),
		"block-device-mapping.device-name":           mapping(func(i *state.Instance) []string { return one(rootDevice(r, i)) }),
		"block-device-mapping.status":                mapping(fixed("attached")),
		"block-device-mapping.volume-id":             mapping(func(i *state.Instance) []string { return one(i.Volume) }),
		"boot-mode":                                  view(func(v api.Instance) []string { return one(string(v.BootMode)) }),
		"capacity-reservation-id":                    fixed(),
		"capacity-reservation-specification.capacity-reservation-preference": view(func(v api.Instance) []string {
			return one(string(v.CapacityReservationSpecification.CapacityReservationPreference))
		}),
		"client-token":                        func(i *state.Instance) []string { return one(i.ClientToken) },
		"current-instance-boot-mode":          view(func(v api.Instance) []string { return one(string(v.CurrentInstanceBootMode)) }),
		"dns-name":                            text(func(v api.Instance) *string { return v.PublicDnsName }),
		"ebs-optimized":                       view(func(v api.Instance) []string { return flag(wire.Value(v.EbsOptimized)) }),
		"ena-support":                         fixed("true"),
		"enclave-options.enabled":             fixed("false"),
		"hibernation-options.configured":      fixed("false"),
		"host-id":                             fixed(),
		"hypervisor":                          fixed("xen"),
		"iam-instance-profile.arn":            func(i *state.Instance) []string { return one(i.Profile) },
		"iam-instance-profile.id":             view(func(v api.Instance) []string { return profileID(v) }),
		"iam-instance-profile.name":           func(i *state.Instance) []string { return one(i.Profile[strings.LastIndexByte(i.Profile, '/')+1:]) },
		"image-id":                            func(i *state.Instance) []string { return one(i.Image) },
		"instance-id":                         func(i *state.Instance) []string { return one(i.ID) },
		"instance-lifecycle":                  view(func(v api.Instance) []string { return one(string(v.InstanceLifecycle)) }),
		"instance-state-code":                 func(i *state.Instance) []string { return number(int(stateCodes[i.State])) },
		"instance-state-name":                 func(i *state.Instance) []string { return one(i.State) },
		"instance-type":                       func(i *state.Instance) []string { return one(i.Type) },
		"instance.group-id":                   view(func(v api.Instance) []string { return ids(v.SecurityGroups) }),
		"instance.group-name":                 view(func(v api.Instance) []string { return names(v.SecurityGroups) }),
		"group-id":                            view(func(v api.Instance) []string { return ids(v.SecurityGroups) }),
		"group-name":                          view(func(v api.Instance) []string { return names(v.SecurityGroups) }),
		"ip-address":                          text(func(v api.Instance) *string { return v.PublicIpAddress }),
		"ipv6-address":                        nic(func(n *state.NetworkInterface) []string { return each(n.IPv6, address) }),
		"kernel-id":                           fixed(),
		"key-name":                            func(i *state.Instance) []string { return one(i.KeyName) },
		"launch-index":                        func(i *state.Instance) []string { return number(i.Index) },
		"launch-time":                         func(i *state.Instance) []string { return instant(i.LaunchedAt) },
		"maintenance-options.auto-recovery":   view(func(v api.Instance) []string { return one(string(v.MaintenanceOptions.AutoRecovery)) }),
		"metadata-options.http-endpoint":      view(func(v api.Instance) []string { return one(string(v.MetadataOptions.HttpEndpoint)) }),
		"metadata-options.http-protocol-ipv4": fixed("enabled"),
		"metadata-options.http-protocol-ipv6": view(func(v api.Instance) []string { return one(string(v.MetadataOptions.HttpProtocolIpv6)) }),
		"metadata-options.http-put-response-hop-limit": func(i *state.Instance) []string { return number(i.Metadata.HopLimit) },
		"metadata-options.http-tokens":                 view(func(v api.Instance) []string { return one(string(v.MetadataOptions.HttpTokens)) }),
		"metadata-options.instance-metadata-tags":      view(func(v api.Instance) []string { return one(string(v.MetadataOptions.InstanceMetadataTags)) }),
		"metadata-options.state":                       fixed("applied"),
		"monitoring-state":                             func(i *state.Instance) []string { return one(string(monitoring(i))) },
		"network-interface.addresses.association.allocation-id": nic(func(n *state.NetworkInterface) []string {
			return append(one(n.Allocation), each(n.Secondary, func(s state.SecondaryAddress) []string { return one(s.Allocation) })...)
		}),
		"network-interface.addresses.association.ip-owner-id": seen(func(n api.InstanceNetworkInterface) []string {
			return each(n.PrivateIpAddresses, func(a api.InstancePrivateIpAddress) []string { return associationText(a.Association, true) })
		}),
		"network-interface.addresses.association.public-ip": seen(func(n api.InstanceNetworkInterface) []string {
			return each(n.PrivateIpAddresses, func(a api.InstancePrivateIpAddress) []string { return associationText(a.Association, false) })
		}),
		"network-interface.addresses.primary":            seen(func(n api.InstanceNetworkInterface) []string { return flag(true) }),
		"network-interface.addresses.private-ip-address": privates,
		"network-interface.association.allocation-id":    nic(func(n *state.NetworkInterface) []string { return one(n.Allocation) }),
		"network-interface.association.ip-owner-id":      seen(func(n api.InstanceNetworkInterface) []string { return associationText(n.Association, true) }),
		"network-interface.association.public-ip":        nic(func(n *state.NetworkInterface) []string { return address(n.Public) }),
		"network-interface.association.public-dns-name": seen(func(n api.InstanceNetworkInterface) []string {
			if n.Association == nil {
				return nil
			}
			return one(wire.Value(n.Association.PublicDnsName))
		}),
		"network-interface.attachment.attach-time":           nic(func(n *state.NetworkInterface) []string { return instant(n.Attachment.AttachedAt) }),
		"network-interface.attachment.attachment-id":         nic(func(n *state.NetworkInterface) []string { return one(n.AttachmentID) }),
		"network-interface.attachment.delete-on-termination": nic(func(n *state.NetworkInterface) []string { return flag(n.Attachment.DeleteOnTermination) }),
		"network-interface.attachment.device-index":          nic(func(n *state.NetworkInterface) []string { return number(n.Attachment.Device) }),
		"network-interface.attachment.instance-id":           nic(func(n *state.NetworkInterface) []string { return one(n.Attachment.Instance) }),
		"network-interface.attachment.instance-owner-id":     nic(func(n *state.NetworkInterface) []string { return one(n.Account) }),
		"network-interface.attachment.status":                seen(func(n api.InstanceNetworkInterface) []string { return one(string(n.Attachment.Status)) }),
		"network-interface.availability-zone":                nic(func(n *state.NetworkInterface) []string { return one(n.Zone) }),
		"network-interface.description":                      nic(func(n *state.NetworkInterface) []string { return one(n.Description) }),
		"network-interface.group-id":                         nic(func(n *state.NetworkInterface) []string { return n.Groups }),
		"network-interface.group-name":                       seen(func(n api.InstanceNetworkInterface) []string { return names(n.Groups) }),
		"network-interface.ipv6-addresses.ipv6-address":      nic(func(n *state.NetworkInterface) []string { return each(n.IPv6, address) }),
		"network-interface.mac-address":                      nic(func(n *state.NetworkInterface) []string { return one(n.MAC) }),
		"network-interface.network-interface-id":             nic(func(n *state.NetworkInterface) []string { return one(n.ID) }),
		"network-interface.owner-id":                         nic(func(n *state.NetworkInterface) []string { return one(n.Account) }),
		"network-interface.private-dns-name":                 nic(func(n *state.NetworkInterface) []string { return one(n.PrivateDNSName) }),
		"network-interface.private-ip-address":               nic(func(n *state.NetworkInterface) []string { return address(n.Address) }),
		"network-interface.requester-id":                     fixed(),
		"network-interface.requester-managed":                nic(func(n *state.NetworkInterface) []string { return flag(n.RequesterManaged) }),
		"network-interface.source-dest-check":                nic(func(n *state.NetworkInterface) []string { return flag(n.SourceDestCheck) }),
		"network-interface.status":                           nic(func(*state.NetworkInterface) []string { return one("in-use") }),
		"network-interface.subnet-id":                        nic(func(n *state.NetworkInterface) []string { return one(n.Subnet) }),
		"network-interface.tag-key": nic(func(n *state.NetworkInterface) []string {
			return each(n.Tags, func(t state.Tag) []string { return one(t.Key) })
		}),
		"network-interface.tag-value": nic(func(n *state.NetworkInterface) []string {
			return each(n.Tags, func(t state.Tag) []string { return one(t.Value) })
		}),
		"network-interface.vpc-id":               nic(func(n *state.NetworkInterface) []string { return one(n.VPC) }),
		"operator.managed":                       fixed("false"),
		"outpost-arn":                            fixed(),
		"owner-id":                               func(i *state.Instance) []string { return one(i.Account) },
		"placement-group-name":                   text(func(v api.Instance) *string { return v.Placement.GroupName }),
		"placement-partition-number":             view(func(v api.Instance) []string { return partition(v) }),
		"platform":                               fixed(),
		"platform-details":                       fixed("Linux/UNIX"),
		"private-dns-name":                       text(func(v api.Instance) *string { return v.PrivateDnsName }),
		"private-dns-name-options.hostname-type": view(func(v api.Instance) []string { return hostname(v) }),
		"private-dns-name-options.enable-resource-name-dns-a-record": view(func(v api.Instance) []string {
			return resourceName(v, func(o *api.PrivateDnsNameOptionsResponse) *bool { return o.EnableResourceNameDnsARecord })
		}),
		"private-dns-name-options.enable-resource-name-dns-aaaa-record": view(func(v api.Instance) []string {
			return resourceName(v, func(o *api.PrivateDnsNameOptionsResponse) *bool { return o.EnableResourceNameDnsAAAARecord })
		}),
		"private-ip-address":          privates,
		"product-code":                fixed(),
		"product-code.type":           fixed(),
		"ramdisk-id":                  fixed(),
		"reason":                      func(i *state.Instance) []string { return one(i.TransitionReason) },
		"requester-id":                func(i *state.Instance) []string { return one(i.RequesterID) },
		"reservation-id":              func(i *state.Instance) []string { return one(i.Reservation) },
		"root-device-name":            func(i *state.Instance) []string { return one(rootDevice(r, i)) },
		"root-device-type":            fixed("ebs"),
		"source-dest-check":           view(func(v api.Instance) []string { return flag(wire.Value(v.SourceDestCheck)) }),
		"spot-instance-request-id":    func(i *state.Instance) []string { return one(i.Spot) },
		"state-reason-code":           func(i *state.Instance) []string { return one(i.StateCode) },
		"state-reason-message":        func(i *state.Instance) []string { return one(i.StateMessage) },
		"subnet-id":                   text(func(v api.Instance) *string { return v.SubnetId }),
		"tenancy":                     view(func(v api.Instance) []string { return one(string(v.Placement.Tenancy)) }),
		"tpm-support":                 fixed(),
		"usage-operation":             fixed("RunInstances"),
		"usage-operation-update-time": when(func(v api.Instance) *time.Time { return v.UsageOperationUpdateTime }),
		"virtualization-type":         fixed("hvm"),
		"vpc-id":                      text(func(v api.Instance) *string { return v.VpcId }),
	}
}

func profileID(v api.Instance) []string {
	if v.IamInstanceProfile == nil {
		return nil
	}
	return one(wire.Value(v.IamInstanceProfile.Id))
}

func partition(v api.Instance) []string {
	if v.Placement.PartitionNumber == nil {
		return nil
	}
	return number(int(*v.Placement.PartitionNumber))
}

func hostname(v api.Instance) []string {
	if v.PrivateDnsNameOptions == nil {
		return nil
	}
	return one(string(v.PrivateDnsNameOptions.HostnameType))
}

func resourceName(v api.Instance, of func(*api.PrivateDnsNameOptionsResponse) *bool) []string {
	if v.PrivateDnsNameOptions == nil {
		return nil
	}
	return flag(wire.Value(of(v.PrivateDnsNameOptions)))
}

func associationText(a *api.InstanceNetworkInterfaceAssociation, owner bool) []string {
	switch {
	case a == nil:
		return nil
	case owner:
		return one(wire.Value(a.IpOwnerId))
	}
	return one(wire.Value(a.PublicIp))
}

// DescribeInstances lists instances by their reservations.
func (e *EC2) DescribeInstances(ctx context.Context, in *api.DescribeInstancesInput) (*api.DescribeInstancesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	if len(in.InstanceIds) > 0 {
		if in.MaxResults != nil {
			return nil, bad("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
		}
		if _, err := instances(snap, account, in.InstanceIds); err != nil {
			return nil, err
		}
	}
	found, next, err := list(request{in.InstanceIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Instance, *state.Instance]{
		name: "instances", rows: state.Instances.By(snap, "account", account),
		id:      func(i *state.Instance) string { return i.ID },
		missing: noInstance,
		tags:    func(i *state.Instance) []state.Tag { return i.Tags },
		filters: e.instanceFilters(snap),
		view:    func(i *state.Instance) *state.Instance { return i },
	})
	if err != nil {
		return nil, err
	}
	out := &api.DescribeInstancesOutput{Reservations: []api.Reservation{}, NextToken: next}
	at := map[string]int{}
	slices.SortStableFunc(found, func(a, b *state.Instance) int {
		if a.Reservation != b.Reservation {
			return 0
		}
		return a.Index - b.Index
	})
	for _, i := range found {
		k, ok := at[i.Reservation]
		if !ok {
			k = len(out.Reservations)
			at[i.Reservation] = k
			out.Reservations = append(out.Reservations, api.Reservation{ReservationId: new(i.Reservation), OwnerId: new(i.Account), RequesterId: optional(i.RequesterID), Groups: []api.GroupIdentifier{}})
		}
		out.Reservations[k].Instances = append(out.Reservations[k].Instances, e.instanceView(snap, i))
	}
	return out, nil
}

// change is one step of instances from state to state.
func (e *EC2) change(ctx context.Context, ids []string, step func(tx *store.Tx, i *state.Instance) (*state.Instance, error)) ([]api.InstanceStateChange, error) {
	var out []api.InstanceStateChange
	if len(ids) == 0 {
		return nil, bad("MissingParameter", "The request must contain the parameter InstanceId")
	}
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = []api.InstanceStateChange{}
		found, err := instances(tx, e.Account(ctx), ids)
		if err != nil {
			return err
		}
		for _, i := range found {
			next, err := step(tx, i)
			if err != nil {
				return err
			}
			if next != nil {
				state.Instances.Put(tx, next)
			} else {
				next = i
			}
			out = append(out, api.InstanceStateChange{InstanceId: new(i.ID), PreviousState: instanceState(i.State), CurrentState: instanceState(next.State)})
		}
		return nil
	})
	return out, err
}

// byUser is the StateTransitionReason of what a caller did.
func (e *EC2) byUser() string {
	return "User initiated (" + e.Now().UTC().Format("2006-01-02 15:04:05") + " GMT)"
}

// StartInstances starts stopped instances.
func (e *EC2) StartInstances(ctx context.Context, in *api.StartInstancesInput) (*api.StartInstancesOutput, error) {
	out, err := e.change(ctx, in.InstanceIds, func(tx *store.Tx, i *state.Instance) (*state.Instance, error) {
		switch i.State {
		case "running", "pending":
			return nil, nil
		case "stopped":
		default:
			return nil, bad("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be started.", i.ID)
		}
		next := *i
		next.Want, next.State, next.Boots, next.LaunchedAt = state.InstanceRunning, "pending", i.Boots+1, e.Now()
		next.StateCode, next.StateMessage, next.TransitionReason, next.Failure = "", "", "", ""
		if !i.PublicIP {
			return &next, nil
		}
		for _, n := range devices(tx, i.ID) {
			if n.Attachment.Device != 0 || n.Public.IsValid() {
				continue
			}
			public, err := state.FreeAddresses(tx).Public()
			if errors.Is(err, state.ErrPoolEmpty) {
				return nil, bad("InsufficientAddressCapacity", "There are not enough public addresses left.")
			} else if err != nil {
				return nil, err
			}
			eni := *n
			eni.Public = public
			state.NetworkInterfaces.Put(tx, &eni)
			state.AddressLeases.Put(tx, &state.AddressLease{Scope: state.PublicScope, Address: public, ENI: n.ID})
		}
		return &next, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.StartInstancesOutput{StartingInstances: out}, nil
}

// StopInstances stops instances; their roots and interfaces stay, their
// passing public addresses do not.
func (e *EC2) StopInstances(ctx context.Context, in *api.StopInstancesInput) (*api.StopInstancesOutput, error) {
	if wire.Value(in.Hibernate) {
		return nil, bad("UnsupportedHibernationConfiguration", "Hibernation is not supported here.")
	}
	out, err := e.change(ctx, in.InstanceIds, func(tx *store.Tx, i *state.Instance) (*state.Instance, error) {
		switch {
		case i.State == "stopping" || i.State == "stopped":
			return nil, nil
		case i.State != "running" && i.State != "pending":
			return nil, bad("IncorrectInstanceState", "This instance '%s' is not in a state from which it can be stopped.", i.ID)
		case i.KeepFromStop:
			return nil, bad("OperationNotPermitted", "The instance '%s' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.", i.ID)
		}
		if s, ok := state.SpotRequests.Get(tx, i.Spot); ok && s.Type == "one-time" {
			return nil, bad("UnsupportedOperation", "You can't stop the Spot Instance '%s' because it is associated with a one-time Spot Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests.", i.ID)
		}
		next := *i
		next.Want, next.State, next.TransitionReason = state.InstanceStopped, "stopping", e.byUser()
		next.StateCode, next.StateMessage = "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"
		for _, n := range devices(tx, i.ID) {
			if n.Public.IsValid() && n.Allocation == "" {
				eni := *n
				if l, ok := state.AddressLeases.Get(tx, state.LeaseKey(state.PublicScope, n.Public)); ok && l.ENI == n.ID {
					state.AddressLeases.Delete(tx, state.LeaseKey(l.Scope, l.Address))
				}
				eni.Public = noAddress
				state.NetworkInterfaces.Put(tx, &eni)
			}
		}
		return &next, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.StopInstancesOutput{StoppingInstances: out}, nil
}

// RebootInstances boots running instances anew.
func (e *EC2) RebootInstances(ctx context.Context, in *api.RebootInstancesInput) (*api.RebootInstancesOutput, error) {
	_, err := e.change(ctx, in.InstanceIds, func(_ *store.Tx, i *state.Instance) (*state.Instance, error) {
		if i.State != "running" && i.State != "pending" {
			return nil, bad("IncorrectInstanceState", "The instance '%s' is not in the 'running' state.", i.ID)
		}
		next := *i
		next.Boots++
		return &next, nil
	})
	return &api.RebootInstancesOutput{}, err
}

// TerminateInstances ends instances. One that is protected keeps all of them.
func (e *EC2) TerminateInstances(ctx context.Context, in *api.TerminateInstancesInput) (*api.TerminateInstancesOutput, error) {
	out, err := e.change(ctx, in.InstanceIds, func(tx *store.Tx, i *state.Instance) (*state.Instance, error) {
		switch {
		case i.State == "shutting-down" || i.State == "terminated":
			return nil, nil
		case i.KeepFromTermination:
			return nil, bad("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", i.ID)
		}
		next := *i
		next.Want, next.State, next.TransitionReason = state.InstanceTerminated, "shutting-down", e.byUser()
		next.StateCode, next.StateMessage = "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"
		if s, ok := state.SpotRequests.Get(tx, i.Spot); ok && s.State == "active" {
			closed := *s
			closed.State, closed.StatusCode, closed.UpdatedAt = "closed", "instance-terminated-by-user", e.Now()
			state.SpotRequests.Put(tx, &closed)
		}
		return &next, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.TerminateInstancesOutput{TerminatingInstances: out}, nil
}

// DescribeInstanceStatus answers status checks from what the node has
// reported: an instance is reachable once its node says that this boot runs.
func (e *EC2) DescribeInstanceStatus(ctx context.Context, in *api.DescribeInstanceStatusInput) (*api.DescribeInstanceStatusOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	if len(in.InstanceIds) > 0 {
		if _, err := instances(snap, account, in.InstanceIds); err != nil {
			return nil, err
		}
	}
	rows := func(yield func(*state.Instance) bool) {
		for i := range state.Instances.By(snap, "account", account) {
			if (wire.Value(in.IncludeAllInstances) || i.State == "running") && !yield(i) {
				return
			}
		}
	}
	q := request{filters: in.Filters, max: in.MaxResults, token: in.NextToken}
	all := rows
	if len(in.InstanceIds) > 0 {
		// An instance that does not run is left out and is no error.
		rows = func(yield func(*state.Instance) bool) {
			for i := range all {
				if slices.Contains(in.InstanceIds, i.ID) && !yield(i) {
					return
				}
			}
		}
	}
	zones := zoneIDs(snap)
	status := func(i *state.Instance) []string { return one(string(checks(i))) }
	none := func(*state.Instance) []string { return nil }
	out, next, err := list(q, kind[*state.Instance, api.InstanceStatus]{
		name: fmt.Sprint("instance-status/", wire.Value(in.IncludeAllInstances), in.InstanceIds), rows: rows,
		id:      func(i *state.Instance) string { return i.ID },
		missing: noInstance,
		filters: filters[*state.Instance]{
			"availability-zone":            func(i *state.Instance) []string { return one(i.Zone) },
			"availability-zone-id":         func(i *state.Instance) []string { return one(zones[i.Zone]) },
			"event.code":                   none,
			"event.description":            none,
			"event.instance-event-id":      none,
			"event.not-after":              none,
			"event.not-before":             none,
			"event.not-before-deadline":    none,
			"instance-state-code":          func(i *state.Instance) []string { return number(int(stateCodes[i.State])) },
			"instance-state-name":          func(i *state.Instance) []string { return one(i.State) },
			"instance-status.reachability": func(i *state.Instance) []string { return one(string(reachability(checks(i)))) },
			"instance-status.status":       status,
			"operator.managed":             func(*state.Instance) []string { return flag(false) },
			"operator.principal":           none,
			"system-status.reachability":   func(i *state.Instance) []string { return one(string(reachability(system(i)))) },
			"system-status.status":         func(i *state.Instance) []string { return one(string(system(i))) },
			"attached-ebs-status.status":   func(*state.Instance) []string { return one("not-applicable") },
		},
		view: func(i *state.Instance) api.InstanceStatus {
			summary := func(s api.SummaryStatus) *api.InstanceStatusSummary {
				out := &api.InstanceStatusSummary{Status: s}
				if s != "not-applicable" {
					out.Details = []api.InstanceStatusDetails{{Name: "reachability", Status: reachability(s)}}
				}
				return out
			}
			return api.InstanceStatus{InstanceId: new(i.ID), AvailabilityZone: new(i.Zone), AvailabilityZoneId: optional(zones[i.Zone]), InstanceState: instanceState(i.State),
				InstanceStatus: summary(checks(i)), SystemStatus: summary(system(i)), AttachedEbsStatus: &api.EbsStatusSummary{Status: "not-applicable"}}
		},
	})
	return &api.DescribeInstanceStatusOutput{InstanceStatuses: out, NextToken: next}, err
}

// checks is the status of the instance itself.
func checks(i *state.Instance) api.SummaryStatus {
	switch {
	case i.State != "running":
		return "not-applicable"
	case i.Failure != "":
		return "impaired"
	case i.ReportedState == "running" && i.ReportedBoots >= i.Boots:
		return "ok"
	}
	return "initializing"
}

// system is the status of what it runs on: a node that reports is well.
func system(i *state.Instance) api.SummaryStatus {
	switch {
	case i.State != "running":
		return "not-applicable"
	case i.Node != "" && i.ReportedState != "":
		return "ok"
	}
	return "initializing"
}

func reachability(s api.SummaryStatus) api.StatusType {
	switch s {
	case "ok":
		return "passed"
	case "impaired":
		return "failed"
	case "not-applicable":
		return ""
	}
	return "initializing"
}

// GetConsoleOutput answers what the node has last sent of the console.
func (e *EC2) GetConsoleOutput(ctx context.Context, in *api.GetConsoleOutputInput) (*api.GetConsoleOutputOutput, error) {
	snap := e.DB.Snapshot()
	i, err := instance(snap, e.Account(ctx), wire.Value(in.InstanceId))
	if err != nil {
		return nil, err
	}
	out := &api.GetConsoleOutputOutput{InstanceId: new(i.ID), Timestamp: new(i.LaunchedAt), Output: new("")}
	if c, ok := state.Consoles.Get(snap, i.ID); ok {
		out.Output, out.Timestamp = new(base64.StdEncoding.EncodeToString(c.Output)), new(c.At)
	}
	return out, nil
}

// GetPasswordData answers that there is no password: instances run Linux.
func (e *EC2) GetPasswordData(ctx context.Context, in *api.GetPasswordDataInput) (*api.GetPasswordDataOutput, error) {
	i, err := instance(e.DB.Snapshot(), e.Account(ctx), wire.Value(in.InstanceId))
	if err != nil {
		return nil, err
	}
	return &api.GetPasswordDataOutput{InstanceId: new(i.ID), Timestamp: new(i.LaunchedAt), PasswordData: new("")}, nil
}

func (e *EC2) setMonitoring(ctx context.Context, ids []string, on bool) ([]api.InstanceMonitoring, error) {
	var out []api.InstanceMonitoring
	_, err := e.change(ctx, ids, func(_ *store.Tx, i *state.Instance) (*state.Instance, error) {
		if i.State == "terminated" || i.State == "shutting-down" {
			return nil, bad("IncorrectInstanceState", "The instance '%s' is not in a state in which it can be monitored.", i.ID)
		}
		next := *i
		next.Monitoring = on
		return &next, nil
	})
	if err != nil {
		return nil, err
	}
	found, err := instances(e.DB.Snapshot(), e.Account(ctx), ids)
	for _, i := range found {
		out = append(out, api.InstanceMonitoring{InstanceId: new(i.ID), Monitoring: &api.Monitoring{State: monitoring(i)}})
	}
	return out, err
}

// MonitorInstances keeps that detailed monitoring is wanted.
func (e *EC2) MonitorInstances(ctx context.Context, in *api.MonitorInstancesInput) (*api.MonitorInstancesOutput, error) {
	out, err := e.setMonitoring(ctx, in.InstanceIds, true)
	return &api.MonitorInstancesOutput{InstanceMonitorings: out}, err
}

// UnmonitorInstances takes that back.
func (e *EC2) UnmonitorInstances(ctx context.Context, in *api.UnmonitorInstancesInput) (*api.UnmonitorInstancesOutput, error) {
	out, err := e.setMonitoring(ctx, in.InstanceIds, false)
	return &api.UnmonitorInstancesOutput{InstanceMonitorings: out}, err
}

// A volume is the root of an instance as EC2 shows it: the writable snapshot
// that its node keeps for it. Size, type and the like are what was asked, and
// nothing enforces them; it is never encrypted.
type volume struct {
	size, iops, throughput int32
	kind                   api.VolumeType
	remove                 bool
	snapshot               string
}

func rootDevice(r store.Reader, i *state.Instance) string {
	if m, ok := state.ImageOf(r, i.Image); ok {
		return m.RootDevice
	}
	return "/dev/xvda"
}

func rootVolume(r store.Reader, i *state.Instance) volume {
	v := volume{size: 8, kind: "gp3", remove: true}
	if m, ok := state.ImageOf(r, i.Image); ok {
		v.size = rootSize(m)
	}
	root := rootDevice(r, i)
	for _, m := range i.Options.BlockDeviceMappings {
		if wire.Value(m.DeviceName) != root || m.Ebs == nil {
			continue
		}
		if m.Ebs.VolumeSize != nil {
			v.size = *m.Ebs.VolumeSize
		}
		if m.Ebs.VolumeType != "" {
			v.kind = m.Ebs.VolumeType
		}
		v.iops, v.throughput = wire.Value(m.Ebs.Iops), wire.Value(m.Ebs.Throughput)
		v.remove = m.Ebs.DeleteOnTermination == nil || *m.Ebs.DeleteOnTermination
	}
	switch {
	case v.iops != 0:
	case v.kind == "gp3":
		v.iops = 3000
	case v.kind == "gp2":
		v.iops = min(max(3*v.size, 100), 16000)
	}
	if v.kind == "gp3" && v.throughput == 0 {
		v.throughput = 125
	}
	return v
}

// DescribeVolumes lists the roots of instances. There are no other volumes.
func (e *EC2) DescribeVolumes(ctx context.Context, in *api.DescribeVolumesInput) (*api.DescribeVolumesOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	rows := slices.SortedFunc(func(yield func(*state.Instance) bool) {
		for i := range state.Instances.By(snap, "account", account) {
			if i.State != "terminated" && i.Volume != "" && !yield(i) {
				return
			}
		}
	}, func(a, b *state.Instance) int { return strings.Compare(a.Volume, b.Volume) })
	zones := zoneIDs(snap)
	fixed := func(v ...string) func(*state.Instance) []string { return func(*state.Instance) []string { return v } }
	out, next, err := list(request{in.VolumeIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Instance, api.Volume]{
		name: "volumes", rows: slices.Values(rows),
		id: func(i *state.Instance) string { return i.Volume },
		missing: func(id string) error {
			return bad("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
		},
		tags: func(i *state.Instance) []state.Tag { return i.VolumeTags },
		filters: filters[*state.Instance]{
			"attachment.attach-time":           func(i *state.Instance) []string { return instant(i.CreatedAt) },
			"attachment.delete-on-termination": func(i *state.Instance) []string { return flag(rootVolume(snap, i).remove) },
			"attachment.device":                func(i *state.Instance) []string { return one(rootDevice(snap, i)) },
			"attachment.instance-id":           func(i *state.Instance) []string { return one(i.ID) },
			"attachment.status":                fixed("attached"),
			"availability-zone":                func(i *state.Instance) []string { return one(i.Zone) },
			"availability-zone-id":             func(i *state.Instance) []string { return one(zones[i.Zone]) },
			"create-time":                      func(i *state.Instance) []string { return instant(i.CreatedAt) },
			"encrypted":                        fixed("false"),
			"fast-restored":                    fixed("false"),
			"multi-attach-enabled":             fixed("false"),
			"operator.managed":                 fixed("false"),
			"operator.principal":               fixed(),
			"size":                             func(i *state.Instance) []string { return number(int(rootVolume(snap, i).size)) },
			"snapshot-id":                      fixed(),
			"status":                           fixed("in-use"),
			"volume-id":                        func(i *state.Instance) []string { return one(i.Volume) },
			"volume-type":                      func(i *state.Instance) []string { return one(string(rootVolume(snap, i).kind)) },
		},
		view: func(i *state.Instance) api.Volume {
			v := rootVolume(snap, i)
			out := api.Volume{VolumeId: new(i.Volume), Size: new(v.size), VolumeType: v.kind, AvailabilityZone: new(i.Zone), AvailabilityZoneId: optional(zones[i.Zone]),
				State: "in-use", CreateTime: new(i.CreatedAt), Encrypted: new(false), MultiAttachEnabled: new(false), SnapshotId: new(""), Tags: tagsView(i.VolumeTags),
				Attachments: []api.VolumeAttachment{{VolumeId: new(i.Volume), InstanceId: new(i.ID), Device: new(rootDevice(snap, i)), State: "attached", AttachTime: new(i.CreatedAt), DeleteOnTermination: new(v.remove)}}}
			if v.iops > 0 {
				out.Iops = new(v.iops)
			}
			if v.throughput > 0 {
				out.Throughput = new(v.throughput)
			}
			return out
		},
	})
	return &api.DescribeVolumesOutput{Volumes: out, NextToken: next}, err
}

// GetEbsEncryptionByDefault answers no: nothing here encrypts roots.
func (e *EC2) GetEbsEncryptionByDefault(context.Context, *api.GetEbsEncryptionByDefaultInput) (*api.GetEbsEncryptionByDefaultOutput, error) {
	return &api.GetEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: new(false)}, nil
}

// EnableEbsEncryptionByDefault is refused, for the same reason.
func (e *EC2) EnableEbsEncryptionByDefault(context.Context, *api.EnableEbsEncryptionByDefaultInput) (*api.EnableEbsEncryptionByDefaultOutput, error) {
	return nil, bad("UnsupportedOperation", "Roots of instances are not encrypted here.")
}

// DisableEbsEncryptionByDefault finds it disabled.
func (e *EC2) DisableEbsEncryptionByDefault(context.Context, *api.DisableEbsEncryptionByDefaultInput) (*api.DisableEbsEncryptionByDefaultOutput, error) {
	return &api.DisableEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: new(false)}, nil
}

// DescribeInstanceTopology answers for none: no type here has a topology.
func (e *EC2) DescribeInstanceTopology(ctx context.Context, in *api.DescribeInstanceTopologyInput) (*api.DescribeInstanceTopologyOutput, error) {
	if _, err := instances(e.DB.Snapshot(), e.Account(ctx), in.InstanceIds); err != nil {
		return nil, err
	}
	return &api.DescribeInstanceTopologyOutput{Instances: []api.InstanceTopology{}}, nil
}

// DescribeInstanceCreditSpecifications answers how burstable instances are to be paid.
func (e *EC2) DescribeInstanceCreditSpecifications(ctx context.Context, in *api.DescribeInstanceCreditSpecificationsInput) (*api.DescribeInstanceCreditSpecificationsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	found, err := instances(snap, account, in.InstanceIds)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if m, _ := state.InstanceType(i.Type); !m.Burstable {
			return nil, bad("InvalidParameterCombination", "The instance '%s' is not a burstable performance instance.", i.ID)
		}
	}
	rows := func(yield func(*state.Instance) bool) {
		for i := range state.Instances.By(snap, "account", account) {
			m, _ := state.InstanceType(i.Type)
			// Without ids, AWS answers those that are unlimited.
			unlimited := credits(m, i.Options.CreditSpecification) == "unlimited"
			if m.Burstable && i.State != "terminated" && (unlimited || len(in.InstanceIds) > 0) && !yield(i) {
				return
			}
		}
	}
	out, next, err := list(request{in.InstanceIds, in.Filters, in.MaxResults, in.NextToken}, kind[*state.Instance, api.InstanceCreditSpecification]{
		name: "credits", rows: rows, missing: noInstance,
		id:      func(i *state.Instance) string { return i.ID },
		filters: filters[*state.Instance]{"instance-id": func(i *state.Instance) []string { return one(i.ID) }},
		view: func(i *state.Instance) api.InstanceCreditSpecification {
			m, _ := state.InstanceType(i.Type)
			return api.InstanceCreditSpecification{InstanceId: new(i.ID), CpuCredits: new(credits(m, i.Options.CreditSpecification))}
		},
	})
	return &api.DescribeInstanceCreditSpecificationsOutput{InstanceCreditSpecifications: out, NextToken: next}, err
}
