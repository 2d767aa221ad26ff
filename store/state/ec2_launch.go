package state

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

// A Launch asks for instances. RunInstances and whoever else starts some (an
// Auto Scaling group) make them of it, so that an instance looks the same
// whoever asked for it.
type Launch struct {
	Region, Account string
	In              *ec2.RunInstancesInput // as it came: Plan merges the launch template
	Subnet          string                 // where the one who asks chose it, over the template's
	Tags            []Tag                  // more tags of the instances
	ServiceLinked   string                 // RequesterId, of services that launch
	NewID           func() string          // 32 hex digits
	Now             time.Time

	// Of several launches that one transaction makes true: what gives addresses to all of them, and how
	// many instances the others launch in the account.
	Addresses *Addresses
	Besides   int
}

// Launched are the rows of new instances. They must all be put in one
// transaction.
type Launched struct {
	Reservation string
	Instances   []*Instance
	Interfaces  []*NetworkInterface // new ones, and others that are now attached
	Leases      []*AddressLease
	Spots       []*SpotRequest
	Image       string // as it was resolved
	Groups      []string
}

// Put writes the rows.
func (l *Launched) Put(tx *store.Tx) {
	for _, i := range l.Instances {
		Instances.Put(tx, i)
	}
	for _, e := range l.Interfaces {
		NetworkInterfaces.Put(tx, e)
	}
	for _, a := range l.Leases {
		AddressLeases.Put(tx, a)
	}
	for _, s := range l.Spots {
		SpotRequests.Put(tx, s)
	}
}

const (
	// InstanceRunning, InstanceStopped and InstanceTerminated are what is wanted of instances.
	InstanceRunning    = "running"
	InstanceStopped    = "stopped"
	InstanceTerminated = "terminated"

	maxUserData           = 16 << 10
	maxGroupsPerInterface = 5
)

func refuse(code, format string, args ...any) error {
	return wire.NewError(http.StatusBadRequest, code, fmt.Sprintf(format, args...))
}

// Plan makes the rows of the instances, or says in EC2's words why there can
// be none. The reader is a transaction's, or the caller must see to it that
// what was read still holds.
func (l Launch) Plan(r store.Reader) (*Launched, error) {
	in, from, err := MergeTemplate(r, l.Account, l.In)
	if err != nil {
		return nil, err
	}
	if l.Subnet != "" {
		if len(in.NetworkInterfaces) > 0 {
			in.NetworkInterfaces = slices.Clone(in.NetworkInterfaces)
			for i := range in.NetworkInterfaces {
				if in.NetworkInterfaces[i].NetworkInterfaceId == nil {
					in.NetworkInterfaces[i].SubnetId = new(l.Subnet)
				}
			}
		} else {
			in.SubnetId = new(l.Subnet)
		}
	}
	p := planner{Launch: l, in: in, r: r, addresses: cmp.Or(l.Addresses, FreeAddresses(r)), out: &Launched{}}
	if err := p.validate(); err != nil {
		return nil, err
	}
	if err := p.network(); err != nil {
		return nil, err
	}
	if err := p.capacity(); err != nil {
		return nil, err
	}
	if from != nil {
		p.tags["instance"] = append(p.tags["instance"], Tag{"aws:ec2launchtemplate:id", from.Template}, Tag{"aws:ec2launchtemplate:version", strconv.Itoa(from.Number)})
	}
	for _, t := range l.Tags {
		p.tags["instance"] = setTag(p.tags["instance"], t)
	}
	p.out.Reservation = l.id("r")
	for index := range p.max {
		if err := p.instance(index); err != nil {
			if index >= p.min && (errors.Is(err, errFull)) {
				break
			}
			if e, ok := errors.AsType[fullError](err); ok {
				return nil, e.error
			}
			return nil, err
		}
	}
	return p.out, nil
}

// fullError says that there are no more addresses: fewer instances may do.
type fullError struct{ error }

var errFull = errors.New("full")

func (fullError) Is(target error) bool { return target == errFull }

func (l Launch) id(prefix string) string { return prefix + "-" + l.NewID()[:17] }

func setTag(ts []Tag, t Tag) []Tag {
	ts = slices.Clone(ts)
	for i := range ts {
		if ts[i].Key == t.Key {
			ts[i] = t
			return ts
		}
	}
	return append(ts, t)
}

