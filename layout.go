package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// layout is where a region keeps what on its machine. Everything follows from
// the data directory, so that any command finds a region with nothing else.
type layout struct{ data string }

func newLayout(dir string) (layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, fmt.Errorf("data directory: %w", err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return layout{abs}, nil
}

// shortID marks everything that the region puts into the kernel.
func (l layout) shortID() string {
	sum := sha256.Sum256([]byte(l.data))
	return hex.EncodeToString(sum[:3])
}

// run holds sockets and namespaces: paths that must be short and do not outlive a reboot.
func (l layout) run() string { return filepath.Join("/run/berth", l.shortID()) }

// ended is a file that says that no task of the region runs on this machine, and
// that the server has not heard of that.
func (l layout) ended() string { return filepath.Join(l.run(), "ended") }

// begin makes the run directory. If there was none, `berth down` or the end of
// the machine took it away, and the tasks with it.
func (l layout) begin() error {
	if err := os.MkdirAll(filepath.Dir(l.run()), 0o711); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	err := os.Mkdir(l.run(), 0o711)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.WriteFile(l.ended(), nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	return nil
}

func (l layout) socket() string     { return filepath.Join(l.run(), "server.sock") }
func (l layout) etcd() string       { return filepath.Join(l.data, "etcd") }
func (l layout) tls() string        { return filepath.Join(l.data, "tls") }
func (l layout) registry() string   { return filepath.Join(l.data, "registry") }
func (l layout) events() string     { return filepath.Join(l.data, "events") }
func (l layout) logs() string       { return filepath.Join(l.data, "logs") }
func (l layout) node() string       { return filepath.Join(l.data, "node") }
func (l layout) sessionKey() string { return filepath.Join(l.data, "session.key") }
func (l layout) settings() string   { return filepath.Join(l.data, "region.json") }

// settings are what the region was started with. They outlive it, so that
// `berth up` alone starts the same region again.
type settings struct {
	Listen  string `json:"listen"`
	Region  string `json:"region"`
	Account string `json:"account"`
	// Throttle is how often an account may call, as the user said it; "" is the default.
	Throttle string `json:"throttle,omitempty"`
}

func (l layout) load() (s settings, ok bool, err error) {
	b, err := os.ReadFile(l.settings())
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("region settings: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, false, fmt.Errorf("region settings %s: %w", l.settings(), err)
	}
	return s, true, nil
}

func (l layout) save(s settings) error {
	if err := os.MkdirAll(l.data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.settings() + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("region settings: %w", err)
	}
	return os.Rename(tmp, l.settings())
}

// remove deletes what a region made in its data directory, and the directory
// if nothing else is in it: it may have been somebody's before.
func (l layout) remove() error {
	own := []string{l.etcd(), l.sessionKey(), l.tls(), l.registry(), l.events(), l.logs(), l.node(), l.settings() + ".new"}
	// The settings go last: with them it is still seen whose the directory is.
	for _, path := range append(own, l.settings()) {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove data: %w", err)
		}
	}
	_ = os.Remove(l.data) // fails if it is not empty, as it should
	return nil
}
