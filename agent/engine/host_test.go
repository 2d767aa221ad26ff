package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/agent/bridge"
	"github.com/berth-run/berth/dispatch/acs"
)

// plugs is a bridge in memory.
type plugs struct {
	mu   sync.Mutex
	ends map[string]*bridge.Endpoint
	next uint16
	last byte
	err  error
}

func (p *plugs) Connect(id string, ports []bridge.Port) (*bridge.Endpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	if e := p.ends[id]; e != nil {
		return e, nil
	}
	p.last++
	e := &bridge.Endpoint{ID: id, Address: netip.AddrFrom4([4]byte{172, 17, 0, 1 + p.last}), NetNS: "/bridge/" + id, Ports: slices.Clone(ports)}
	for i := range e.Ports {
		if e.Ports[i].Host == 0 {
			e.Ports[i].Host = 32768 + p.next
			p.next += max(1, e.Ports[i].Range)
		}
	}
	p.ends[id] = e
	return e, nil
}

func (p *plugs) Disconnect(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ends, id)
	return nil
}

func (p *plugs) Endpoints() (out []bridge.Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.ends {
		out = append(out, *e)
	}
	return out
}

// onInstance makes the lab's agent that of an instance.
func (l *lab) onInstance() *plugs {
	p := &plugs{ends: map[string]*bridge.Endpoint{}}
	l.host = &Host{Bridge: p, NetNS: "/instance/net", PIDNS: "/instance/pid", IPCNS: "/instance/ipc", Name: "ip-10-0-0-7",
		Root:   Chroot{Dir: l.dir, Mounts: filepath.Join(l.dir, "mounts")},
		Resolv: func() ([]byte, error) { return []byte("nameserver 10.0.0.2\nsearch ec2.internal\n"), nil }}
	return p
}

func bridged(mode string) func(*acs.Task) {
	return func(d *acs.Task) { d.NetworkMode, d.ElasticNetworkInterfaces = mode, nil }
}

func TestBridgeMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		p := l.onInstance()
		l.start()
		web, db := app("web"), app("db")
		web.Links = []string{"db:store"}
		web.PortMappings = []acs.PortMapping{{ContainerPort: 80, Protocol: "tcp"}, {ContainerPortRange: "90-92", Protocol: "udp"}}
		db.PortMappings = []acs.PortMapping{{ContainerPort: 5432, HostPort: 5432, Protocol: "tcp"}}
		db.Environment = map[string]string{"NAME": "x"}
		l.apply(bridged("bridge"), web, db)
		l.expect("task RUNNING, web RUNNING tcp 80:32768 udp 90-92:32769-32771, db RUNNING tcp 5432:5432")
		s, _ := l.rt.Spec(l.id("web"))
		if s.NetNS != "/bridge/"+l.id("web") {
			t.Errorf("the container is in %q", s.NetNS)
		}
		if want := "nameserver 10.0.0.2\nsearch ec2.internal\n"; string(s.ResolvConf) != want {
			t.Errorf("resolv.conf is %q, want the instance's", s.ResolvConf)
		}
		if want := "172.17.0.2 store db "; !strings.Contains(string(s.Hosts), want) {
			t.Errorf("hosts is %q; it lacks %q", s.Hosts, want)
		}
		if want := "172.17.0.3 " + s.Hostname + "\n"; !strings.Contains(string(s.Hosts), want) || len(s.Hostname) != 12 {
			t.Errorf("hosts is %q; it lacks %q", s.Hosts, want)
		}
		for _, want := range []string{"STORE_NAME=/web/store", "STORE_PORT=tcp://172.17.0.2:5432", "STORE_PORT_5432_TCP_ADDR=172.17.0.2", "STORE_ENV_NAME=x"} {
			if !slices.Contains(s.Env, want) {
				t.Errorf("the environment lacks %s: %v", want, s.Env)
			}
		}
		// Another agent finds the containers where they are.
		l.stop()
		p.ends["stray"] = &bridge.Endpoint{ID: "stray"}
		l.start()
		l.expect()
		if p.ends["stray"] != nil || len(p.ends) != 2 {
			t.Errorf("after a restart the places are %v", p.ends)
		}
		l.engine.Stop(taskARN)
		l.expect("task STOPPED, web STOPPED 143, db STOPPED 143")
		if len(p.ends) != 0 {
			t.Errorf("the task is told to have stopped and has %v", p.ends)
		}
		l.stop()
	})
}

func TestPortIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		p := l.onInstance()
		p.err = fmt.Errorf("Bind for 0.0.0.0:80 failed: port is already allocated: %w", bridge.ErrPort)
		l.start()
		c := app("app")
		c.PortMappings = []acs.PortMapping{{ContainerPort: 80, HostPort: 80, Protocol: "tcp"}}
		l.apply(bridged(""), c)
		synctest.Wait()
		l.mu.Lock()
		told := strings.Join(l.told, "; ")
		l.mu.Unlock()
		if !strings.Contains(told, "app STOPPED (CannotStartContainerError: Error response from daemon: driver failed programming external connectivity") ||
			!strings.Contains(told, "Bind for 0.0.0.0:80 failed: port is already allocated") {
			t.Errorf("told: %s", told)
		}
		l.stop()
	})
}

func TestHostMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.onInstance()
		l.start()
		l.apply(func(d *acs.Task) {
			bridged("host")(d)
			d.PidMode, d.IpcMode = "host", "host"
		}, app("app"))
		l.expect("task RUNNING, app RUNNING")
		s, _ := l.rt.Spec(l.id("app"))
		// The instance's, never the machine's.
		if s.NetNS != "/instance/net" || s.PIDMode != "/instance/pid" || s.IPCMode != "/instance/ipc" || s.Hostname != "ip-10-0-0-7" {
			t.Errorf("net %q, pid %q, ipc %q, host name %q", s.NetNS, s.PIDMode, s.IPCMode, s.Hostname)
		}
		l.engine.Stop(taskARN)
		l.expect("task STOPPED, app STOPPED 143")
		l.stop()
	})
}

// What would make a container a part of the machine is refused.
func TestNothingOfTheMachine(t *testing.T) {
	privileged := app("app")
	privileged.DockerConfig = &acs.DockerConfig{HostConfig: `{"Privileged":true}`}
	device := app("app")
	device.DockerConfig = &acs.DockerConfig{HostConfig: `{"Devices":[{"PathOnHost":"/dev/kmsg","PathInContainer":"/dev/kmsg","CgroupPermissions":"rwm"}]}`}
	for _, c := range []struct {
		name      string
		instance  bool
		change    func(*acs.Task)
		container acs.Container
		want      string
	}{
		{"privileged", true, bridged("host"), privileged, "privileged"},
		{"privileged in Fargate", false, nil, privileged, "privileged"},
		{"device", true, bridged("bridge"), device, "/dev/kmsg"},
		{"host network in Fargate", false, bridged("host"), app("app"), `network mode "host"`},
		{"bridge in Fargate", false, bridged("bridge"), app("app"), `network mode "bridge"`},
		{"pids of the machine", false, func(d *acs.Task) { d.PidMode = "host" }, app("app"), "pidMode host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				if c.instance {
					l.onInstance()
				}
				l.start()
				l.apply(c.change, c.container)
				synctest.Wait()
				l.mu.Lock()
				told := strings.Join(l.told, "; ")
				l.mu.Unlock()
				if !strings.Contains(told, c.want) || !strings.Contains(told, "task STOPPED") || strings.Contains(told, "RUNNING") {
					t.Errorf("told %q, want a refusal of %s", told, c.want)
				}
				l.stop()
			})
		})
	}
}

// However an instance lays its links, a path of it never leads to the machine.
func TestChroot(t *testing.T) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		t.Fatal(err)
	}
	machine := t.TempDir()
	root := filepath.Join(machine, "root")
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(machine, "secret/key"), "the machine's")
	write(filepath.Join(root, "secret/key"), "the instance's")
	write(filepath.Join(root, "file"), "the instance's")
	for link, to := range map[string]string{"absolute": "/secret", "relative": "../../secret", "out": filepath.Join(machine, "secret"), "magic": "/proc/1/root"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	c := Chroot{Dir: root, Mounts: filepath.Join(machine, "mounts")}
	t.Cleanup(func() {
		if err := c.Release("task"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(machine, "mounts", "task")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("mounts are left: %v", err)
		}
	})
	for _, path := range []string{"/secret/key", "/absolute/key", "/relative/key", "relative/../relative/key", "/../../secret/key"} {
		at, err := c.Path("task", path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if b, err := os.ReadFile(at); string(b) != "the instance's" {
			t.Errorf("%s leads to %q, %v", path, b, err)
		}
	}
	for _, path := range []string{"/out/key", "/magic/etc"} {
		if at, err := c.Path("task", path); err == nil {
			if b, _ := os.ReadFile(at); string(b) == "the machine's" {
				t.Errorf("%s leads to the machine", path)
			}
		}
	}
	// What is missing is made, in the instance.
	at, err := c.Path("task", "/var/lib/new")
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(at, "x"), "y")
	if _, err := os.Stat(filepath.Join(root, "var/lib/new/x")); err != nil {
		t.Error(err)
	}
	// A link that is laid after a path was found changes nothing of it.
	if at, err = c.Path("task", "/var/lib/new"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(filepath.Join(root, "var/lib/new"), filepath.Join(root, "var/lib/old")), os.Symlink(filepath.Join(machine, "secret"), filepath.Join(root, "var/lib/new"))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(at, "x")); err != nil {
		t.Errorf("what was found is another now: %v", err)
	}
}

func FuzzPortRange(f *testing.F) {
	f.Add("80-90")
	f.Add("-")
	f.Fuzz(func(t *testing.T, s string) {
		first, last, err := portRange(s)
		if err == nil && (first == 0 || first > last) {
			t.Errorf("%q is %d to %d", s, first, last)
		}
	})
}
