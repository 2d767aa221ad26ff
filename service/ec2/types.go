package ec2

import (
	"context"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store/state"
)

func noType(name string) error {
	return bad("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
}

func machineTypes() []state.Machine {
	var out []state.Machine
	for _, name := range state.InstanceTypes() {
		m, _ := state.InstanceType(name)
		out = append(out, m)
	}
	return out
}

// DescribeInstanceTypes answers from the table of types.
func (e *EC2) DescribeInstanceTypes(_ context.Context, in *api.DescribeInstanceTypesInput) (*api.DescribeInstanceTypesOutput, error) {
	q := request{filters: in.Filters, max: in.MaxResults, token: in.NextToken}
	if len(in.InstanceTypes) > 100 {
		return nil, bad("InvalidParameterValue", "The maximum number of instance types is 100.")
	}
	for _, t := range in.InstanceTypes {
		q.ids = append(q.ids, string(t))
	}
	view := func(f func(api.InstanceTypeInfo) []string) func(state.Machine) []string {
		return func(m state.Machine) []string { return f(typeView(m)) }
	}
	fixed := func(v ...string) func(state.Machine) []string { return func(state.Machine) []string { return v } }
	out, next, err := list(q, kind[state.Machine, api.InstanceTypeInfo]{
		name: "instance-types", rows: slices.Values(machineTypes()),
		id:      func(m state.Machine) string { return m.Name },
		missing: noType,
		filters: filters[state.Machine]{
			"auto-recovery-supported":                      fixed("false"),
			"bare-metal":                                   fixed("false"),
			"burstable-performance-supported":              func(m state.Machine) []string { return flag(m.Burstable) },
			"current-generation":                           func(m state.Machine) []string { return flag(m.Current) },
			"dedicated-hosts-supported":                    fixed("false"),
			"ebs-info.attachment-limit-type":               fixed(),
			"ebs-info.ebs-optimized-support":               view(func(t api.InstanceTypeInfo) []string { return one(string(t.EbsInfo.EbsOptimizedSupport)) }),
			"ebs-info.encryption-support":                  fixed("unsupported"),
			"ebs-info.nvme-support":                        fixed("unsupported"),
			"free-tier-eligible":                           func(m state.Machine) []string { return flag(m.FreeTier) },
			"hibernation-supported":                        fixed("false"),
			"hypervisor":                                   view(func(t api.InstanceTypeInfo) []string { return one(string(t.Hypervisor)) }),
			"instance-storage-supported":                   fixed("false"),
			"instance-type":                                func(m state.Machine) []string { return one(m.Name) },
			"memory-info.size-in-mib":                      func(m state.Machine) []string { return number(m.Memory) },
			"network-info.efa-info.maximum-efa-interfaces": fixed(),
			"network-info.efa-supported":                   fixed("false"),
			"network-info.ena-support":                     view(func(t api.InstanceTypeInfo) []string { return one(string(t.NetworkInfo.EnaSupport)) }),
			"network-info.encryption-in-transit-supported": fixed("false"),
			"network-info.ipv4-addresses-per-interface":    func(m state.Machine) []string { return number(m.IPv4PerENI) },
			"network-info.ipv6-addresses-per-interface":    func(m state.Machine) []string { return number(m.IPv4PerENI) },
			"network-info.ipv6-supported":                  fixed("true"),
			"network-info.maximum-network-cards":           fixed("1"),
			"network-info.maximum-network-interfaces":      func(m state.Machine) []string { return number(m.MaxENIs) },
			"network-info.network-performance":             func(m state.Machine) []string { return one(m.Network) },
			"nitro-enclaves-support":                       fixed("unsupported"),
			"nitro-tpm-support":                            fixed("unsupported"),
			"processor-info.supported-architecture":        func(m state.Machine) []string { return one(m.Arch) },
			"processor-info.supported-features":            fixed(),
			"processor-info.sustained-clock-speed-in-ghz":  func(m state.Machine) []string { return one(strconv.FormatFloat(m.Clock, 'f', -1, 64)) },
			"supported-boot-mode":                          view(func(t api.InstanceTypeInfo) []string { return texts(t.SupportedBootModes) }),
			"supported-root-device-type":                   fixed("ebs"),
			"supported-usage-class":                        fixed("on-demand", "spot"),
			"supported-virtualization-type":                fixed("hvm"),
			"vcpu-info.default-cores":                      func(m state.Machine) []string { return number(m.Cores) },
			"vcpu-info.default-threads-per-core":           func(m state.Machine) []string { return number(m.VCPUs / m.Cores) },
			"vcpu-info.default-vcpus":                      func(m state.Machine) []string { return number(m.VCPUs) },
			"vcpu-info.valid-cores":                        func(m state.Machine) []string { return number(m.Cores) },
			"vcpu-info.valid-threads-per-core":             func(m state.Machine) []string { return number(m.VCPUs / m.Cores) },
		},
		view: typeView,
	})
	return &api.DescribeInstanceTypesOutput{InstanceTypes: out, NextToken: next}, err
}

func texts[T ~string](vs []T) (out []string) {
	for _, v := range vs {
		out = append(out, string(v))
	}
	return out
}

// typeView shows a type as what it is here: without disks of its own,
// enclaves, and what else the hardware would have.
func typeView(m state.Machine) api.InstanceTypeInfo {
	threads := int32(m.VCPUs / m.Cores)
	t := api.InstanceTypeInfo{InstanceType: api.InstanceType(m.Name), CurrentGeneration: new(m.Current), FreeTierEligible: new(m.FreeTier),
		SupportedUsageClasses: []api.UsageClassType{"on-demand", "spot"}, SupportedRootDeviceTypes: []api.RootDeviceType{"ebs"},
		SupportedVirtualizationTypes: []api.VirtualizationType{"hvm"}, BareMetal: new(false), Hypervisor: "nitro",
		ProcessorInfo: &api.ProcessorInfo{SupportedArchitectures: []api.ArchitectureType{api.ArchitectureType(m.Arch)}, SustainedClockSpeedInGhz: new(m.Clock), Manufacturer: new("Intel")},
		VCpuInfo: &api.VCpuInfo{DefaultVCpus: new(int32(m.VCPUs)), DefaultCores: new(int32(m.Cores)), DefaultThreadsPerCore: new(threads),
			ValidCores: []int32{int32(m.Cores)}, ValidThreadsPerCore: []int32{threads}},
		MemoryInfo: &api.MemoryInfo{SizeInMiB: new(int64(m.Memory))}, InstanceStorageSupported: new(false),
		EbsInfo: &api.EbsInfo{EbsOptimizedSupport: "default", EncryptionSupport: "unsupported", NvmeSupport: "unsupported"},
		NetworkInfo: &api.NetworkInfo{NetworkPerformance: new(m.Network), MaximumNetworkInterfaces: new(int32(m.MaxENIs)), MaximumNetworkCards: new(int32(1)),
			DefaultNetworkCardIndex: new(int32(0)), Ipv4AddressesPerInterface: new(int32(m.IPv4PerENI)), Ipv6AddressesPerInterface: new(int32(m.IPv4PerENI)),
			NetworkCards:  []api.NetworkCardInfo{{NetworkCardIndex: new(int32(0)), NetworkPerformance: new(m.Network), MaximumNetworkInterfaces: new(int32(m.MaxENIs))}},
			Ipv6Supported: new(true), EnaSupport: "required", EfaSupported: new(false), EncryptionInTransitSupported: new(false), EnaSrdSupported: new(false)},
		PlacementGroupInfo:   &api.PlacementGroupInfo{SupportedStrategies: []api.PlacementGroupStrategy{"partition", "spread"}},
		HibernationSupported: new(false), BurstablePerformanceSupported: new(m.Burstable), DedicatedHostsSupported: new(false), AutoRecoverySupported: new(false),
		SupportedBootModes: []api.BootModeType{"legacy-bios", "uefi"}, NitroEnclavesSupport: "unsupported", NitroTpmSupport: "unsupported",
		PhcSupport: "unsupported"}
	if !m.Nitro {
		t.Hypervisor, t.NetworkInfo.EnaSupport, t.EbsInfo.EbsOptimizedSupport = "xen", "unsupported", "unsupported"
		t.SupportedBootModes = t.SupportedBootModes[:1]
	}
	family, _, _ := strings.Cut(m.Name, ".")
	switch {
	case m.Arch == "arm64":
		t.ProcessorInfo.Manufacturer, t.SupportedBootModes = new("AWS"), []api.BootModeType{"uefi"}
	case strings.HasSuffix(family, "a"):
		t.ProcessorInfo.Manufacturer = new("AMD")
	}
	return t
}

// DescribeInstanceTypeOfferings says where types are offered: every type of
// the table in every zone. Whether a machine has room is another question.
func (e *EC2) DescribeInstanceTypeOfferings(_ context.Context, in *api.DescribeInstanceTypeOfferingsInput) (*api.DescribeInstanceTypeOfferingsOutput, error) {
	kindOf := in.LocationType
	var places []string
	region, _ := state.Regions.Get(e.DB.Snapshot(), state.RegionKey)
	switch kindOf {
	case "", "region":
		kindOf, places = "region", []string{e.Region}
	case "availability-zone", "availability-zone-id":
		if region != nil {
			for _, z := range region.Zones {
				if kindOf == "availability-zone" {
					places = append(places, z.Name)
				} else {
					places = append(places, z.ID)
				}
			}
		}
	default:
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter locationType is invalid. Outposts are not here.", kindOf)
	}
	type offer struct{ machine, place string }
	var rows []offer
	for _, m := range state.InstanceTypes() {
		for _, p := range places {
			rows = append(rows, offer{m, p})
		}
	}
	id := func(o offer) string { return o.machine + "\x01" + o.place }
	slices.SortFunc(rows, func(a, b offer) int { return strings.Compare(id(a), id(b)) })
	out, next, err := list(request{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, kind[offer, api.InstanceTypeOffering]{
		name: "offerings/" + string(kindOf), rows: slices.Values(rows), id: id, missing: noType,
		filters: filters[offer]{
			"instance-type": func(o offer) []string { return one(o.machine) },
			"location":      func(o offer) []string { return one(o.place) },
		},
		view: func(o offer) api.InstanceTypeOffering {
			return api.InstanceTypeOffering{InstanceType: api.InstanceType(o.machine), LocationType: kindOf, Location: new(o.place)}
		},
	})
	return &api.DescribeInstanceTypeOfferingsOutput{InstanceTypeOfferings: out, NextToken: next}, err
}

// machineType is the type of that name.
func machineType(name string) (state.Machine, error) {
	m, ok := state.InstanceType(name)
	if !ok {
		return m, bad("InvalidParameterValue", "Invalid value '%s' for InstanceType.", name)
	}
	return m, nil
}

// credits is what CreditSpecification says, or the family's default.
func credits(m state.Machine, asked *api.CreditSpecificationRequest) string {
	switch {
	case !m.Burstable:
		return ""
	case asked != nil && wire.Value(asked.CpuCredits) != "":
		return *asked.CpuCredits
	case strings.HasPrefix(m.Name, "t2."):
		return "standard"
	}
	return "unlimited"
}
