package state

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Machine is an EC2 instance type.
type Machine struct {
	Name       string
	VCPUs      int
	Cores      int
	Memory     int // MiB, as advertised
	Registered int // MiB that the kernel sees, which is what the ECS agent registers
	MaxENIs    int
	IPv4PerENI int    // and IPv6
	Branches   int    // branch interfaces with awsvpcTrunking; 0: no trunking
	Arch       string // x86_64 or arm64
	Burstable  bool
	Baseline   int     // per cent of a vCPU, of burstable types
	Network    string  // NetworkPerformance
	Clock      float64 // GHz
	Nitro      bool
	Current    bool
	FreeTier   bool
}

// Tasks is how many awsvpc tasks fit by interfaces, without and with trunking.
func (m Machine) Tasks(trunk bool) int {
	if trunk && m.Branches > 0 {
		return m.Branches
	}
	return m.MaxENIs - 1
}

// InstanceType is the type of that name.
func InstanceType(name string) (Machine, bool) {
	m, ok := machines[name]
	return m, ok
}

// InstanceTypes are the names of all types, sorted.
func InstanceTypes() []string { return machineNames }

// machine sizes: eni, ip and trunk are per size, as the table of the VPC CNI
// and AWS's list of types with trunking have them.
type machineSize struct {
	size       string
	vcpu, mem  int // mem in MiB
	eni, ip    int
	trunk      int
	network    string
	registered int // 0: by the rule of registered
	baseline   int
	cores      int // 0: half of vcpu on x86_64, vcpu on arm64
}

type machineFamily struct {
	name  string
	arch  string
	clock float64
	xen   bool
	burst bool
	sizes []machineSize
}

var machines, machineNames = func() (map[string]Machine, []string) {
	out := map[string]Machine{}
	for _, f := range machineFamilies {
		for _, s := range f.sizes {
			m := Machine{
				Name: f.name + "." + s.size, VCPUs: s.vcpu, Cores: s.cores, Memory: s.mem, Registered: s.registered,
				MaxENIs: s.eni, IPv4PerENI: s.ip, Branches: s.trunk, Arch: f.arch, Burstable: f.burst,
				Baseline: s.baseline, Network: s.network, Clock: f.clock, Nitro: !f.xen, Current: true,
			}
			if m.Cores == 0 {
				m.Cores = m.VCPUs
				if m.Arch == "x86_64" && m.Nitro {
					m.Cores = max(1, m.VCPUs/2)
				}
			}
			if m.Registered == 0 {
				m.Registered = registered(m.Memory)
			}
			m.FreeTier = m.Name == "t2.micro" || m.Name == "t3.micro"
			out[m.Name] = m
		}
	}
	return out, slices.Sorted(maps.Keys(out))
}()

// registered estimates what a kernel leaves of a memory, where nobody has
// written the figure down: a page structure for each page, and what firmware
// and kernel keep for themselves.
func registered(mem int) int {
	if mem <= 4096 {
		return mem - mem*212/4096
	}
	return mem - mem/64 - 148
}

