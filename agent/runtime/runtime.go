package runtime

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"
)

// Errors of a Runtime. Implementations wrap them; test with errors.Is.
var (
	// ErrNotFound: no such container, image, or reference in the registry.
	ErrNotFound = errors.New("not found")
	// ErrExists: the container id is taken.
	ErrExists = errors.New("already exists")
	// ErrUnauthorized: the registry refused the credentials or has none.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrNotRunning: the call needs a running process.
	ErrNotRunning = errors.New("not running")
	// ErrUnavailable: the runtime's daemon does not answer now; what it runs
	// may well be running. Try again.
	ErrUnavailable = errors.New("runtime unavailable")
	// ErrProcess: the OCI runtime could not start the container's process
	// (command not in the image, not executable, a mount that cannot be made).
	// Docker tells these when a container is started; here most of them show
	// in Create already.
	// It is an ErrInvalid too.
	ErrProcess error = processError{}
	// ErrInvalid: the spec asks for something that cannot be (unknown user,
	// unknown capability, malformed ulimit ...).
	ErrInvalid = errors.New("invalid")
)

type processError struct{}

func (processError) Error() string        { return "cannot start process" }
func (processError) Is(target error) bool { return target == ErrInvalid }

// Runtime runs containers. All methods may be called concurrently, also for
// the same container; calls for one container are applied one at a time.
type Runtime interface {
	// Resolve asks the registry for what src.Reference points at now, with a
	// HEAD request. It transfers no layers and changes nothing here.
	Resolve(ctx context.Context, src Source) (Descriptor, error)

	// Pull makes the image with the given digest available and unpacked.
	// Content that is here already is not transferred again, and an image
	// that is complete costs no round trip to the registry. The pull holds a
	// lease, so garbage collection never takes half an image; progress may be
	// nil and is called from one goroutine.
	Pull(ctx context.Context, src Source, digest string, progress func(Progress)) (Image, error)

	// Image answers the unpacked image of that digest, or ErrNotFound.
	Image(ctx context.Context, digest string) (Image, error)
	// Images lists the images that were pulled and not removed.
	Images(ctx context.Context) ([]Image, error)
	// RemoveImage forgets an image; its layers go when no container and no
	// other image needs them.
	RemoveImage(ctx context.Context, digest string) error

	// CreateGroup makes the cgroup of a task, or brings the limits of an
	// existing one to those given.
	CreateGroup(ctx context.Context, g Group) error
	// DeleteGroup removes it. It fails while a container of it exists.
	DeleteGroup(ctx context.Context, name string) error
	// Groups lists the groups of this region that exist on this machine.
	Groups(ctx context.Context) ([]string, error)

	// Create prepares the root file system and the process: afterwards
	// everything that can fail, but for the exec of the command itself, has
	// been tried, and Start is quick.
	Create(ctx context.Context, spec Spec) error
	// Start runs the container's process and answers its pid. On a container
	// that has exited it runs the process again, in place. An error that is
	// the command's own is ErrProcess.
	Start(ctx context.Context, id string) (pid int, err error)
	// Kill sends a signal to the container's first process.
	Kill(ctx context.Context, id string, sig syscall.Signal) error
	// Delete removes a container: process (killed if need be), root file
	// system, pipes, files, and the log of its output that nobody read.
	Delete(ctx context.Context, id string) error
	// List answers all containers of this runtime that carry all of the
	// given labels (nil: all containers).
	List(ctx context.Context, labels map[string]string) ([]Container, error)

	// Output opens the output of a created container. There is one reader at
	// a time. Each stream ends (io.EOF) when the process and its children
	// have closed it and everything was read. After a Start in place, call it
	// again.
	Output(ctx context.Context, id string) (*Output, error)

	// Events reports exits (see the package comment) until ctx is done; then
	// the channel is closed. The consumer must keep reading.
	Events(ctx context.Context) <-chan Event

	// Exec runs a further process in a running container and waits for its
	// end or for ctx, at which it is killed.
	Exec(ctx context.Context, id string, e Exec) (ExecResult, error)

	// Stats reads the container's counters now.
	Stats(ctx context.Context, id string) (Stats, error)
}

