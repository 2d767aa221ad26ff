package state_test

import (
	"testing"

	"github.com/berth-run/berth/store/state"
)

// The figures are AWS's: the VPC CNI's table and the ECS guide's list of types
// with trunking.
func TestInstanceTypes(t *testing.T) {
	for _, c := range []struct {
		name                            string
		vcpu, mem, eni, ip, tasks, more int
		arch                            string
	}{
		{"t2.micro", 1, 1024, 2, 2, 1, 1, "x86_64"},
		{"t2.large", 2, 8192, 3, 12, 2, 2, "x86_64"},
		{"t3.medium", 2, 4096, 3, 6, 2, 2, "x86_64"},
		{"t4g.2xlarge", 8, 32768, 4, 15, 3, 3, "arm64"},
		{"m5.large", 2, 8192, 3, 10, 2, 10, "x86_64"},
		{"m5.8xlarge", 32, 131072, 8, 30, 7, 60, "x86_64"},
		{"c5.9xlarge", 36, 73728, 8, 30, 7, 60, "x86_64"},
		{"r5.8xlarge", 32, 262144, 8, 30, 7, 7, "x86_64"},
		{"m6i.8xlarge", 32, 131072, 8, 30, 7, 90, "x86_64"},
		{"m7i.12xlarge", 48, 196608, 8, 30, 7, 120, "x86_64"},
		{"m7i.48xlarge", 192, 786432, 15, 50, 14, 120, "x86_64"},
		{"c7g.medium", 1, 2048, 2, 4, 1, 4, "arm64"},
		{"m7i-flex.large", 2, 8192, 3, 10, 2, 4, "x86_64"},
	} {
		m, ok := state.InstanceType(c.name)
		if !ok || m.VCPUs != c.vcpu || m.Memory != c.mem || m.MaxENIs != c.eni || m.IPv4PerENI != c.ip ||
			m.Tasks(false) != c.tasks || m.Tasks(true) != c.more || m.Arch != c.arch {
			t.Errorf("%s: %+v", c.name, m)
		}
	}
	if m, _ := state.InstanceType("t3.medium"); m.Registered != 3884 {
		t.Errorf("t3.medium registers %d MiB", m.Registered)
	}
	if _, ok := state.InstanceType("t3.huge"); ok {
		t.Error("t3.huge is no type")
	}
	last := ""
	for _, name := range state.InstanceTypes() {
		m, _ := state.InstanceType(name)
		if name <= last || m.Registered >= m.Memory || m.Registered < m.Memory*9/10 || m.MaxENIs < 2 || m.Network == "" || m.Cores < 1 {
			t.Errorf("%s: %+v", name, m)
		}
		last = name
	}
}