var machineFamilies = []machineFamily{
	{name: "t2", arch: "x86_64", clock: 2.3, xen: true, burst: true, sizes: []machineSize{
		{size: "nano", vcpu: 1, mem: 512, eni: 2, ip: 2, network: "Low to Moderate", baseline: 5},
		{size: "micro", vcpu: 1, mem: 1024, eni: 2, ip: 2, network: "Low to Moderate", baseline: 10, registered: 983},
		{size: "small", vcpu: 1, mem: 2048, eni: 3, ip: 4, network: "Low to Moderate", baseline: 20, registered: 1993},
		{size: "medium", vcpu: 2, mem: 4096, eni: 3, ip: 6, network: "Low to Moderate", baseline: 20, registered: 3951},
		{size: "large", vcpu: 2, mem: 8192, eni: 3, ip: 12, network: "Low to Moderate", baseline: 30, registered: 7985},
		{size: "xlarge", vcpu: 4, mem: 16384, eni: 3, ip: 15, network: "Moderate", baseline: 23},
		{size: "2xlarge", vcpu: 8, mem: 32768, eni: 3, ip: 15, network: "Moderate", baseline: 17},
	}},
	{name: "t3", arch: "x86_64", clock: 2.5, burst: true, sizes: burstable("x86_64", 3)},
	{name: "t3a", arch: "x86_64", clock: 2.2, burst: true, sizes: burstable("x86_64", 2)},
	{name: "t4g", arch: "arm64", clock: 2.5, burst: true, sizes: burstable("arm64", 3)},

	{name: "m5", arch: "x86_64", clock: 3.1, sizes: sizes(4, fifth, "8xlarge 12xlarge 16xlarge 24xlarge")},
	{name: "m5a", arch: "x86_64", clock: 2.5, sizes: sizes(4, fifthAMD, "8xlarge 12xlarge 16xlarge 24xlarge")},
	{name: "m6i", arch: "x86_64", clock: 3.5, sizes: sizes(4, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 32xlarge")},
	{name: "m6a", arch: "x86_64", clock: 3.6, sizes: sizes(4, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 32xlarge")},
	{name: "m6g", arch: "arm64", clock: 2.5, sizes: sizes(4, graviton2, "medium 8xlarge 12xlarge 16xlarge")},
	{name: "m7i", arch: "x86_64", clock: 3.2, sizes: sizes(4, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 48xlarge")},
	{name: "m7i-flex", arch: "x86_64", clock: 3.2, sizes: sizes(4, flex, "8xlarge")},
	{name: "m7g", arch: "arm64", clock: 2.6, sizes: sizes(4, graviton3, "medium 8xlarge 12xlarge 16xlarge")},

	{name: "c5", arch: "x86_64", clock: 3.4, sizes: sizes(2, fifth, "9xlarge 12xlarge 18xlarge 24xlarge")},
	{name: "c5a", arch: "x86_64", clock: 3.3, sizes: sizes(2, fifthAMD, "8xlarge 12xlarge 16xlarge 24xlarge")},
	{name: "c6i", arch: "x86_64", clock: 3.5, sizes: sizes(2, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 32xlarge")},
	{name: "c6a", arch: "x86_64", clock: 3.6, sizes: sizes(2, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 32xlarge 48xlarge")},
	{name: "c6g", arch: "arm64", clock: 2.5, sizes: sizes(2, graviton2, "medium 8xlarge 12xlarge 16xlarge")},
	{name: "c7i", arch: "x86_64", clock: 3.2, sizes: sizes(2, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 48xlarge")},
	{name: "c7i-flex", arch: "x86_64", clock: 3.2, sizes: sizes(2, flex, "8xlarge")},
	{name: "c7g", arch: "arm64", clock: 2.6, sizes: sizes(2, graviton3, "medium 8xlarge 12xlarge 16xlarge")},

	{name: "r5", arch: "x86_64", clock: 3.1, sizes: sizes(8, fifthMemory, "8xlarge 12xlarge 16xlarge 24xlarge")},
	{name: "r6i", arch: "x86_64", clock: 3.5, sizes: sizes(8, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 32xlarge")},
	{name: "r6g", arch: "arm64", clock: 2.5, sizes: sizes(8, graviton2, "medium 8xlarge 12xlarge 16xlarge")},
	{name: "r7i", arch: "x86_64", clock: 3.2, sizes: sizes(8, sixth, "8xlarge 12xlarge 16xlarge 24xlarge 48xlarge")},
	{name: "r7g", arch: "arm64", clock: 2.6, sizes: sizes(8, graviton3, "medium 8xlarge 12xlarge 16xlarge")},
}

// burstable are the sizes of the third and fourth generation of t: small has
// as many interfaces as given.
func burstable(arch string, small int) []machineSize {
	const network = "Up to 5 Gigabit"
	cores := 1
	if arch == "arm64" {
		cores = 2
	}
	return []machineSize{
		{size: "nano", vcpu: 2, mem: 512, eni: 2, ip: 2, network: network, baseline: 5, cores: cores},
		{size: "micro", vcpu: 2, mem: 1024, eni: 2, ip: 2, network: network, baseline: 10, cores: cores},
		{size: "small", vcpu: 2, mem: 2048, eni: small, ip: 4, network: network, baseline: 20, cores: cores},
		{size: "medium", vcpu: 2, mem: 4096, eni: 3, ip: 6, network: network, baseline: 20, cores: cores, registered: 3884},
		{size: "large", vcpu: 2, mem: 8192, eni: 3, ip: 12, network: network, baseline: 30, cores: cores},
		{size: "xlarge", vcpu: 4, mem: 16384, eni: 4, ip: 15, network: network, baseline: 40},
		{size: "2xlarge", vcpu: 8, mem: 32768, eni: 4, ip: 15, network: network, baseline: 40},
	}
}

// generation is what the sizes of a generation have in common.
type generation struct {
	trunk   map[string]int
	network map[string]string // by size; "" is for those without their own
}

var (
	fifth = generation{
		trunk: map[string]int{"large": 10, "xlarge": 20, "2xlarge": 40, "4xlarge": 60, "8xlarge": 60, "9xlarge": 60, "12xlarge": 60},
		network: map[string]string{"": "Up to 10 Gigabit", "8xlarge": "10 Gigabit", "9xlarge": "12 Gigabit", "12xlarge": "12 Gigabit",
			"16xlarge": "20 Gigabit", "18xlarge": "25 Gigabit", "24xlarge": "25 Gigabit"},
	}
	fifthAMD = generation{
		trunk: map[string]int{"large": 10, "xlarge": 20, "2xlarge": 40, "4xlarge": 60, "8xlarge": 0, "12xlarge": 60},
		network: map[string]string{"": "Up to 10 Gigabit", "8xlarge": "Up to 10 Gigabit", "12xlarge": "12 Gigabit",
			"16xlarge": "20 Gigabit", "24xlarge": "20 Gigabit"},
	}
	fifthMemory = generation{ // r5.8xlarge has no trunking
		trunk:   map[string]int{"large": 10, "xlarge": 20, "2xlarge": 40, "4xlarge": 60, "8xlarge": 0, "12xlarge": 60},
		network: fifth.network,
	}
	sixth = generation{
		trunk: map[string]int{"large": 10, "xlarge": 20, "2xlarge": 40, "4xlarge": 60, "8xlarge": 90, "12xlarge": 120},
		network: map[string]string{"": "Up to 12.5 Gigabit", "8xlarge": "12.5 Gigabit", "12xlarge": "18.75 Gigabit",
			"16xlarge": "25 Gigabit", "24xlarge": "37.5 Gigabit", "32xlarge": "50 Gigabit", "48xlarge": "50 Gigabit"},
	}
	graviton2 = generation{
		trunk: map[string]int{"medium": 4, "large": 10, "xlarge": 20, "2xlarge": 40, "4xlarge": 60, "8xlarge": 60, "12xlarge": 60},
		network: map[string]string{"": "Up to 10 Gigabit", "8xlarge": "12 Gigabit", "12xlarge": "20 Gigabit",
			"16xlarge": "25 Gigabit"},
	}
	graviton3 = generation{
		trunk: graviton2.trunk,
		network: map[string]string{"": "Up to 12.5 Gigabit", "2xlarge": "Up to 15 Gigabit", "4xlarge": "Up to 15 Gigabit",
			"8xlarge": "15 Gigabit", "12xlarge": "22.5 Gigabit", "16xlarge": "30 Gigabit"},
	}
	flex = generation{
		trunk:   map[string]int{"large": 4, "xlarge": 10, "2xlarge": 20, "4xlarge": 40, "8xlarge": 60},
		network: map[string]string{"": "Up to 12.5 Gigabit"},
	}
)

// sizes are large to 4xlarge and what else is named, with gib GiB to a vCPU.
func sizes(gib int, g generation, more string) []machineSize {
	var out []machineSize
	for _, name := range append([]string{"large", "xlarge", "2xlarge", "4xlarge"}, strings.Fields(more)...) {
		s := machineSize{size: name}
		switch name {
		case "medium":
			s.vcpu, s.eni, s.ip = 1, 2, 4
		case "large":
			s.vcpu, s.eni, s.ip = 2, 3, 10
		default:
			n := 1
			if digits := strings.TrimSuffix(name, "xlarge"); digits != "" {
				n, _ = strconv.Atoi(digits) // the names are above
			}
			s.vcpu = 4 * n
			switch {
			case n <= 2:
				s.eni, s.ip = 4, 15
			case n <= 12:
				s.eni, s.ip = 8, 30
			default:
				s.eni, s.ip = 15, 50
			}
		}
		s.mem = s.vcpu * gib * 1024
		if t, ok := g.trunk[name]; ok {
			s.trunk = t
		} else {
			s.trunk = 120
		}
		if s.network = g.network[name]; s.network == "" {
			s.network = g.network[""]
		}
		out = append(out, s)
	}
	return out
}