// planner is one Plan under way.
type planner struct {
	Launch
	in        *ec2.RunInstancesInput
	r         store.Reader
	out       *Launched
	addresses *Addresses

	min, max int
	image    *MachineImage
	machine  Machine
	profile  *InstanceProfile
	userData []byte
	metadata InstanceMetadata
	tags     map[string][]Tag
	devices  []device // in the order of their index
	subnet   *Subnet  // of device 0
}

// device is a network interface of each instance, as it was asked for.
type device struct {
	index       int
	existing    *NetworkInterface
	subnet      *Subnet
	groups      []string
	want        InterfaceAddresses
	description string
	keep        bool // when the instance ends
	trunk       bool
}

func (p *planner) validate() error {
	in := p.in
	p.min, p.max = number(in.MinCount), number(in.MaxCount)
	switch {
	case in.MinCount == nil || in.MaxCount == nil:
		return refuse("MissingParameter", "The request must contain the parameter MinCount and MaxCount")
	case p.min < 1:
		return refuse("InvalidParameterValue", "Value (%d) for parameter minCount is invalid. It must be at least 1.", p.min)
	case p.max < p.min:
		return refuse("InvalidParameterValue", "Value (%d) for parameter maxCount is invalid. It must be at least minCount.", p.max)
	}
	have := p.Besides
	for i := range Instances.By(p.r, "account", p.Account) {
		if i.State != "terminated" {
			have++
		}
	}
	if limit := Limit(p.r, p.Account, "ec2/instances"); have+p.min > limit {
		return refuse("InstanceLimitExceeded", "You have requested more instances (%d) than your current instance limit of %d allows for the specified instance type. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.", have+p.min, limit)
	} else {
		p.max = min(p.max, limit-have)
	}
	if err := p.unsupported(); err != nil {
		return err
	}
	if str(in.ImageId) == "" {
		return refuse("MissingParameter", "The request must contain the parameter ImageId")
	}
	id, ok := ResolveImage(p.r, p.Account, p.Region, *in.ImageId)
	if !ok {
		return refuse("InvalidParameterValue", "The SSM parameter of '%s' could not be resolved to an image.", *in.ImageId)
	}
	if p.image, ok = ImageOf(p.r, id); !ok || !p.image.For(p.Account) {
		if !strings.HasPrefix(id, "ami-") {
			return refuse("InvalidAMIID.Malformed", "Invalid id: \"%s\" (expecting \"ami-...\")", id)
		}
		return refuse("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
	}
	p.out.Image = id
	if in.InstanceType == "" {
		return refuse("MissingParameter", "The request must contain the parameter InstanceType")
	}
	if p.machine, ok = InstanceType(string(in.InstanceType)); !ok {
		return refuse("InvalidParameterValue", "Invalid value '%s' for InstanceType.", in.InstanceType)
	}
	if p.machine.Arch != p.image.Architecture {
		return refuse("InvalidParameterValue", "The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again. You can use 'describe-instance-types' or 'describe-images' to discover the architecture of the instance type or AMI.", p.machine.Arch, p.image.Architecture)
	}
	if in.KeyName != nil {
		if _, ok := KeyPairs.Get(p.r, p.Account+"/"+*in.KeyName); !ok {
			return refuse("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", *in.KeyName)
		}
	}
	var err error
	if p.profile, err = FindProfile(p.r, p.Account, in.IamInstanceProfile); err != nil {
		return err
	}
	if p.userData, err = UserData(str(in.UserData)); err != nil {
		return err
	}
	if p.metadata, err = p.metadataOptions(); err != nil {
		return err
	}
	if p.tags, err = launchTags(in.TagSpecifications); err != nil {
		return err
	}
	if o := in.InstanceMarketOptions; o != nil && o.MarketType == "capacity-block" {
		return refuse("UnsupportedOperation", "Capacity blocks are not here.")
	} else if o != nil && o.MarketType != "spot" && o.MarketType != "" {
		return refuse("InvalidParameterValue", "Value (%s) for parameter marketType is invalid.", o.MarketType)
	}
	if c := in.CreditSpecification; c != nil {
		switch v := str(c.CpuCredits); {
		case !p.machine.Burstable:
			return refuse("InvalidParameterCombination", "The instance type '%s' does not support CreditSpecification.", in.InstanceType)
		case v != "standard" && v != "unlimited":
			return refuse("InvalidParameterValue", "Value (%s) for parameter cpuCredits is invalid. It must be standard or unlimited.", v)
		}
	}
	return p.mappings()
}

// mappings looks over the block device mappings, which are kept.
func (p *planner) mappings() error {
	seen := map[string]bool{}
	for _, m := range p.in.BlockDeviceMappings {
		name := str(m.DeviceName)
		switch {
		case name == "":
			return refuse("MissingParameter", "The request must contain the parameter deviceName of a block device mapping")
		case seen[name]:
			return refuse("InvalidBlockDeviceMapping", "Duplicate device name '%s'", name)
		case m.Ebs != nil && m.Ebs.VolumeSize != nil && (*m.Ebs.VolumeSize < 1 || *m.Ebs.VolumeSize > 65536):
			return refuse("InvalidParameterValue", "Volume of %dGiB is out of range", *m.Ebs.VolumeSize)
		}
		seen[name] = true
	}
	return nil
}

// unsupported refuses what would change how the instance runs, and cannot be had.
func (p *planner) unsupported() error {
	in := p.in
	no := func(what string) error { return refuse("UnsupportedOperation", "%s not supported here.", what) }
	switch {
	case in.HibernationOptions != nil && yes(in.HibernationOptions.Configured):
		return no("Hibernation is")
	case in.EnclaveOptions != nil && yes(in.EnclaveOptions.Enabled):
		return no("Nitro Enclaves are")
	case len(in.ElasticGpuSpecification)+len(in.ElasticInferenceAccelerators) > 0:
		return no("Elastic GPUs and inference accelerators are")
	case len(in.SecondaryInterfaces) > 0:
		return no("Secondary networks are")
	case in.KernelId != nil || in.RamdiskId != nil:
		return no("Kernels and RAM disks of one's own are")
	case in.Placement != nil && (in.Placement.Tenancy == "host" || in.Placement.HostId != nil || in.Placement.HostResourceGroupArn != nil):
		return no("Dedicated Hosts are")
	case in.CapacityReservationSpecification != nil && in.CapacityReservationSpecification.CapacityReservationTarget != nil:
		return no("Capacity Reservations are")
	case in.CpuOptions != nil && in.CpuOptions.AmdSevSnp == "enabled":
		return no("AMD SEV-SNP is")
	}
	for _, n := range in.NetworkInterfaces {
		switch {
		case n.InterfaceType != nil && *n.InterfaceType != "interface":
			return no("The interface type " + *n.InterfaceType + " is")
		case len(n.Ipv4Prefixes)+len(n.Ipv6Prefixes) > 0 || n.Ipv4PrefixCount != nil || n.Ipv6PrefixCount != nil:
			return no("Prefix delegation is")
		case number(n.NetworkCardIndex) != 0:
			return refuse("InvalidParameterValue", "Network card index %d is out of range: there is one network card.", *n.NetworkCardIndex)
		case yes(n.AssociateCarrierIpAddress):
			return no("Carrier addresses are")
		}
	}
	return nil
}

func yes(b *bool) bool { return b != nil && *b }

// UserData decodes what RunInstances and templates say of it.
func UserData(encoded string) ([]byte, error) {
	if encoded == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' {
			return -1
		}
		return c
	}, encoded))
	if err != nil {
		return nil, refuse("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	}
	if len(b) > maxUserData {
		return nil, refuse("InvalidParameterValue", "User data is limited to 16384 bytes")
	}
	return b, nil
}

// FindProfile is the instance profile that a request names, nil for none.
func FindProfile(r store.Reader, account string, s *ec2.IamInstanceProfileSpecification) (*InstanceProfile, error) {
	switch {
	case s == nil || s.Name == nil && s.Arn == nil:
		return nil, nil
	case s.Name != nil && s.Arn != nil:
		return nil, refuse("InvalidParameterCombination", "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'")
	case s.Name != nil:
		p, ok := InstanceProfiles.Get(r, IAMKey(account, *s.Name))
		if !ok {
			return nil, refuse("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", *s.Name)
		}
		return p, nil
	}
	p, ok := InstanceProfiles.Get(r, IAMKey(account, (*s.Arn)[strings.LastIndexByte(*s.Arn, '/')+1:]))
	if !ok || p.ARN() != *s.Arn {
		return nil, refuse("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN", *s.Arn)
	}
	return p, nil
}

// metadataOptions are what was asked, over the account's defaults, over the image's.
func (p *planner) metadataOptions() (InstanceMetadata, error) {
	m := InstanceMetadata{Enabled: true, HopLimit: 1}
	if p.image.IMDS == "v2.0" {
		m.TokenRequired, m.HopLimit = true, 2
	}
	if d, ok := InstanceDefaults.Get(p.r, p.Account); ok {
		if d.Tokens != "" {
			m.TokenRequired = d.Tokens == "required"
		}
		if d.HopLimit > 0 {
			m.HopLimit = d.HopLimit
		}
		if d.Endpoint != "" {
			m.Enabled = d.Endpoint == "enabled"
		}
		m.Tags = d.MetadataTags == "enabled"
	}
	if o := p.in.MetadataOptions; o != nil {
		return SetMetadata(m, *o)
	}
	return m, nil
}

// SetMetadata changes metadata options as a request says.
func SetMetadata(m InstanceMetadata, o ec2.InstanceMetadataOptionsRequest) (InstanceMetadata, error) {
	if o.HttpEndpoint != "" {
		m.Enabled = o.HttpEndpoint == "enabled"
	}
	if o.HttpTokens != "" {
		m.TokenRequired = o.HttpTokens == "required"
	}
	if o.HttpPutResponseHopLimit != nil {
		if m.HopLimit = number(o.HttpPutResponseHopLimit); m.HopLimit < 1 || m.HopLimit > 64 {
			return m, refuse("InvalidParameterValue", "Value (%d) for parameter HttpPutResponseHopLimit is invalid. It must be from 1 to 64.", m.HopLimit)
		}
	}
	if o.HttpProtocolIpv6 != "" {
		m.IPv6 = o.HttpProtocolIpv6 == "enabled"
	}
	if o.InstanceMetadataTags != "" {
		m.Tags = o.InstanceMetadataTags == "enabled"
	}
	return m, nil
}

// launchTags are the tags of what a launch makes, by the type of resource.
func launchTags(specs []ec2.TagSpecification) (map[string][]Tag, error) {
	out := map[string][]Tag{}
	for _, s := range specs {
		kind := string(s.ResourceType)
		switch kind {
		case "instance", "volume", "network-interface", "spot-instances-request":
		case "":
			return nil, refuse("InvalidParameterValue", "Tag specification resource type must have a value")
		default:
			return nil, refuse("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", kind)
		}
		for _, t := range s.Tags {
			key, value := str(t.Key), str(t.Value)
			switch {
			case key == "":
				return nil, refuse("InvalidParameterValue", "Tag keys must be between 1 and 127 characters")
			case len(key) > 127:
				return nil, refuse("InvalidParameterValue", "Tag key exceeds the maximum length of 127 characters")
			case len(value) > 255:
				return nil, refuse("InvalidParameterValue", "Tag value exceeds the maximum length of 255 characters")
			case strings.HasPrefix(strings.ToLower(key), "aws:"):
				return nil, refuse("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
			case slices.ContainsFunc(out[kind], func(have Tag) bool { return have.Key == key }):
				return nil, refuse("InvalidParameterValue", "Duplicate tag key '%s' specified.", key)
			}
			out[kind] = append(out[kind], Tag{key, value})
		}
		if len(out[kind]) > 50 {
			return nil, refuse("TagLimitExceeded", "The maximum number of tags for this resource has been reached.")
		}
	}
	return out, nil
}

// network finds out what interfaces each instance gets.
func (p *planner) network() error {
	in := p.in
	if len(in.NetworkInterfaces) == 0 {
		return p.plain()
	}
	switch {
	case in.SubnetId != nil:
		return refuse("InvalidParameterCombination", "Network interfaces and an instance-level subnet ID may not be specified on the same request")
	case len(in.SecurityGroupIds)+len(in.SecurityGroups) > 0:
		return refuse("InvalidParameterCombination", "Network interfaces and an instance-level security groups may not be specified on the same request")
	case in.PrivateIpAddress != nil:
		return refuse("InvalidParameterCombination", "Network interfaces and an instance-level private address may not be specified on the same request")
	case in.Ipv6AddressCount != nil || len(in.Ipv6Addresses) > 0:
		return refuse("InvalidParameterCombination", "Network interfaces and an instance-level IPv6 address may not be specified on the same request")
	case len(in.NetworkInterfaces) > p.machine.MaxENIs:
		return refuse("AttachmentLimitExceeded", "Interface count %d exceeds the limit for %s", len(in.NetworkInterfaces), in.InstanceType)
	}
	for _, n := range in.NetworkInterfaces {
		d, err := p.device(n)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(p.devices, func(o device) bool { return o.index == d.index }) {
			return refuse("InvalidParameterValue", "Each network interface requires a unique device index.")
		}
		p.devices = append(p.devices, d)
	}
	slices.SortFunc(p.devices, func(a, b device) int { return a.index - b.index })
	if p.devices[0].index != 0 {
		return refuse("InvalidParameterValue", "A network interface with device index 0 is required.")
	}
	p.subnet = p.devices[0].subnet
	for _, d := range p.devices[1:] {
		switch {
		case d.subnet.VPC != p.subnet.VPC:
			return refuse("InvalidParameterCombination", "Network interfaces must be in the same VPC.")
		case d.subnet.Zone != p.subnet.Zone:
			return refuse("InvalidParameterCombination", "You may not specify a network interface in a different availability zone from that of the instance.")
		}
	}
	return p.zone(p.subnet)
}

// zone holds a subnet to the zone that was asked for.
func (p *planner) zone(s *Subnet) error {
	if pl := p.in.Placement; pl != nil && str(pl.AvailabilityZone) != "" && *pl.AvailabilityZone != s.Zone {
		return refuse("InvalidParameterValue", "The availability zone '%s' of the placement is not that of the subnet '%s'.", *pl.AvailabilityZone, s.ID)
	}
	return nil
}

// plain is the one interface of an instance that names none.
func (p *planner) plain() error {
	in := p.in
	subnet, err := p.findSubnet(str(in.SubnetId))
	if err != nil {
		return err
	}
	if len(in.SecurityGroups) > 0 && in.SubnetId != nil {
		if v, ok := VPCs.Get(p.r, subnet.VPC); !ok || !v.Default {
			return refuse("InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet")
		}
	}
	groups := slices.Clone(in.SecurityGroupIds)
	for _, name := range in.SecurityGroups {
		n, ok := GroupNames.Get(p.r, subnet.VPC+"/"+name)
		if !ok {
			return refuse("InvalidGroup.NotFound", "The security group '%s' does not exist in default VPC '%s'", name, subnet.VPC)
		}
		groups = append(groups, n.Group)
	}
	d := device{subnet: subnet}
	if d.groups, err = p.groups(subnet, groups); err != nil {
		return err
	}
	if in.PrivateIpAddress != nil {
		if err := p.named(&d.want.IPv4, *in.PrivateIpAddress); err != nil {
			return err
		}
	}
	d.want.MoreIPv6 = number(in.Ipv6AddressCount)
	for _, x := range in.Ipv6Addresses {
		if err := p.named(&d.want.IPv6, str(x.Ipv6Address)); err != nil {
			return err
		}
	}
	d.want.Public = subnet.MapPublicIPOnLaunch
	p.devices, p.subnet = []device{d}, subnet
	return p.addressLimits(&p.devices[0])
}

// device reads one NetworkInterfaces specification.
func (p *planner) device(n ec2.InstanceNetworkInterfaceSpecification) (d device, err error) {
	d.index, d.description = number(n.DeviceIndex), str(n.Description)
	if n.DeviceIndex == nil && len(p.in.NetworkInterfaces) > 1 {
		return d, refuse("InvalidParameterValue", "Each network interface requires a device index.")
	}
	if d.index < 0 || d.index > 63 {
		return d, refuse("InvalidParameterValue", "Device index %d is out of range.", d.index)
	}
	d.keep = n.DeleteOnTermination != nil && !*n.DeleteOnTermination
	if id := str(n.NetworkInterfaceId); id != "" {
		e, ok := NetworkInterfaces.Get(p.r, id)
		switch {
		case !ok || e.Account != p.Account || e.Deleting:
			return d, refuse("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
		case p.max > 1:
			return d, refuse("InvalidParameterCombination", "A network interface ID may not be specified when launching more than one instance.")
		case n.SubnetId != nil || len(n.Groups) > 0 || n.PrivateIpAddress != nil || len(n.PrivateIpAddresses) > 0 || n.SecondaryPrivateIpAddressCount != nil ||
			n.Description != nil || n.Ipv6AddressCount != nil || len(n.Ipv6Addresses) > 0:
			return d, refuse("InvalidParameterCombination", "A network interface may not specify both a network interface ID and properties of a new one.")
		case yes(n.AssociatePublicIpAddress):
			return d, refuse("InvalidParameterCombination", "The associatePublicIPAddress parameter cannot be specified when launching with an existing network interface.")
		case yes(n.DeleteOnTermination):
			return d, refuse("InvalidParameterCombination", "The deleteOnTermination parameter may not be true for an existing network interface.")
		case e.Attachment != nil || e.Task != "" || e.Owner != "" || e.RequesterManaged:
			return d, refuse("InvalidNetworkInterface.InUse", "Interface: [%s] in use.", id)
		}
		d.existing, d.keep = e, true
		if d.subnet, ok = Subnets.Get(p.r, e.Subnet); !ok {
			return d, refuse("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", e.Subnet)
		}
		return d, nil
	}
	if d.subnet, err = p.findSubnet(str(n.SubnetId)); err != nil {
		return d, err
	}
	if d.groups, err = p.groups(d.subnet, n.Groups); err != nil {
		return d, err
	}
	primary := ""
	if n.PrivateIpAddress != nil {
		primary = *n.PrivateIpAddress
	}
	var secondary []string
	for _, x := range n.PrivateIpAddresses {
		switch a := str(x.PrivateIpAddress); {
		case yes(x.Primary) && primary != "" && primary != a:
			return d, refuse("InvalidParameterCombination", "Only one primary private IP address may be specified.")
		case yes(x.Primary):
			primary = a
		default:
			secondary = append(secondary, a)
		}
	}
	if primary == "" && len(secondary) > 0 {
		return d, refuse("InvalidParameterCombination", "A primary private IP address must be specified with secondary ones.")
	}
	if primary != "" {
		secondary = append([]string{primary}, secondary...)
	}
	for _, a := range secondary {
		if err := p.named(&d.want.IPv4, a); err != nil {
			return d, err
		}
	}
	if d.want.MoreIPv4 = number(n.SecondaryPrivateIpAddressCount); d.want.MoreIPv4 > 0 && len(d.want.IPv4) > 1 {
		return d, refuse("InvalidParameterCombination", "Secondary private addresses may be named or counted, but not both.")
	}
	d.want.MoreIPv6 = number(n.Ipv6AddressCount)
	for _, x := range n.Ipv6Addresses {
		if err := p.named(&d.want.IPv6, str(x.Ipv6Address)); err != nil {
			return d, err
		}
	}
	alone := len(p.in.NetworkInterfaces) == 1
	switch {
	case yes(n.AssociatePublicIpAddress) && !alone:
		return d, refuse("InvalidParameterCombination", "The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.")
	case yes(n.AssociatePublicIpAddress) && d.index != 0:
		return d, refuse("InvalidParameterCombination", "The associatePublicIPAddress parameter can only be specified for the network interface with device index 0.")
	case n.AssociatePublicIpAddress != nil:
		d.want.Public = *n.AssociatePublicIpAddress
	default:
		d.want.Public = alone && d.subnet.MapPublicIPOnLaunch
	}
	return d, p.addressLimits(&d)
}

// named adds an address that was asked for by name.
func (p *planner) named(to *[]netip.Addr, s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return refuse("InvalidParameterValue", "Invalid IP address: '%s'", s)
	}
	if p.max > 1 {
		return refuse("InvalidParameterCombination", "Private IP addresses may not be named when launching more than one instance.")
	}
	*to = append(*to, a)
	return nil
}

func (p *planner) addressLimits(d *device) error {
	if n := max(len(d.want.IPv4), 1) + d.want.MoreIPv4; n > p.machine.IPv4PerENI || d.want.MoreIPv4 < 0 {
		return refuse("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
	}
	if n := len(d.want.IPv6) + d.want.MoreIPv6; n > p.machine.IPv4PerENI || d.want.MoreIPv6 < 0 {
		return refuse("PrivateIpAddressLimitExceeded", "Number of IPv6 addresses will exceed limit.")
	}
	return nil
}

// findSubnet is the subnet of that id, or a default one where there is none.
func (p *planner) findSubnet(id string) (*Subnet, error) {
	if id != "" {
		s, ok := Subnets.Get(p.r, id)
		if !ok || s.Account != p.Account {
			return nil, refuse("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
		}
		return s, p.zone(s)
	}
	vpc := ""
	for v := range VPCs.By(p.r, "account", p.Account) {
		if v.Default {
			vpc = v.ID
		}
	}
	if vpc == "" {
		return nil, refuse("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.")
	}
	zone := ""
	if pl := p.in.Placement; pl != nil {
		zone = str(pl.AvailabilityZone)
		region, _ := Regions.Get(p.r, RegionKey)
		if id := str(pl.AvailabilityZoneId); id != "" && zone == "" && region != nil {
			for _, z := range region.Zones {
				if z.ID == id {
					zone = z.Name
				}
			}
		}
		if zone != "" && (region == nil || !slices.ContainsFunc(region.Zones, func(z Zone) bool { return z.Name == zone })) {
			return nil, refuse("InvalidParameterValue", "Invalid availability zone: [%s]", zone)
		}
	}
	var found *Subnet
	for s := range Subnets.By(p.r, "vpc", vpc) {
		if s.DefaultForZone && (zone == "" || s.Zone == zone) && (found == nil || s.Zone < found.Zone) {
			found = s
		}
	}
	if found == nil {
		return nil, refuse("MissingInput", "No subnets found for the default VPC '%s'. Please specify a subnet.", vpc)
	}
	found, _ = Subnets.Get(p.r, found.ID) // so that a transaction depends on it
	return found, nil
}

// groups are the security groups of a new interface: those named, or the default one.
func (p *planner) groups(s *Subnet, ids []string) ([]string, error) {
	if len(ids) == 0 {
		n, ok := GroupNames.Get(p.r, s.VPC+"/default")
		if !ok {
			return nil, refuse("InvalidGroup.NotFound", "The security group 'default' does not exist in VPC '%s'", s.VPC)
		}
		ids = []string{n.Group}
	}
	var out []string
	for _, id := range ids {
		g, ok := SecurityGroups.Get(p.r, id)
		switch {
		case !ok || g.Account != p.Account:
			if !strings.HasPrefix(id, "sg-") {
				return nil, refuse("InvalidGroupId.Malformed", "Invalid id: \"%s\" (expecting \"sg-...\")", id)
			}
			return nil, refuse("InvalidGroup.NotFound", "The security group '%s' does not exist in VPC '%s'", id, s.VPC)
		case g.VPC != s.VPC:
			return nil, refuse("InvalidParameter", "Security group %s and subnet %s belong to different networks.", id, s.ID)
		case !slices.Contains(out, id):
			out = append(out, id)
		}
	}
	if len(out) > maxGroupsPerInterface {
		return nil, refuse("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached.")
	}
	return out, nil
}

// capacity asks whether there is a machine that could be the instance's.
func (p *planner) capacity() error {
	for n := range Nodes.All(p.r) {
		if n.Zone != "" && n.Zone != p.subnet.Zone || n.Memory < p.machine.Registered {
			continue
		}
		if arch := n.Architecture(p.r); arch == "" || arch == p.machine.Arch {
			return nil
		}
	}
	return wire.NewError(http.StatusInternalServerError, "InsufficientInstanceCapacity", fmt.Sprintf("We currently do not have sufficient %s capacity in the Availability Zone you requested (%s). Our system will be working on provisioning additional capacity. No machine of this region has the architecture %s and %d MiB of memory.", p.machine.Name, p.subnet.Zone, p.machine.Arch, p.machine.Registered))
}

// Architecture is what the machine's agent has registered, as EC2 calls it; ""
// while none has.
func (n *Node) Architecture(r store.Reader) string {
	if ci, ok := ContainerInstances.Get(r, n.Instance); ok {
		a, _ := ci.Attribute("ecs.cpu-architecture")
		return a
	}
	return ""
}

// instance makes the rows of one instance.
func (p *planner) instance(index int) error {
	in := p.in
	i := &Instance{
		ID: p.id("i"), Account: p.Account, VPC: p.subnet.VPC, Subnet: p.subnet.ID, Zone: p.subnet.Zone,
		Reservation: p.out.Reservation, Index: index, Type: string(in.InstanceType), Image: p.image.ID, KeyName: str(in.KeyName),
		UserData: p.userData, Metadata: p.metadata, Monitoring: in.Monitoring != nil && yes(in.Monitoring.Enabled),
		KeepFromTermination: yes(in.DisableApiTermination), KeepFromStop: yes(in.DisableApiStop), OnShutdown: "stop",
		SourceDestCheck: true, ClientToken: str(in.ClientToken), Tags: p.tags["instance"], VolumeTags: p.tags["volume"],
		LaunchedAt: p.Now, CreatedAt: p.Now, Volume: p.id("vol"), Options: *in, RequesterID: p.ServiceLinked,
		Want: InstanceRunning, Boots: 1, State: "pending",
	}
	i.Options.UserData, i.Options.TagSpecifications, i.Options.ClientToken, i.Options.LaunchTemplate = nil, nil, nil, nil
	if in.InstanceInitiatedShutdownBehavior != "" {
		i.OnShutdown = string(in.InstanceInitiatedShutdownBehavior)
	}
	if p.profile != nil {
		i.Profile, i.ProfileAssociation, i.ProfileAt = p.profile.ARN(), p.id("iip-assoc"), p.Now
	}
	for _, d := range p.devices {
		e, leases, err := p.attach(d, i)
		if err != nil {
			return err
		}
		if d.index == 0 {
			i.PublicIP = e.Public.IsValid() && e.Allocation == ""
			i.SourceDestCheck = e.SourceDestCheck
			p.out.Groups = e.Groups
		}
		p.out.Interfaces = append(p.out.Interfaces, e)
		p.out.Leases = append(p.out.Leases, leases...)
	}
	if o := in.InstanceMarketOptions; o != nil && o.MarketType == "spot" {
		s := &SpotRequest{ID: p.id("sir"), Account: p.Account, Instance: i.ID, Type: "one-time", Behavior: "terminate", Launch: i.Options, State: "active", StatusCode: "fulfilled",
			Tags: p.tags["spot-instances-request"], CreatedAt: p.Now, UpdatedAt: p.Now}
		if so := o.SpotOptions; so != nil {
			if so.SpotInstanceType != "" {
				s.Type = string(so.SpotInstanceType)
			}
			if so.InstanceInterruptionBehavior != "" {
				s.Behavior = string(so.InstanceInterruptionBehavior)
			}
			if s.Price = str(so.MaxPrice); so.ValidUntil != nil {
				s.ValidUntil = *so.ValidUntil
			}
		}
		i.Spot = s.ID
		p.out.Spots = append(p.out.Spots, s)
	}
	p.out.Instances = append(p.out.Instances, i)
	return nil
}

func (p *planner) attach(d device, i *Instance) (*NetworkInterface, []*AddressLease, error) {
	at := &InterfaceAttachment{Instance: i.ID, Device: d.index, DeleteOnTermination: !d.keep, AttachedAt: p.Now}
	if d.existing != nil {
		e := *d.existing
		e.Attachment, e.AttachmentID = at, p.id("eni-attach")
		return &e, nil, nil
	}
	e, leases, err := NewInterface(p.addresses, p.id("eni"), d.subnet, d.want, p.Now)
	switch {
	case errors.Is(err, ErrSubnetFull):
		return nil, nil, fullError{refuse("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", d.subnet.ID)}
	case errors.Is(err, ErrPoolEmpty):
		return nil, nil, fullError{refuse("InsufficientAddressCapacity", "There are not enough public addresses left.")}
	case errors.Is(err, ErrAddressOutside):
		return nil, nil, refuse("InvalidParameterValue", "Address does not fall within the subnet's address range")
	case errors.Is(err, ErrAddressTaken):
		return nil, nil, refuse("InvalidIPAddress.InUse", "Address %s is in use.", d.want.IPv4)
	case errors.Is(err, ErrNoIPv6):
		return nil, nil, refuse("InvalidParameterValue", "The subnet '%s' has no IPv6 CIDR block.", d.subnet.ID)
	case err != nil:
		return nil, nil, err
	}
	e.Groups, e.Description, e.Tags = d.groups, d.description, p.tags["network-interface"]
	e.Attachment, e.AttachmentID = at, p.id("eni-attach")
	return e, leases, nil
}
