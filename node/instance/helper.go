package instance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/process"
)

// AgentSettings are what the agent of an instance is started with.
type AgentSettings struct {
	Instance string `json:"instance"`
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
	// Config is the instance's /etc/ecs/ecs.config.
	Config map[string]string `json:"config,omitempty"`
	// Document and Signature are the instance's identity document.
	Document  string `json:"document,omitempty"`
	Signature string `json:"signature,omitempty"`
	// Tags are the instance's own.
	Tags map[string]string `json:"tags,omitempty"`
	// Attributes are what is known of the instance by the names of ECS.
	Attributes map[string]string `json:"attributes,omitempty"`

	CPU    int `json:"cpu"`
	Memory int `json:"memory"`

	Address     netip.Addr `json:"address,omitzero"`
	Nameservers []string   `json:"nameservers,omitempty"`

	Interface string `json:"interface"` // device 0
	NetnsDir  string `json:"netnsDir"`  // namespaces of interfaces, and their ready markers
	Pid       int    `json:"pid"`       // of the first process

	Containerd string `json:"containerd"` // socket
	OCIRuntime string `json:"ociRuntime,omitempty"`
	Tasks      Place  `json:"tasks"`
	DataDir    string `json:"dataDir"`
	RunDir     string `json:"runDir"` // emptied by a reboot
	Hostname   string `json:"hostname"`
	// Credentials is the file with those of the instance's role. It is not
	// there while the instance has none.
	Credentials string `json:"credentials"`
}

// settingsName is the file of the settings in the folder of an agent.
const settingsName = "agent.json"

// LoadAgentSettings reads what the node wrote for the agent of an instance.
func LoadAgentSettings(dir string) (s AgentSettings, err error) {
	b, err := os.ReadFile(filepath.Join(dir, settingsName))
	if err != nil {
		return s, fmt.Errorf("agent settings: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("agent settings in %s: %w", dir, err)
	}
	return s, nil
}

// agentGrace is how long an agent may take to end.
const agentGrace = 10 * time.Second

// helper is an agent that runs beside an instance.
type helper struct {
	settings AgentSettings
	end      context.CancelFunc
	done     chan struct{}
}

// close ends the agent. What it runs runs on.
func (h *helper) close() {
	h.end()
	<-h.done
}

func (i *instance) agentDir() string  { return filepath.Join(i.dir(), "agent") }
func (i *instance) agentLog() string  { return filepath.Join(i.dir(), "log") }
func (i *instance) agentName() string { return "agent-" + i.id }

// dismiss ends the instance's agent.
func (i *instance) dismiss() {
	if i.helper != nil {
		i.helper.close()
		i.helper = nil
	}
	// One that an earlier node left.
	if err := process.Replace(i.m.cfg.Run, i.agentName(), agentGrace); err != nil {
		i.m.log.Error("agent of an instance", "instance", i.id, "err", err)
	}
}

// assist keeps the agent of an instance that has booted, and its credentials.
func (i *instance) assist(ctx context.Context, w *fabric.Instance, rec record) error {
	if !w.Agent || i.m.cfg.AgentArgs == nil {
		if i.helper != nil {
			i.dismiss()
		}
		return nil
	}
	s, err := i.agentSettings(w, rec)
	if err != nil {
		return err
	}
	if err := i.lend(w, s.Credentials); err != nil {
		return err
	}
	if i.helper != nil && reflect.DeepEqual(i.helper.settings, s) {
		return nil
	}
	i.dismiss()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(i.agentDir(), settingsName), b); err != nil {
		return fmt.Errorf("agent settings: %w", err)
	}
	groups, err := i.agentGroup()
	if err != nil {
		return err
	}
	life, end := context.WithCancel(ctx)
	h := &helper{settings: s, end: end, done: make(chan struct{})}
	spec := process.Spec{
		Name: i.agentName(), Path: i.m.cfg.Binary, Args: append(append([]string{}, i.m.cfg.AgentArgs...), i.agentDir()),
		RunDir: i.m.cfg.Run, LogDir: i.agentLog(), LogName: "ecs-agent.log", LogMode: 0o644, Grace: agentGrace,
		Netns: filepath.Join(i.m.cfg.Netns, w.Interface), Cgroups: groups,
	}
	go func() {
		defer close(h.done)
		if err := process.Keep(life, spec, i.m.log); err != nil {
			i.m.log.Error("agent of an instance", "instance", i.id, "err", err)
		}
	}()
	i.helper = h
	return nil
}