// Source says where an image comes from. Reference is what the user wrote,
// with its registry host spelt out ("docker.io/library/nginx:1.27",
// "host/repo@sha256:..."); the other fields say how to reach that registry.
type Source struct {
	Reference string
	// Host replaces the registry host in requests (URL, Host header and TLS
	// server name); "" keeps the reference's.
	Host string
	// Address is dialled (host:port) instead of resolving Host; "" resolves.
	Address string
	// PlainHTTP talks http. Without it https is spoken, also to localhost.
	PlainHTTP bool
	// RootCAs is PEM that is trusted besides the system's roots.
	RootCAs []byte
	// Auth is nil for anonymous access.
	Auth *Auth
}

// Auth is a user name and password, as for `docker login`. ECR's user is
// "AWS" and its password the authorization token.
type Auth struct {
	Username, Password string
}

// Descriptor is what a reference pointed at.
type Descriptor struct {
	Digest    string // sha256:... of the manifest or index
	MediaType string
	Size      int64
}

// Progress of a pull.
type Progress struct {
	Offset, Total int64 // bytes of all layers known so far
}

// Image is an unpacked image.
type Image struct {
	Digest string // of the manifest or index that was pulled
	ID     string // digest of its config: docker's image id
	Names  []string
	Size   int64 // of the content, compressed
	Pulled time.Time
	Config ImageConfig
}

// ImageConfig is the part of an image's config that the engine looks at.
type ImageConfig struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	Volumes      []string // sorted
	ExposedPorts []string // sorted, "80/tcp"
	StopSignal   string
	Labels       map[string]string
	Healthcheck  *Healthcheck
}

// Healthcheck is an image's HEALTHCHECK.
type Healthcheck struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int
}

// Group is the cgroup of a task. A zero limit is no limit.
type Group struct {
	Name      string // the task's id; one path element
	CPUQuota  int64  // microseconds of CPU per CPUPeriod
	CPUPeriod uint64 // microseconds; 0 means 100 ms
	CPUShares uint64
	Memory    int64 // bytes, hard
	Pids      int64
}

// Spec is a container to be made. What is empty comes from the image.
type Spec struct {
	ID     string // [A-Za-z0-9][A-Za-z0-9_.-]*, at most 76 bytes, unique in the region
	Group  string // a group that exists; "" gives the container its own place under the region
	Image  string // digest of a pulled image
	Labels map[string]string

	// The process. Entrypoint set (even to an empty list) drops the image's
	// Cmd, as docker does; Env entries win over the image's.
	Entrypoint []string
	Command    []string
	Env        []string // KEY=VALUE
	User       string   // name, uid, name:group, uid:gid
	WorkingDir string
	Terminal   bool

	// NetNS is the path of the network namespace; "" gives an own empty one;
	// "host" the host's.
	NetNS      string
	Hostname   string
	ResolvConf []byte // contents of /etc/resolv.conf; nil leaves the image's
	Hosts      []byte // contents of /etc/hosts; nil leaves the image's

	Mounts         []Mount
	ReadonlyRootfs bool
	ShmSize        int64 // bytes; 0 means 64 MiB
	Devices        []Device
	Sysctls        map[string]string

	// Init puts a small init (this binary) before the command: it forwards
	// signals and reaps orphans.
	Init bool

	Ulimits         []Ulimit
	CapAdd, CapDrop []string // docker's spelling, with or without CAP_; "ALL"
	Privileged      bool
	NoNewPrivileges bool
	// Unconfined drops the default seccomp profile (as Privileged does).
	Unconfined bool
	PIDMode    string // "" own, "host", or the path of a PID namespace
	IPCMode    string // "" own, "host", or the path of an IPC namespace

	// Bare leaves /etc to the image: no generated file is put there.
	Bare bool
	// CgroupNS hides the cgroups above the container's own, also on cgroup v1.
	CgroupNS bool

	// Limits of the container itself, inside its group's.
	Memory            int64
	MemoryReservation int64
	MemorySwap        int64 // docker's: memory+swap, -1 unlimited
	CPUShares         uint64
	CPUQuota          int64
	PidsLimit         int64
	OOMScoreAdj       int
}

