package netns

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAwait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "eni-1.ready")
	done := make(chan error)
	go func() { done <- Await(t.Context(), path) }()
	// Neighbours do not matter.
	os.WriteFile(filepath.Join(filepath.Dir(path), "eni-2.ready"), nil, 0o600)
	os.WriteFile(path, nil, 0o600)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Await(t.Context(), path); err != nil {
		t.Errorf("of a file that is there: %v", err)
	}
}

func TestAwaitEnds(t *testing.T) {
	cause := errors.New("too long")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- Await(ctx, filepath.Join(t.TempDir(), "x")) }()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if err := Await(t.Context(), "/nonexistent/folder/x"); err == nil {
		t.Error("waits in a folder that is not there")
	}
}

// The listener is in the other namespace, and this process is not.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ns")
	made := make(chan error)
	go func() {
		// The namespace lives as long as its mount.
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			addr, _ := netlink.ParseAddr("169.254.170.2/32")
			if err := errors.Join(netlink.AddrAdd(lo, addr), netlink.LinkSetUp(lo), os.WriteFile(path, nil, 0o600)); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	l, err := Listen(t.Context(), path, "169.254.170.2:80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path, "169.254.170.2:80"); err == nil {
		t.Error("listens twice")
	}
	l.Close()
	// A new agent listens where the old one did.
	l, err = Listen(t.Context(), path, "169.254.170.2:80")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Listen(t.Context(), filepath.Join(t.TempDir(), "none"), "169.254.170.2:80"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a namespace: %v", err)
	}
}

// A file alone is no namespace.
func TestAwaitNamespace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ns")
	done := make(chan error)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { done <- AwaitNamespace(ctx, path) }()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("returned for a file: %v", err)
	default:
	}
	if err := unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
