// Package guest makes this binary the first process of an instance: as
// [Init] it sets up what a machine has before anything runs in it, runs the
// user data at the first boot, reaps what has no parent, and ends the instance
// when the node or somebody inside says so. Under the names of the programs
// that say so inside (poweroff, reboot, halt, shutdown) it is those.
//
// It talks to the node by what every process has: it is told its boot in an
// environment variable, its standard output is the console, its standard error
// is for the node (package node/instance), and its exit status says how it
// ended. It never opens anything of the machine, of which it sees nothing.
//
// Like package node/shim it acts while packages are initialised, before most of
// the binary has cost the instance anything. It must import only what the
// standard library can do without the network.
package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Init is where the binary is in an instance: not where an image has an init
// of its own, which may be a link to what all of its programs are.
const Init = "/usr/lib/berth/init"

// Programs are the names beside init under which the binary does something
// inside an instance.
var Programs = []string{"poweroff", "halt", "reboot", "shutdown"}

// Variable is the environment variable that has a [Boot] as JSON. What does not
// fit into one, which the kernel limits, goes on in Variable with 1, 2, … behind.
const Variable = "BERTH_BOOT"

// variableSize is how much goes into one variable.
const variableSize = 96 << 10

// Environment is the environment that tells the first process its boot.
func (b Boot) Environment() ([]string, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	var env []string
	for chunk := range slices.Chunk(text, variableSize) {
		env = append(env, variable(len(env))+"="+string(chunk))
	}
	return env, nil
}

func variable(i int) string {
	if i == 0 {
		return Variable
	}
	return Variable + strconv.Itoa(i)
}

// fromEnvironment is the opposite of Environment.
func fromEnvironment(get func(string) string) (b Boot, err error) {
	text := ""
	for i := 0; ; i++ {
		chunk := get(variable(i))
		if chunk == "" {
			break
		}
		text += chunk
	}
	return b, json.Unmarshal([]byte(text), &b)
}

// Boot is what the first process is told.
type Boot struct {
	Instance    string   `json:"instance"`
	Hostname    string   `json:"hostname"`
	Address     string   `json:"address,omitempty"`
	Nameservers []string `json:"nameservers,omitempty"`
	Search      []string `json:"search,omitempty"`
	// Parts are the user data, taken apart by the node.
	Parts []Part `json:"parts,omitempty"`
}

// Part is a piece of user data: a script, or a word on why it is none.
type Part struct {
	Name   string `json:"name"`
	Script []byte `json:"script,omitempty"`
	Note   string `json:"note,omitempty"`
}

// Exit statuses of an instance's first process.
const (
	PoweredOff = 0   // asked for by the node, or inside
	Rebooting  = 100 // asked for inside
)

// Ready is the line on standard error that says that the instance has booted:
// its user data has run, if it was to.
const Ready = "ready"

// What asks the first process for what. The node asks for an end as it would
// of any process.
const (
	powerOff = syscall.SIGTERM
	reboot   = syscall.SIGINT
)

// grace is how long the processes of an instance may take to end.
const grace = 20 * time.Second

func init() {
	if len(os.Args) == 0 {
		return
	}
	switch name := filepath.Base(os.Args[0]); {
	case name == "init" && os.Getpid() == 1 && os.Getenv(Variable) != "":
		os.Exit(run())
	case slices.Contains(Programs, name):
		os.Exit(ask(name, os.Args[1:]))
	}
}

