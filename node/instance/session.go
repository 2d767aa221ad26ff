package instance

import (
	"errors"
	"fmt"
	"strings"

	"github.com/berth-run/berth/agent/runtime"
)

// shellUser is who sits at terminals of instances that have such a user.
const shellUser = "ssm-user"

// shell is a login shell: bash where there is one.
const shell = `cd 2>/dev/null || cd /; if [ -x /bin/bash ]; then exec /bin/bash -l; fi; exec /bin/sh -l`

// Shell is where an instance runs, and the process that is a terminal's there:
// a shell, or a command of a shell.
func (m *Manager) Shell(id string, command []string) (Place, runtime.Exec, error) {
	m.mu.Lock()
	i := m.instances[id]
	m.mu.Unlock()
	if i == nil {
		return Place{}, runtime.Exec{}, fmt.Errorf("instance %s is not here", id)
	}
	i.mu.Lock()
	up, pid := i.up, i.rec.Pid
	i.mu.Unlock()
	if !up {
		return Place{}, runtime.Exec{}, fmt.Errorf("instance %s does not run", id)
	}
	e := runtime.Exec{Args: command, User: "0:0", WorkingDir: "/", Env: []string{"TERM=xterm-256color"}}
	if len(command) == 0 {
		e.Args = []string{"/bin/sh", "-c", shell}
	}
	name, home := "root", "/root"
	passwd, err := ReadIn(pid, "etc/passwd", 1<<20)
	if err == nil {
		if user, at, ok := account(string(passwd), shellUser); ok {
			e.User, name, home = user, shellUser, at
		}
	}
	e.Env = append(e.Env, "HOME="+home, "USER="+name, "LOGNAME="+name)
	return m.machine(), e, nil
}

// account finds the numbers and the home of a user.
func account(passwd, name string) (numbers, home string, ok bool) {
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) >= 6 && f[0] == name && digits(f[2]) && digits(f[3]) {
			return f[2] + ":" + f[3], f[5], true
		}
	}
	return "", "", false
}

func digits(s string) bool { return s != "" && len(s) < 10 && strings.Trim(s, "0123456789") == "" }

// Tasks is where the containers of tasks on an instance run.
func (m *Manager) Tasks(id string) (Place, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.instances[id] == nil {
		return Place{}, errors.New("instance " + id + " is not here")
	}
	return m.tasks(id), nil
}

// Places are where containers run of the instances that are known.
func (m *Manager) Places() []Place {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []Place{m.machine()}
	for id := range m.instances {
		out = append(out, m.tasks(id))
	}
	return out
}