// MountKind says what is mounted.
type MountKind string

// The kinds of mounts.
const (
	MountBind   MountKind = "bind"   // Source: a path of the machine that exists
	MountVolume MountKind = "volume" // Source: a directory, made if missing; an empty one is filled from the image
	MountTmpfs  MountKind = "tmpfs"  // Size and Options
)

// Mount is one mount in a container.
type Mount struct {
	Kind     MountKind
	Source   string
	Target   string
	ReadOnly bool
	Size     int64    // tmpfs: bytes, 0 no limit
	Options  []string // tmpfs: mount options; bind: propagation
}

// Device is a device node of the machine.
type Device struct {
	Host, Container string
	Permissions     string // of "rwm"; "" means "rwm"
}

// Ulimit is a resource limit by docker's name ("nofile"). -1 is no limit.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Status of a container.
type Status string

// A container goes created, running, exited - and from exited to running when
// it is started in place. Unknown: the runtime cannot tell (its shim is gone
// without a word); to be deleted.
const (
	StatusCreated Status = "created"
	StatusRunning Status = "running"
	StatusExited  Status = "exited"
	StatusUnknown Status = "unknown"
)

// Container is what the runtime knows of a container.
type Container struct {
	ID        string
	Group     string
	Image     string // digest
	Labels    map[string]string
	Status    Status
	Pid       int // while running
	CreatedAt time.Time
	StartedAt time.Time // zero before the first start
	ExitCode  int       // when exited; 128+n for a signal
	ExitedAt  time.Time
	OOMKilled bool
}

// Event tells that a container's process ended.
type Event struct {
	ID        string
	Pid       int // zero if the process was never started
	ExitCode  int
	ExitedAt  time.Time
	OOMKilled bool // the kernel killed a process of it for memory
}

// Output is the two streams of a container. Close stops reading; the
// container's process does not notice.
type Output struct {
	Stdout, Stderr io.ReadCloser
}

// Close closes both streams.
func (o *Output) Close() error {
	return errors.Join(o.Stdout.Close(), o.Stderr.Close())
}

// Exec is a process to run beside a container's own, with the container's
// user, environment and working directory unless given.
type Exec struct {
	Args       []string
	Env        []string // added
	User       string
	WorkingDir string
	// Limit of what is kept of stdout and stderr together; more is read and
	// dropped. 0 means 4 KiB.
	Limit int
}

// ExecResult is how an exec ended.
type ExecResult struct {
	ExitCode  int
	Output    []byte // stdout and stderr in the order they arrived
	Truncated bool
}

// Stats are counters since the container was created; Network since its
// network namespace was made. What the kernel does not tell is zero.
type Stats struct {
	Time    time.Time
	CPU     CPUStats
	Memory  MemoryStats
	BlockIO []BlockIO
	Network map[string]NetworkStats // by interface, without lo
	Pids    PidsStats
}

// CPUStats in nanoseconds, and the throttling of the cgroup's quota.
type CPUStats struct {
	Total, User, Kernel uint64
	PerCPU              []uint64 // cgroup v1 only
	System              uint64   // the machine's CPU time, all CPUs, docker's system_cpu_usage
	OnlineCPUs          int
	Periods, Throttled  uint64
	ThrottledTime       uint64
}

// MemoryStats in bytes. Usage is the kernel's count, Cache the part of it
// that is inactive page cache; docker shows the difference.
type MemoryStats struct {
	Usage, Max, Limit, Cache uint64
	Failures                 uint64
	Stats                    map[string]uint64 // memory.stat
}

// BlockIO of one device.
type BlockIO struct {
	Major, Minor          uint64
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// NetworkStats of one interface.
type NetworkStats struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// PidsStats of the container's cgroup.
type PidsStats struct {
	Current, Limit uint64
}
