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
