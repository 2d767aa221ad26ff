// Package lab runs real regions for tests: it builds the binary, starts and
// ends regions with the commands a user types, calls them with the tools a
// user has, and looks into the kernel for what a region has left behind.
//
// It belongs to the tests and sees a region from outside only: by its command
// line, its API and the machine. It must never import a package of the server,
// the agent or the data plane.
package lab

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Build builds the program of a package of this module, statically, as dir/name.
// The whole ("") gets its shim as with `make build`.
func Build(ctx context.Context, pkg, dir, name string) (string, error) {
	out := filepath.Join(dir, name)
	if pkg != "" {
		return out, compile(ctx, pkg, out)
	}
	shim := filepath.Join(dir, name+".shim")
	if err := compile(ctx, "/node/shim/slim", shim, "-tags", "grpcnotrace"); err != nil {
		return "", err
	}
	program, err := os.ReadFile(shim)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(program)
	if err := errors.Join(err, w.Close(), os.WriteFile(shim+".gz", packed.Bytes(), 0o600)); err != nil {
		return "", err
	}
	find := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", module+"/node/containerd")
	folder, err := find.Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(strings.TrimSpace(string(folder)), "shim.gz"): shim + ".gz"}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(shim+".json", overlay, 0o600); err != nil {
		return "", err
	}
	return out, compile(ctx, "", out, "-overlay", shim+".json")
}

const module = "github.com/berth-run/berth"

func compile(ctx context.Context, pkg, out string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out}, flags...), module+pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, b)
	}
	return nil
}

// Options say which region to start.
type Options struct {
	Binary string // built program
	Dir    string // data directory
	Listen string // "" finds a free port
	Name   string // "" is us-east-1
}

// Region is a region that was started.
type Region struct {
	Options
	Root     Identity // the account's root user
	Endpoint string
	Account  string // of Root
}

// Account is every lab region's first account.
const Account = "000000000000"

// Up starts a region with `berth up --detach`, or starts it again.
func Up(ctx context.Context, o Options) (*Region, error) {
	if o.Name == "" {
		o.Name = "us-east-1"
	}
	if o.Listen == "" {
		var err error
		if o.Listen, err = freePort(); err != nil {
			return nil, err
		}
	}
	r := &Region{Options: o}
	return r, r.Up(ctx)
}

// Up starts the region again after Down, and learns how to call it.
func (r *Region) Up(ctx context.Context) error {
	if _, err := r.Berth(ctx, "up", "--detach", "--listen", r.Listen, "--region", r.Name); err != nil {
		return errors.Join(err, errors.New(r.Logs()))
	}
	out, err := r.Berth(ctx, "env")
	if err != nil {
		return err
	}
	env := map[string]string{}
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		env[k] = strings.Trim(v, "'")
	}
	for _, k := range []string{"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		if env[k] == "" {
			return fmt.Errorf("berth env does not say %s:\n%s", k, out)
		}
	}
	r.Endpoint = env["AWS_ENDPOINT_URL"]
	r.Account = Account
	r.Root = Identity{Region: r, AccessKeyID: env["AWS_ACCESS_KEY_ID"], Secret: env["AWS_SECRET_ACCESS_KEY"]}
	return nil
}

// Down ends the region with `berth down`.
func (r *Region) Down(ctx context.Context, purge bool) error {
	args := []string{"down"}
	if purge {
		args = append(args, "--purge")
	}
	_, err := r.Berth(ctx, args...)
	return err
}

// Berth runs a command on the region and returns what it printed to stdout.
func (r *Region) Berth(ctx context.Context, args ...string) (string, error) {
	args = append(args[:1:1], append([]string{"--data-dir", r.Dir}, args[1:]...)...)
	cmd := exec.CommandContext(ctx, r.Binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// What a region starts detached must not hold our pipes; without files of
	// ours Run would wait for it forever.
	cmd.WaitDelay = pipeDelay
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("berth %s: %w\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// Logs is the end of what the region's processes wrote, for a test that failed.
func (r *Region) Logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(r.Dir, "logs", "*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || len(text) == 0 {
			continue
		}
		if len(text) > 8<<10 {
			text = text[len(text)-8<<10:]
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(f), text)
	}
	return b.String()
}

// ShortID is the mark of everything that the region puts into the kernel.
func (r *Region) ShortID() string {
	dir := r.Dir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:3])
}

// RunDir is where the region has its sockets and namespaces.
func (r *Region) RunDir() string { return filepath.Join("/run/berth", r.ShortID()) }

// Processes are the process ids by role: "server", "node", "agent",
// "containerd"; the supervisor of a detached region is "up".
func (r *Region) Processes() (map[string]int, error) {
	out := map[string]int{}
	err := eachProcess(func(pid int, args []string) {
		at := -1
		for i, a := range args {
			if a == "--data-dir" && i+1 < len(args) && args[i+1] == r.Dir || a == "--data-dir="+r.Dir {
				at = i
			}
		}
		if at < 0 {
			return
		}
		if i := slices.Index(args, "--"); i > 0 && i+2 == len(args) {
			// The agent of an instance: …/i/<instance>/agent.
			out["agent-"+filepath.Base(filepath.Dir(args[i+1]))] = pid
			return
		}
		for _, a := range args[1:] {
			switch a {
			case "up", "server", "node", "agent", "containerd":
				if old, ok := out[a]; !ok || pid > old {
					out[a] = pid
				}
				return
			}
		}
	})
	return out, err
}

// eachProcess calls f with every process of the machine that has arguments.
func eachProcess(f func(pid int, args []string)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || len(b) == 0 {
			continue // gone, or a thread of the kernel
		}
		f(pid, strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"))
	}
	return nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
