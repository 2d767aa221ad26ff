// Package cli is what a person types: it parses the command line, says what is
// going on in short text, and says what to do next when something fails.
//
// It owns no behaviour of a region. What starts and stops processes is handed
// in by main as Roles; everything else it learns by HTTP, as any client does,
// so it must never import the store, a service or the data plane.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// What a new region is when nothing else is said.
const (
	DefaultDataDir      = "/var/lib/berth"
	DefaultListen       = "127.0.0.1:4566"
	DefaultRegion       = "us-east-1"
	DefaultAccount      = "000000000000"
	DefaultHealthyAfter = 5 * time.Second
)

// Roles are the parts of the program that main wires.
type Roles struct {
	// Up runs a region until ctx ends; with Detach it returns once the first
	// call would succeed, and the region stays.
	Up func(ctx context.Context, o UpOptions) error
	// Down ends everything that Up started and takes it out of the kernel. It
	// returns ErrNotRunning only if there was nothing to do at all.
	Down func(ctx context.Context, dataDir string, purge bool, progress func(string)) error
	// Environment asks a running region, over its private socket, how to reach it.
	Environment func(ctx context.Context, dataDir string) (Environment, error)
	// Owner makes a request on the region's private socket: method, path, and a
	// body that becomes JSON. Whoever calls closes the answer's body.
	Owner func(ctx context.Context, dataDir, method, path string, in any) (*http.Response, error)
	// Status looks at the processes of a region.
	Status func(ctx context.Context, dataDir string) (Status, error)
	// Runtime finds out which OCI runtime a region would use on this machine.
	Runtime func(ctx context.Context) (Runtime, error)

	// The processes that Up supervises; they run until ctx ends.
	Server, Node, Agent, Containerd func(ctx context.Context, o RoleOptions) error
}

// UpOptions say which region to start. Listen, Region and Account are "" when
// the user did not say: then they are as the region was first started, and the
// Default constants for a new one.
type UpOptions struct {
	DataDir      string
	Listen       string
	Region       string
	Account      string
	Throttle     string // aws, off or a factor; "" as Listen
	Detach       bool
	Containerd   string        // address of the machine's containerd; "" runs Berth's own
	HealthyAfter time.Duration // how long a container without a health check must run to count as healthy

	Progress func(string) // told what is being waited for; never nil
	Ready    func()       // called once, when the first call would succeed; never nil. Not used with Detach.
}

// RoleOptions are what a supervised process is started with.
type RoleOptions struct {
	DataDir      string
	Containerd   string
	HealthyAfter time.Duration
	Args         []string // what follows the flags
}

// Environment is how to reach a region and its root credentials.
type Environment struct {
	Endpoint        string
	Region          string
	Account         string
	AccessKeyID     string
	SecretAccessKey string
	CA              string // file with the certificate that signs the region's own
}

// Status is what runs of a region on this machine.
type Status struct {
	Processes []Process
	Runtime   Runtime // of new containers; without a name while that is not known
}

// A Runtime is the OCI runtime that makes containers, and why this one.
type Runtime struct{ Name, Why string }

// A Process is one supervised process. PID is 0 while it is not running.
type Process struct {
	Name     string
	PID      int
	RSS      uint64 // resident bytes
	Started  time.Time
	Restarts int
}

// ErrNotRunning says that no region runs on a data directory.
var ErrNotRunning = errors.New("no region is running")

// ErrRunning says that a region that was to be started detached runs already,
// as it was to.
var ErrRunning = errors.New("the region is running already")

// WithHint adds what the user can do to an error.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// usage marks an error of the command line itself.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// app is one run of the command line.
type app struct {
	self    string // how the user called the program
	roles   Roles
	in      io.Reader
	out     *console
	err     *console
	dataDir string
}

// Run runs the command line args, whose first element is the program's name,
// and returns the exit status: 0, 1 for a failure, 2 for a command line that
// cannot be understood.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, roles Roles) int {
	a := &app{self: "berth", roles: roles, in: stdin, out: newConsole(stdout), err: newConsole(stderr)}
	if len(args) > 0 {
		a.self = args[0]
		args = args[1:]
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0
	}
	return a.report(err)
}

// report shows err and returns the exit status.
func (a *app) report(err error) int {
	if errors.Is(err, errReported) {
		return 1
	}
	a.err.printf("%s %v\n", a.err.red("berth:"), err)
	var h *hinted
	var u usage
	switch {
	case errors.As(err, &h):
		a.err.printf("%s\n", indent(h.hint))
	case errors.As(err, &u):
		a.err.printf("  %s --help lists the commands and flags.\n", a.self)
		return 2
	case errors.Is(err, ErrNotRunning):
		a.err.printf("  %s starts one.\n", a.command("up --detach"))
	}
	return 1
}

// errReported fails a command that has already said why.
var errReported = errors.New("reported")

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// command is a line to type that reaches the same region.
func (a *app) command(line string) string {
	if a.dataDir != defaultDataDir() {
		name, rest, _ := strings.Cut(line, " ")
		return strings.TrimSpace(a.self + " " + name + " --data-dir " + shellQuote(a.dataDir) + " " + rest)
	}
	return a.self + " " + line
}

func defaultDataDir() string {
	if d := os.Getenv("BERTH_DATA_DIR"); d != "" {
		return d
	}
	return DefaultDataDir
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "berth",
		Short:         "Amazon ECS on your own machines",
		Long:          "Berth answers the AWS APIs around ECS and makes them true with real\ncontainers and networks on this machine.\n\nStart with: " + a.self + " up --detach",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.PersistentFlags().StringVar(&a.dataDir, "data-dir", defaultDataDir(), "where the region keeps its data ($BERTH_DATA_DIR)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		abs, err := filepath.Abs(a.dataDir)
		if err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
		a.dataDir = abs
		return nil
	}
	root.AddCommand(a.up(), a.down(), a.env(), a.account(), a.quota(), a.status(), a.logs(), a.doctor(), a.coverage(), a.version())
	root.AddCommand(a.hidden()...)
	return root
}

// noArgs and friends make cobra's complaints about arguments usage errors.
func noArgs(c *cobra.Command, args []string) error { return asUsage(cobra.NoArgs(c, args)) }

func asUsage(err error) error {
	if err != nil {
		return usage{err}
	}
	return nil
}

// hidden are the processes that a region consists of. A user has no need to
// start them: `berth up` does.
func (a *app) hidden() (cs []*cobra.Command) {
	for _, r := range []struct {
		name, short string
		run         func(context.Context, RoleOptions) error
	}{
		{"server", "The API and the controllers", a.roles.Server},
		{"node", "What runs tasks on this machine", a.roles.Node},
		{"agent", "The ECS agent", a.roles.Agent},
		{"containerd", "The container runtime daemon", a.roles.Containerd},
	} {
		var o RoleOptions
		c := &cobra.Command{Use: r.name, Short: r.short, Hidden: true, RunE: func(c *cobra.Command, args []string) error {
			if r.run == nil {
				return fmt.Errorf("this build has no %s", r.name)
			}
			o.DataDir, o.Args = a.dataDir, args
			return r.run(c.Context(), o)
		}}
		c.Flags().StringVar(&o.Containerd, "containerd", "", "address of the machine's containerd")
		c.Flags().DurationVar(&o.HealthyAfter, "healthy-after", DefaultHealthyAfter, "how long a container without a health check must run to count as healthy")
		cs = append(cs, c)
	}
	return cs
}
