package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/node/oci"
)

// Runtime is the OCI runtime that makes a node's containers, and why this one.
type Runtime struct{ Name, Why string }

// probeLimit bounds the trial of a runtime: one that hangs is no choice.
const probeLimit = 10 * time.Second

// ChooseRuntime finds the OCI runtime of this machine: crun, which makes a
// container in a third of runc's time, if it is there and has just made one,
// and runc otherwise. Containers that exist keep the one that they have.
//
// Dir is for the trial's files, cgroup is the trial's; binary is a program that
// ends well with the argument "version". With a daemon that is not our own
// nobody helps crun to start (package oci).
func ChooseRuntime(ctx context.Context, dir, cgroup, binary string, own bool) Runtime {
	const fallback = "runc"
	version, err := runtimeVersion(ctx, "crun")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return Runtime{fallback, "crun, which is faster, is not installed"}
	case err != nil:
		return Runtime{fallback, "crun does not say its version: " + err.Error()}
	case !strings.Contains(version, "+SECCOMP") || !strings.Contains(version, "+CAP"):
		return Runtime{fallback, "crun is built without seccomp or capabilities"}
	case oci.Hybrid() && !own:
		return Runtime{fallback, "crun does not work with cgroup v2 beside v1 under a daemon that is not the region's"}
	}
	if err := try(ctx, "crun", dir, cgroup, binary); err != nil {
		return Runtime{fallback, "crun does not work here: " + err.Error()}
	}
	line, _, _ := strings.Cut(version, "\n")
	return Runtime{"crun", line + " has made a container"}
}

func runtimeVersion(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	return string(out), err
}

// try makes a container with what tasks have: namespaces of its own, a limit in
// a cgroup of its own, a seccomp profile. It runs the binary in it.
func try(ctx context.Context, program, dir, cgroup, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	dir = filepath.Join(dir, "trial")
	const id = "berth-trial"
	s := trialSpec(cgroup, binary)
	// A binary that is linked to libraries finds the machine's.
	for _, libs := range []string{"/lib", "/lib64", "/usr/lib"} {
		if _, err := os.Stat(libs); err == nil {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: libs, Type: "bind", Source: libs, Options: []string{"bind", "ro"}})
		}
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var starter oci.Launcher
	defer starter.Close()
	run := func(args ...string) ([]byte, error) {
		c := exec.CommandContext(ctx, program, append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		// What holds the output after the end is not waited for.
		c.WaitDelay = time.Second
		if err := starter.Start(program, c.Start); err != nil {
			return nil, err
		}
		if err := c.Wait(); err != nil {
			return nil, fmt.Errorf("%s %s: %w: %s", program, args[0], err, bytes.TrimSpace(out.Bytes()))
		}
		return out.Bytes(), nil
	}
	// An earlier trial may have been cut short.
	if _, err := os.Stat(dir); err == nil {
		_, _ = run("delete", "--force", id)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), spec, 0o600); err != nil {
		return err
	}
	out, err := run("run", "--bundle", dir, id)
	if err != nil {
		_, _ = run("delete", "--force", id)
		return err
	}
	if len(out) == 0 {
		return errors.New("the container says nothing")
	}
	return nil
}

func trialSpec(cgroup, binary string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL"}
	return &specs.Spec{
		Version: "1.0.2-dev",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"/berth", "version"}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 1024}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/berth", Type: "bind", Source: binary, Options: []string{"bind", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
				Memory:  &specs.LinuxMemory{Limit: new(int64(256 << 20))},
				CPU:     &specs.LinuxCPU{Shares: new(uint64(256))},
			},
			Seccomp: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow,
				Syscalls:      []specs.LinuxSyscall{{Names: []string{"kexec_load"}, Action: specs.ActErrno, ErrnoRet: new(uint(1))}},
			},
			MaskedPaths: []string{"/proc/kcore"},
		},
	}
}
