package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// checkpoints keeps one file per task, replaced as a whole at every change.
// Files are not synced to disk: a checkpoint has to survive the agent, not
// the machine, because what it describes does not survive the machine.
type checkpoints struct{ dir string }

var seed = maphash.MakeSeed()

// save writes the task's file, unless it has the given sum already, and
// answers the sum it has now.
func (k checkpoints) save(t *Task, last uint64) (uint64, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return last, fmt.Errorf("encode checkpoint: %w", err)
	}
	sum := maphash.Bytes(seed, b)
	if sum == last {
		return last, nil
	}
	if err := replace(k.path(t.ID()), b); err != nil {
		return last, fmt.Errorf("write checkpoint: %w", err)
	}
	return sum, nil
}

// replace writes a file so that a reader sees the old or the new one. The two
// take turns: making a file anew each time, and freeing the last one, was the
// most that the agent did for a task on some file systems.
func replace(path string, b []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Truncate(int64(len(b))), f.Close()); err != nil {
		return err
	}
	if unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE) == nil {
		return nil
	}
	// There is none yet, or the file system cannot.
	return os.Rename(next, path)
}

func (k checkpoints) path(id string) string { return filepath.Join(k.dir, id+".json") }

// remove removes the task's file.
func (k checkpoints) remove(id string) error {
	for _, path := range []string{k.path(id), k.path(id) + ".new"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove checkpoint: %w", err)
		}
	}
	return nil
}

// load reads all tasks. Files that cannot be read are answered by name: they
// are somebody's to look at and must not hide the others.
func (k checkpoints) load() (tasks []*Task, broken []error, err error) {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make checkpoint folder: %w", err)
	}
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read checkpoint folder: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".new") {
			os.Remove(filepath.Join(k.dir, name)) // what is there besides is whole, and the latest
			continue
		}
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(k.dir, name))
		t := new(Task)
		if err == nil {
			err = decodeTask(b, t)
		}
		if err == nil && t.ID()+".json" != name {
			err = fmt.Errorf("it is of task %s", t.ID())
		}
		if err != nil {
			broken = append(broken, fmt.Errorf("checkpoint %s: %w", name, err))
			continue
		}
		tasks = append(tasks, t)
	}
	return tasks, broken, nil
}

func decodeTask(b []byte, t *Task) error {
	if err := json.Unmarshal(b, t); err != nil {
		return err
	}
	for _, c := range t.Containers {
		if c == nil {
			return errors.New("a container is null")
		}
	}
	if t.Def.Arn == "" {
		return errors.New("it names no task")
	}
	return nil
}
