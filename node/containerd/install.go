package containerd

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// slim is the program of node/shim/slim. The file in the repository is empty:
// `make build` has the compiler take another in its place (go build -overlay),
// so that what is built without has none and never an old one.
//
//go:embed shim.gz
var slim []byte

// installShim puts the shim at path: the slim program, or, if there is none,
// this binary. Replacing it leaves shims that run untouched; they keep the file
// they were started from.
func installShim(path string, slim []byte) error {
	if len(slim) > 0 {
		return installSlim(path, slim)
	}
	return InstallSelf(path)
}

// installSlim unpacks the program, unless that is what was unpacked last. A
// file beside it says what that was; it goes before the program is replaced and
// comes afterwards.
func installSlim(path string, slim []byte) error {
	sum := sha256.Sum256(slim)
	want := hex.EncodeToString(sum[:])
	note := path + ".sum"
	if have, err := os.ReadFile(note); err == nil && string(have) == want {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	program, err := gzip.NewReader(bytes.NewReader(slim))
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if err := remove(note); err != nil {
		return err
	}
	if err := replace(path, program); err != nil {
		return err
	}
	return replace(note, bytes.NewReader([]byte(want)))
}

// InstallSelf puts this binary at path: a hard link, or, on another file system,
// a copy. A symbolic
// link would not do, for the shim executes itself again by its resolved path.
func InstallSelf(path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	have, err := os.Stat(path)
	if err == nil {
		want, err := os.Stat(self)
		if err == nil && os.SameFile(have, want) {
			return nil
		}
	}
	if err := remove(path + ".sum"); err != nil {
		return err
	}
	next := path + ".new"
	if err := remove(next); err != nil {
		return err
	}
	if err := os.Link(self, next); err == nil {
		return os.Rename(next, path)
	}
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	return replace(path, in)
}

// replace makes path a program with that content. Nobody sees a part of it.
func replace(path string, content io.Reader) error {
	next := path + ".new"
	if err := remove(next); err != nil {
		return err
	}
	out, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