// ask tells the first process what somebody inside wants.
func ask(name string, args []string) int {
	sig, err := wish(name, args)
	if err == nil {
		err = syscall.Kill(1, sig)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// wish reads a command line of one of the programs.
func wish(name string, args []string) (syscall.Signal, error) {
	sig := powerOff
	if name == "reboot" {
		sig = reboot
	}
	for i, a := range args {
		switch {
		case name == "shutdown" && (a == "-r" || a == "--reboot"):
			sig = reboot
		case a == "-h" || a == "-P" || a == "-H" || a == "-p" || a == "-f" || a == "--halt" || a == "--poweroff" || a == "--force" || a == "-n" || a == "-w":
		case name == "shutdown" && (a == "now" || a == "+0"):
			if i < len(args)-1 {
				return sig, nil // the rest is a message to users
			}
		case name == "shutdown" && (strings.HasPrefix(a, "+") || strings.Contains(a, ":")):
			return 0, fmt.Errorf("time %q: an instance of Berth can only be shut down now", a)
		default:
			return 0, fmt.Errorf("argument %q is not supported", a)
		}
	}
	return sig, nil
}

// run is the life of the instance.
func run() int {
	debug.SetGCPercent(50) // beside an instance's memory this process is overhead
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, powerOff, reboot, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	b, err := fromEnvironment(os.Getenv)
	os.Clearenv()
	for _, kv := range [][2]string{{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, {"HOME", "/root"}, {"LANG", "C.UTF-8"}} {
		os.Setenv(kv[0], kv[1])
	}
	c := newConsole(os.Stdout)
	if err != nil {
		c.say("what this boot is cannot be read: %v", err)
		return 1
	}
	c.say("instance %s boots", b.Instance)
	for _, err := range settle("/", b) {
		c.say("%v", err)
	}
	p := &processes{console: c, waiters: map[int]chan syscall.WaitStatus{}}
	booted := make(chan struct{})
	go func() {
		defer close(booted)
		p.userData("/", b)
		fmt.Fprintln(os.Stderr, Ready)
	}()
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			p.reap()
		case powerOff, reboot:
			c.say("instance %s %s", b.Instance, map[os.Signal]string{powerOff: "powers off", reboot: "reboots"}[s])
			p.end(signals)
			c.drain()
			if s == reboot {
				return Rebooting
			}
			return PoweredOff
		}
	}
	return 1
}

// settle makes what a machine has by the time anything runs.
func settle(root string, b Boot) (errs []error) {
	at := func(path string) string { return filepath.Join(root, path) }
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{"etc", 0o755}, {"run", 0o755}, {"tmp", 0o777 | os.ModeSticky}, {"var/tmp", 0o777 | os.ModeSticky}, {"var/log", 0o755},
		{"root", 0o700}, {"usr/local/bin", 0o755}, {"var/lib/cloud/instance/scripts", 0o755}, {"var/lib/cloud/instance/sem", 0o755},
	} {
		if err := os.MkdirAll(at(d.path), d.mode.Perm()); err != nil {
			errs = append(errs, err)
			continue
		}
		if d.mode&os.ModeSticky != 0 {
			errs = add(errs, os.Chmod(at(d.path), d.mode))
		}
	}
	errs = add(errs, write(at("etc/hostname"), b.Hostname+"\n"))
	short, _, _ := strings.Cut(b.Hostname, ".")
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	if b.Address != "" && b.Hostname != "" {
		names := b.Hostname
		if short != b.Hostname {
			names += " " + short
		}
		hosts += b.Address + " " + names + "\n"
	}
	errs = add(errs, write(at("etc/hosts"), hosts))
	resolv := ""
	for _, n := range b.Nameservers {
		resolv += "nameserver " + n + "\n"
	}
	if len(b.Search) > 0 {
		resolv += "search " + strings.Join(b.Search, " ") + "\n"
	}
	errs = add(errs, write(at("etc/resolv.conf"), resolv))
	// An image that has such programs keeps them; they would find no init of theirs.
	for _, name := range Programs {
		path := at("usr/local/bin/" + name)
		if err := os.Symlink(Init, path); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errs
}

func add(errs []error, err error) []error {
	if err == nil {
		return errs
	}
	return append(errs, err)
}

// write replaces a file, and whatever an image has in its place.
func write(path, content string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// processes are those below the first one.
type processes struct {
	console *console
	mu      sync.Mutex // held from a child's start until it is known by its number
	waiters map[int]chan syscall.WaitStatus
}

// start starts a command whose output goes to the console.
func (p *processes) start(path string, out *os.File) (<-chan syscall.WaitStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	child, err := os.StartProcess(path, []string{path}, &os.ProcAttr{Dir: "/", Files: []*os.File{null, out, out}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	p.waiters[child.Pid] = ended
	_ = child.Release()
	return ended, nil
}

// reap collects whatever has ended.
func (p *processes) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if w := p.waiters[pid]; w != nil {
			w <- status
			delete(p.waiters, pid)
		}
	}
}

// end ends every process but this one.
func (p *processes) end(signals <-chan os.Signal) {
	_ = syscall.Kill(-1, syscall.SIGTERM)
	_ = syscall.Kill(-1, syscall.SIGCONT)
	limit := time.NewTimer(grace)
	defer limit.Stop()
	for {
		p.reap()
		// Nobody is left when there is no child: whoever lost its parent is one.
		if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err == syscall.ECHILD {
			return
		}
		select {
		case <-signals:
		case <-limit.C:
			_ = syscall.Kill(-1, syscall.SIGKILL)
			return // what remains ends with this process
		}
	}
}

// done says that user data has run: with the instance's root it stays.
const done = "var/lib/cloud/instance/sem/config_scripts_user"

// userData runs the scripts, in order, once in the life of the instance.
func (p *processes) userData(root string, b Boot) {
	at := func(path string) string { return filepath.Join(root, path) }
	// Noted before they run: a script that ends the instance is not to end it at every boot.
	f, err := os.OpenFile(at(done), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return
	}
	if err != nil {
		p.console.say("user data: %v", err)
		return
	}
	f.Close()
	for i, part := range b.Parts {
		if part.Note != "" {
			p.console.say("user data: %s", part.Note)
			continue
		}
		name := "part-" + fmt.Sprintf("%03d", i+1)
		if part.Name != "" {
			name = filepath.Base(part.Name)
		}
		if err := p.script(at(filepath.Join("var/lib/cloud/instance/scripts", name)), part.Script); err != nil {
			p.console.say("user data: %s: %v", name, err)
		}
	}
}

// script runs one script and waits for it.
func (p *processes) script(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o700); err != nil {
		return err
	}
	out, err := p.console.pipe()
	if err != nil {
		return err
	}
	ended, err := p.start(path, out)
	out.Close()
	if err != nil {
		if errors.Is(err, syscall.ENOENT) {
			err = errors.New("its interpreter is not in this image")
		}
		return err
	}
	switch status := <-ended; {
	case status.Signaled():
		return fmt.Errorf("ended by signal %v", status.Signal())
	case status.ExitStatus() != 0:
		return errors.New("exit status " + strconv.Itoa(status.ExitStatus()))
	}
	return nil
}

// console passes on what is said in the instance. Who says it never waits for
// a node that is away: what is said then and finds no room is lost.
type console struct {
	mu      sync.Mutex
	pending []byte
	out     io.Writer
	wake    chan struct{}
	idle    *sync.Cond
	busy    bool
	readers sync.WaitGroup
}

// backlog is how much the console keeps for a node that does not read.
const backlog = 64 << 10

func newConsole(out io.Writer) *console {
	c := &console{out: out, wake: make(chan struct{}, 1)}
	c.idle = sync.NewCond(&c.mu)
	go c.pass() // for the life of the process
	return c
}

func (c *console) say(format string, args ...any) {
	c.Write([]byte("berth: " + fmt.Sprintf(format, args...) + "\r\n"))
}

// Write implements io.Writer. It never fails and never waits.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.pending = append(c.pending, b...)
	if over := len(c.pending) - backlog; over > 0 {
		c.pending = append(c.pending[:0], c.pending[over:]...)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (c *console) pass() {
	for range c.wake {
		for {
			c.mu.Lock()
			n := min(len(c.pending), 4<<10)
			chunk := slices.Clone(c.pending[:n])
			c.pending = append(c.pending[:0], c.pending[n:]...)
			c.busy = n > 0
			c.idle.Broadcast()
			c.mu.Unlock()
			if n == 0 {
				break
			}
			if _, err := c.out.Write(chunk); err != nil {
				break
			}
		}
	}
}

// pipe is a file to write to the console by.
func (c *console) pipe() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.readers.Go(func() {
		defer r.Close()
		_, _ = io.Copy(c, r)
	})
	return w, nil
}

// drain gives what was said a moment to be heard.
func (c *console) drain() {
	heard := make(chan struct{})
	go func() {
		c.readers.Wait() // every writer has ended
		c.mu.Lock()
		for len(c.pending) > 0 || c.busy {
			c.idle.Wait()
		}
		c.mu.Unlock()
		close(heard)
	}()
	select {
	case <-heard:
	case <-time.After(time.Second):
	}
}
