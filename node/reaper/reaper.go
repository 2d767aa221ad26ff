// Package reaper makes this binary the init of a container that asks for one
// (linuxParameters.initProcessEnabled): started as "berth-init -- command",
// it runs the command as its child, forwards signals to it, reaps orphans, and
// exits as the command does.
//
// Like package node/shim it acts while packages are initialised, before most
// of the binary has cost the task anything. It must import only the standard
// library.
package reaper

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Name is the name under which this binary is an init.
const Name = "berth-init"

func init() {
	if len(os.Args) > 0 && filepath.Base(os.Args[0]) == Name {
		os.Exit(run(os.Args[1:]))
	}
}

func run(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, Name+": no command")
		return 127
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, Name+":", err)
		return 127
	}
	child, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, Name+":", err)
		return 126
	}
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			if code, ended := reap(child.Pid); ended {
				return code
			}
		case syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU:
			// SIGURG is the Go runtime's own; the others are about this
			// process.
		default:
			// An error means that the child has just ended; SIGCHLD follows.
			_ = child.Signal(s)
		}
	}
	return 0
}

// reap collects whatever has ended, and tells if the command was among it.
func reap(command int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != command {
			continue
		}
		ended, code = true, status.ExitStatus()
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
	}
}
