package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// prepareHost sees to what the machine must have. What only costs a feature is
// logged; what nothing works without is an error that names it.
func prepareHost(ctx context.Context, log *slog.Logger) error {
	if os.Geteuid() != 0 {
		return errors.New("a node must run as root")
	}
	systems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !bytes.Contains(systems, []byte("\toverlay\n")) {
		if out, err := exec.CommandContext(ctx, "modprobe", "overlay").CombinedOutput(); err != nil {
			return fmt.Errorf("the kernel has no overlay file system: modprobe: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	// Runc is the runtime wherever crun does not work (ChooseRuntime).
	for _, program := range []string{"runc", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			log.Error("a program that tasks need is not installed", "program", program, "err", err)
		}
	}
	return nil
}

// capacity measures the machine: CPU units and MiB.
func capacity() (cpu, memory int, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			var kib int
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			return runtime.NumCPU() * 1024, kib >> 10, nil
		}
	}
	return 0, 0, errors.Join(s.Err(), errors.New("/proc/meminfo has no MemTotal"))
}
