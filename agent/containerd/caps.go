package containerd

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/agent/runtime"
)

// dockerCaps is what docker gives a container.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// allCaps is every capability by its number.
var allCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
	"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// capabilities computes the set as docker does: from its defaults, or from
// everything if everything is added, or from nothing if everything is
// dropped; then what is dropped by name goes and what is added by name comes.
func capabilities(s runtime.Spec) ([]string, error) {
	if s.Privileged {
		return allCaps, nil
	}
	add, addAll, err := capNames(s.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, dropAll, err := capNames(s.CapDrop)
	if err != nil {
		return nil, err
	}
	var set []string
	switch {
	case addAll:
		set = allCaps
	case dropAll:
	default:
		set = dockerCaps
	}
	set = slices.DeleteFunc(slices.Clone(set), func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if !slices.Contains(set, c) {
			set = append(set, c)
		}
	}
	return set, nil
}

func capNames(in []string) (names []string, all bool, err error) {
	for _, name := range in {
		c := strings.ToUpper(name)
		if c == "ALL" || c == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(allCaps, c) {
			return nil, false, fmt.Errorf("invalid capability: unknown capability: %q: %w", name, runtime.ErrInvalid)
		}
		names = append(names, c)
	}
	return names, all, nil
}

// processCapabilities: a user who is not root has them within reach of a
// set-uid program, not in hand.
func processCapabilities(caps []string, uid uint32) *specs.LinuxCapabilities {
	out := &specs.LinuxCapabilities{Bounding: caps}
	if uid == 0 {
		out.Effective, out.Permitted = caps, caps
	}
	return out
}
