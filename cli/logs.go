package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// LogRoles are the processes that have a log.
var LogRoles = []string{"up", "server", "node", "agent", "containerd"}

// LogFile is where a process of the region on dataDir writes its log.
func LogFile(dataDir, role string) string { return filepath.Join(dataDir, "logs", role+".log") }

func (a *app) logs() *cobra.Command {
	var follow bool
	var tail int
	c := &cobra.Command{
		Use:       "logs [up|server|node|agent|containerd]",
		Short:     "Show what the region's processes log",
		ValidArgs: LogRoles,
		Args: func(c *cobra.Command, args []string) error {
			return asUsage(cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)(c, args))
		},
		RunE: func(c *cobra.Command, args []string) error {
			roles := LogRoles
			if len(args) == 1 {
				roles = args
			}
			if tail < 0 {
				return usage{errors.New("--tail: a number of lines cannot be negative")}
			}
			err := a.showLogs(c.Context(), roles, tail, follow)
			if errors.Is(err, fs.ErrNotExist) {
				return WithHint(fmt.Errorf("no region has logged on %s", a.dataDir), a.command("up --detach")+" starts one.")
			}
			return a.needRoot(err, "logs")
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as more is logged")
	c.Flags().IntVarP(&tail, "tail", "n", 200, "number of lines to begin with")
	return c
}

// logFile is one log as far as it has been shown.
type logFile struct {
	role, path string
	f          *os.File
	part       []byte // a line whose end is not written yet
}

func (a *app) showLogs(ctx context.Context, roles []string, tail int, follow bool) error {
	dir := filepath.Dir(LogFile(a.dataDir, ""))
	var w *watch
	if follow {
		// Watched before it is read, so that nothing falls in between.
		var err error
		if w, err = watchDir(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		defer w.close()
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	var files []*logFile
	defer func() {
		for _, l := range files {
			l.close()
		}
	}()
	var lines []logLine
	for _, role := range roles {
		l := &logFile{role: role, path: LogFile(a.dataDir, role)}
		files = append(files, l)
		got, err := l.read()
		if err != nil {
			return err
		}
		lines = append(lines, got...)
	}
	lines = merge(lines)
	for _, l := range lines[max(0, len(lines)-tail):] {
		a.logLine(l, len(roles) > 1)
	}
	if !follow {
		return nil
	}
	for {
		if err := w.wait(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, l := range files {
			got, err := l.read()
			if err != nil {
				return err
			}
			for _, line := range got {
				a.logLine(line, len(roles) > 1)
			}
		}
	}
}

type logLine struct{ role, text, at string }

func (a *app) logLine(l logLine, named bool) {
	text := l.text
	switch {
	case strings.Contains(text, "level=ERROR"), strings.Contains(text, "level=error"):
		text = a.out.red(text)
	case strings.Contains(text, "level=WARN"), strings.Contains(text, "level=warn"):
		text = a.out.yellow(text)
	}
	if named {
		a.out.printf("%s %s\n", a.out.dim(fmt.Sprintf("%-10s│", l.role)), text)
	} else {
		a.out.printf("%s\n", text)
	}
}

// merge puts lines in the order of their times. A line without one belongs to
// the line before it.
func merge(lines []logLine) []logLine {
	at, role := "", ""
	for i := range lines {
		if lines[i].role != role {
			at, role = "", lines[i].role
		}
		if t := lineTime(lines[i].text); t != "" {
			at = t
		}
		lines[i].at = at
	}
	slices.SortStableFunc(lines, func(a, b logLine) int { return strings.Compare(a.at, b.at) })
	return lines
}

// lineTime is the time of a line in logfmt, up to the second: what follows is
// written with different precision by different processes.
func lineTime(s string) string {
	s, ok := strings.CutPrefix(s, "time=")
	if !ok {
		return ""
	}
	s = strings.TrimPrefix(s, `"`)
	if len(s) < len("2006-01-02T15:04:05.000") {
		return ""
	}
	return s[:len("2006-01-02T15:04:05.000")]
}

// read returns the whole lines that were added since the last read. A log that
// was renamed away, as full logs are, is read to its end first.
func (l *logFile) read() (lines []logLine, err error) {
	for {
		if l.f == nil {
			if l.f, err = os.Open(l.path); errors.Is(err, fs.ErrNotExist) {
				return lines, nil
			} else if err != nil {
				return lines, err
			}
		}
		got, err := l.rest()
		lines = append(lines, got...)
		if err != nil {
			return lines, fmt.Errorf("read %s: %w", l.path, err)
		}
		same, err := l.current()
		if err != nil {
			return lines, err
		}
		if same {
			return lines, nil
		}
		l.close()
	}
}

func (l *logFile) rest() (lines []logLine, err error) {
	r := bufio.NewReader(l.f)
	for {
		b, err := r.ReadBytes('\n')
		l.part = append(l.part, b...)
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, logLine{role: l.role, text: string(bytes.TrimRight(l.part, "\r\n"))})
		l.part = nil
	}
}

// current reports whether the path still names the open file, at no less than
// what was read of it.
func (l *logFile) current() (bool, error) {
	mine, err := l.f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // until there is another
	}
	if err != nil {
		return false, err
	}
	at, err := l.f.Seek(0, io.SeekCurrent)
	return os.SameFile(mine, now) && now.Size() >= at, err
}

func (l *logFile) close() {
	if l.f != nil {
		l.f.Close()
		l.f, l.part = nil, nil
	}
}

// watch tells when something is written in a folder.
type watch struct{ f *os.File }

func watchDir(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &watch{os.NewFile(uintptr(fd), "inotify")}, nil
}

// wait returns when something was written since the last wait.
func (w *watch) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	var b [16 << 10]byte
	_, err := w.f.Read(b[:]) // what happened does not matter: every file is looked at
	return err
}

func (w *watch) close() { w.f.Close() }