// agentGroup makes the cgroup of the agent, below the instance's.
func (i *instance) agentGroup() ([]string, error) {
	dirs, err := i.m.cfg.Cgroups(filepath.Join(i.m.cfg.Cgroup, i.id))
	if err != nil {
		return nil, fmt.Errorf("cgroup of an agent: %w", err)
	}
	for n, dir := range dirs {
		dirs[n] = filepath.Join(dir, "agent")
		if err := os.Mkdir(dirs[n], 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("cgroup of an agent: %w", err)
		}
		// Version 1 has a group without processors until it is given some.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if b, err := os.ReadFile(filepath.Join(dir, f)); err == nil {
				_ = os.WriteFile(filepath.Join(dirs[n], f), b, 0o644)
			}
		}
	}
	return dirs, nil
}

// lend writes the role's credentials to where the agent reads them.
func (i *instance) lend(w *fabric.Instance, path string) error {
	if w.Credentials == nil || !w.Metadata.Enabled {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("credentials of an instance: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(w.Credentials.Credentials)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
		return nil
	}
	if err := replace(path, b); err != nil {
		return fmt.Errorf("credentials of an instance: %w", err)
	}
	return nil
}

func (i *instance) agentSettings(w *fabric.Instance, rec record) (AgentSettings, error) {
	i.m.mu.Lock()
	region := i.m.region
	i.m.mu.Unlock()
	config, err := ecsConfig(rec.Pid)
	if err != nil {
		return AgentSettings{}, err
	}
	s := AgentSettings{
		Instance: i.id, Endpoint: Endpoint(region), Region: region.Name, Config: config,
		Document: w.Metadata.Paths["dynamic/instance-identity/document"], Signature: w.Metadata.Paths["dynamic/instance-identity/signature"],
		CPU: w.CPU, Memory: w.Registered, Address: w.Address, Nameservers: w.Nameservers,
		Interface: w.Interface, NetnsDir: i.m.cfg.Netns, Pid: rec.Pid,
		Containerd: i.m.cfg.Containerd, OCIRuntime: i.m.cfg.OCIRuntime, Tasks: i.m.tasks(i.id), DataDir: filepath.Join(i.dir(), "ecs"), RunDir: i.m.passing(i.id), Hostname: w.Hostname,
		Credentials: filepath.Join(i.agentDir(), "credentials.json"), Attributes: w.Attributes, Tags: w.Tags,
	}
	// What was read at boot counts until the agent is started again, as on a real instance.
	if i.helper != nil {
		s.Config = i.helper.settings.Config
	}
	return s, nil
}

// Endpoint is the region's API as an instance reaches it: by its own routes,
// at the first address of the public pool.
func Endpoint(r fabric.Region) string {
	u, err := url.Parse(r.Endpoint)
	if err != nil || !r.PublicPool.IsValid() {
		return r.Endpoint
	}
	return "http://" + netip.AddrPortFrom(r.PublicPool.Masked().Addr(), port(u)).String()
}

func port(u *url.URL) uint16 {
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 80
	}
	return uint16(n)
}

// maxConfig bounds an instance's ecs.config.
const maxConfig = 64 << 10

// ecsConfig reads /etc/ecs/ecs.config of the instance with that first process.
// The path is the instance's, whatever links it has on it.
func ecsConfig(pid int) (map[string]string, error) {
	b, err := ReadIn(pid, "etc/ecs/ecs.config", maxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ecs.config: %w", err)
	}
	return parseConfig(b), nil
}

// ReadIn reads a regular file of the instance with that first process. The
// path is the instance's, whatever links it has on it.
func ReadIn(pid int, path string, most int64) ([]byte, error) {
	dir, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		// Not to wait for a pipe that the instance put there.
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// parseConfig reads KEY=VALUE lines as they are; the last of a key counts.
func parseConfig(b []byte) map[string]string {
	out := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxConfig+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
		k, v, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || k == "" {
			continue
		}
		v = strings.TrimSpace(v)
		if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
			v = v[1 : n-1]
		}
		out[strings.TrimSpace(k)] = v
	}
	return out
}
