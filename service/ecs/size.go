package ecs

import (
	"math"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
)

// parseCPU reads a task's cpu, as units ("256") or vCPUs (".25 vCPU"), into units.
func parseCPU(s string) (int, bool) {
	return quantity(s, "vcpu")
}

// parseMemory reads a task's memory, as MiB ("512") or GB ("0.5 GB"), into MiB.
func parseMemory(s string) (int, bool) {
	return quantity(s, "gb")
}

// quantity reads a whole number, or a decimal number of units of 1024.
func quantity(s, unit string) (int, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	whole, isUnit := strings.CutSuffix(s, unit)
	if !isUnit {
		n, err := strconv.ParseUint(s, 10, 31)
		return int(n), err == nil && n > 0
	}
	whole = strings.TrimSpace(whole)
	if whole == "" || strings.Trim(whole, "0123456789.") != "" {
		return 0, false // ParseFloat would take 1e3, inf and 0x1
	}
	f, err := strconv.ParseFloat(whole, 64)
	f = math.Round(f * 1024)
	if err != nil || f < 1 || f > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// fargateMemory holds what memory a Fargate task may have, by its cpu:
// from, to and step in MiB.
var fargateMemory = map[int][3]int{
	512:   {1024, 4096, 1024},
	1024:  {2048, 8192, 1024},
	2048:  {4096, 16384, 1024},
	4096:  {8192, 30720, 1024},
	8192:  {16384, 61440, 4096},
	16384: {32768, 122880, 8192},
}

// isFargateSize holds for the pairs of cpu and memory that Fargate has.
func isFargateSize(cpu, memory int) bool {
	switch cpu {
	case 256:
		return memory == 512 || memory == 1024 || memory == 2048
	case 32768:
		return memory == 61440 || memory == 122880 || memory == 249856
	}
	r, ok := fargateMemory[cpu]
	return ok && memory >= r[0] && memory <= r[1] && (memory-r[0])%r[2] == 0
}

// fargateSize checks a size as it is stored. fail makes the error.
func fargateSize(cpu, memory *string, fail func(string, ...any) error) error {
	switch {
	case cpu == nil:
		return fail("Fargate requires that 'cpu' be defined at the task level.")
	case memory == nil:
		return fail("Fargate requires that 'memory' be defined at the task level.")
	}
	c, _ := parseCPU(*cpu)
	m, _ := parseMemory(*memory)
	if !isFargateSize(c, m) {
		return fail("No Fargate configuration exists for given values: %d CPU, %d memory", c, m)
	}
	return nil
}

// Platform versions of Fargate: one exists here.
const (
	platformLatest  = "LATEST"
	platformVersion = "1.4.0"
	platformLinux   = "Linux"
)

// resolvePlatform turns a requested platform version into the one that runs.
func resolvePlatform(requested *string, launch string) (string, error) {
	switch v := val(requested); {
	case launch != string(api.LaunchTypeFargate) && v != "":
		return "", invalid("The platform version must be null when specifying an %s launch type.", launch)
	case launch != string(api.LaunchTypeFargate):
		return "", nil
	case v == "" || v == platformLatest || v == platformVersion:
		return platformVersion, nil
	default:
		return "", &api.PlatformUnknownException{Message: "The specified platform version does not exist."}
	}
}
