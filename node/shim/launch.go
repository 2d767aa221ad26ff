package shim

import (
	"os/exec"

	runc "github.com/containerd/go-runc"

	"github.com/berth-run/berth/node/oci"
)

// launcher starts the OCI runtime the way it needs (package oci).
type launcher struct{ runc.ProcessMonitor }

func (l launcher) Start(c *exec.Cmd) (chan runc.Exit, error) {
	return launch(c, l.ProcessMonitor.Start)
}

func (l launcher) StartLocked(c *exec.Cmd) (chan runc.Exit, error) {
	return launch(c, l.ProcessMonitor.StartLocked)
}

// starter is the shim's for as long as there is a shim.
var starter oci.Launcher

func launch(c *exec.Cmd, start func(*exec.Cmd) (chan runc.Exit, error)) (exits chan runc.Exit, err error) {
	program := c.Path
	c.Path = starter.Sealed(program)
	err = starter.Start(program, func() (err error) {
		exits, err = start(c)
		return err
	})
	return exits, err
}
