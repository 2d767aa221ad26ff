package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/test/lab"
)

// plugin builds AWS's session-manager-plugin, which the CLI calls, and answers
// the folder that it is in.
var plugin = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(binary), "plugin")
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "session-manager-plugin"), "github.com/aws/session-manager-plugin/src/sessionmanagerplugin-main")
	cmd.Dir = "../../tools/plugin"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the session-manager-plugin: %w: %s", err, out)
	}
	return dir, nil
})

// A tty is a command of the CLI that somebody sits at.
type tty struct {
	t    *testing.T
	f    *os.File // the terminal's other side
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu   sync.Mutex
	said bytes.Buffer
	more chan struct{}
}

// sit runs an aws command at a terminal.
func (w *world) sit(t *testing.T, who lab.Identity, args ...string) *tty {
	t.Helper()
	dir, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	var failed error
	err = c.Control(func(fd uintptr) {
		n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		failed = errors.Join(failed, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0),
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111}))
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close()
	line, err := who.AWS(args...)
	if err != nil {
		t.Fatal(err)
	}
	s := &tty{t: t, f: f, cmd: exec.Command(line[0], line[1:]...), done: make(chan struct{}), more: make(chan struct{}, 1)}
	s.cmd.Env = append(who.Env(), "PATH="+dir+":"+os.Getenv("PATH"), "TERM=xterm")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = side, side, side
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		s.err = s.cmd.Wait()
		close(s.done)
	})
	both.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			s.mu.Lock()
			s.said.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		select {
		case <-s.done:
		default:
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		}
		<-s.done
		f.Close()
		both.Wait()
	})
	return s
}

func (s *tty) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

// hear waits until the terminal has said something since the last call.
func (s *tty) hear(want string) string {
	s.t.Helper()
	ctx := deadline(s.t)
	for {
		s.mu.Lock()
		before, _, ok := strings.Cut(s.said.String(), want)
		if ok {
			s.said.Next(len(before) + len(want))
			s.mu.Unlock()
			return before
		}
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-ctx.Done():
			s.t.Fatalf("the terminal says %q, want %q", s.text(), want)
		}
	}
}

func (s *tty) say(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.f, line); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits until the command has ended.
func (s *tty) ends() {
	s.t.Helper()
	select {
	case <-s.done:
	case <-deadline(s.t).Done():
		s.t.Fatalf("the command does not end; it says %q", s.text())
	}
}

const execPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*",
	"Action":["ssmmessages:CreateControlChannel","ssmmessages:CreateDataChannel","ssmmessages:OpenControlChannel","ssmmessages:OpenDataChannel"]}]}`

// Who may gets into a container that runs, sees what it sees, changes what it
// serves, and leaves nothing behind.
func TestExecuteCommand(t *testing.T) {
	t.Parallel()
	w := shared
	role := call[iam.CreateRoleOutput](t, w, lab.IAM, "CreateRole", &iam.CreateRoleInput{RoleName: new("exec-me"), AssumeRolePolicyDocument: new(trustTasks)})
	define := func() string {
		return w.define(t, &ecs.RegisterTaskDefinitionInput{TaskRoleArn: role.Role.Arn, ContainerDefinitions: []ecs.ContainerDefinition{w.box("web", "write", "/page", "before", "serve", "80")}})
	}
	k := w.startWith(t, &ecs.RunTaskInput{TaskDefinition: new(define()), NetworkConfiguration: w.network(), EnableExecuteCommand: new(true)})
	k.wait("RUNNING")
	refused(t, w.Root, lab.ECS, "ExecuteCommand", &ecs.ExecuteCommandInput{Task: &k.arn, Command: new("/box talk"), Interactive: new(true)},
		"TargetNotConnectedException", "The execute command failed due to an internal error. Try again later.")
	call[iam.PutRolePolicyOutput](t, w, lab.IAM, "PutRolePolicy", &iam.PutRolePolicyInput{RoleName: new("exec-me"), PolicyName: new("in"), PolicyDocument: new(execPolicy)})
	if a := k.describe().Containers[0].ManagedAgents; len(a) != 1 || *a[0].LastStatus != "RUNNING" {
		t.Errorf("agents: %s", show(a))
	}
	s := w.sit(t, w.Root, "ecs", "execute-command", "--task", k.id(), "--container", "web", "--interactive", "--command", "/box talk")
	s.hear("box> ")
	s.say("cat /page\r")
	if got := s.hear("box> "); !strings.Contains(got, "before") {
		t.Errorf("the page in the container: %q", got)
	}
	s.say("write /page after\r")
	s.hear("box> ")
	if got := k.page("/cat", "path", "/page"); strings.TrimSpace(got) != "after" {
		t.Errorf("the page: %q", got)
	}
	err := lab.Until(deadline(t), func(context.Context) (bool, error) { // the client says its size now and then
		s.say("size\r")
		return strings.Contains(s.hear("box> "), "111 columns, 33 rows"), nil
	})
	if err != nil {
		t.Errorf("size of the terminal: %v", err)
	}
	s.say("lines 2000\r")
	if got := s.hear("line 2000"); strings.Count(got, "line ") != 1999 {
		t.Errorf("%d lines before the last of 2000", strings.Count(got, "line "))
	}
	s.say("exit 0\r")
	s.hear("Exiting session with sessionId: ecs-execute-command-")
	s.ends()
	if s.err != nil {
		t.Errorf("the CLI: %v", s.err)
	}
	// A second one is ended by the task's end.
	s = w.sit(t, w.Root, "ecs", "execute-command", "--task", k.id(), "--interactive", "--command", "/box talk")
	s.hear("box> ")
	k.stop("")
	s.ends()
	none := w.sit(t, w.Root, "ecs", "execute-command", "--task", k.id(), "--interactive", "--command", "/box talk")
	none.ends()
	if none.err == nil || !strings.Contains(none.text(), "isn't running") && !strings.Contains(none.text(), "not connected") {
		t.Errorf("in a task that ended: %v: %s", none.err, none.text())
	}
	w.until(t, "0", "ssm", "describe-sessions", "--state", "Active", "--query", "length(Sessions[?contains(Target,'"+k.id()+"')])")
	w.until(t, "2", "ssm", "describe-sessions", "--state", "History", "--query", "length(Sessions[?contains(Target,'"+k.id()+"')])")
}

// A shell in an instance: for whom its role lets in, until it is left or ended.
func TestStartSession(t *testing.T) {
	w := fresh(t)
	w.profile(t, "machines", "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
	id := w.launch(t, "#!/bin/bash\necho 'ssm-user:x:1001:1001::/home/ssm-user:/bin/bash' >> /etc/passwd\necho page > /root/page\necho [end]\n", "--iam-instance-profile", "Name=machines")
	w.consoleHas(t, id, "[end]", 1)
	w.until(t, "Online", "ssm", "describe-instance-information", "--query", "InstanceInformationList[?InstanceId=='"+id+"'].PingStatus")
	s := w.sit(t, w.Root, "ssm", "start-session", "--target", id)
	s.hear("Starting session with SessionId: root-")
	s.say("echo I am $(id -u), shell $0, in $(hostname); tty\r")
	if got := s.hear("/dev/pts/"); !strings.Contains(got, "I am 1001, shell ") || !strings.Contains(got, "in ip-") {
		t.Errorf("the shell says %q", got)
	}
	session := w.aws(t, "ssm", "describe-sessions", "--state", "Active", "--query", "Sessions[0].SessionId", "--output", "text")
	w.aws(t, "ssm", "terminate-session", "--session-id", session)
	s.hear("Exiting session with sessionId: " + session)
	s.ends()
	s = w.sit(t, w.Root, "ssm", "start-session", "--target", id, "--document-name", "AWS-StartInteractiveCommand", "--parameters", `command=["echo it is $((6*7))"]`)
	s.hear("it is 42")
	s.ends()
	// Nobody is left in it.
	s = w.sit(t, w.Root, "ssm", "start-session", "--target", id)
	s.hear("Starting session")
	s.say("ps -e -o comm= > /tmp/ps; echo shells: $(grep -c '^bash$' /tmp/ps) .\r")
	s.hear("shells: 1 .")
	s.say("exit\r")
	s.ends()
	for document, want := range map[string]string{"AWS-StartPortForwardingSession": "not supported", "Some-Document": "does not exist"} {
		if _, err := w.Root.Exec(deadline(t), "ssm", "start-session", "--target", id, "--document-name", document); err == nil || !strings.Contains(err.Error(), "InvalidDocument") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", document, err)
		}
	}
	w.aws(t, "iam", "detach-role-policy", "--role-name", "machines", "--policy-arn", "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore")
	if _, err := w.Root.Exec(deadline(t), "ssm", "start-session", "--target", id); err == nil || !strings.Contains(err.Error(), "(TargetNotConnected) when calling the StartSession operation: "+id+" is not connected.") {
		t.Errorf("without permissions: %v", err)
	}
	w.aws(t, "ec2", "terminate-instances", "--instance-ids", id)
	w.instanceIs(t, id, "terminated")
}
