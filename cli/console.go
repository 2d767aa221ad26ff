package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// console writes text, coloured if a person looks at it.
type console struct {
	w      io.Writer
	colour bool
}

func newConsole(w io.Writer) *console {
	return &console{w, isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// printf ignores errors: there is nobody left to tell.
func (c *console) printf(format string, args ...any) { fmt.Fprintf(c.w, format, args...) }

func (c *console) paint(code, s string) string {
	if !c.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (c *console) red(s string) string    { return c.paint("31", s) }
func (c *console) green(s string) string  { return c.paint("32", s) }
func (c *console) yellow(s string) string { return c.paint("33", s) }
func (c *console) dim(s string) string    { return c.paint("2", s) }
func (c *console) bold(s string) string   { return c.paint("1", s) }

// progress returns a func that prints a line with the time since now.
func (c *console) progress() func(string) {
	start := time.Now()
	return func(s string) { c.printf("%s %s\n", c.dim(fmt.Sprintf("%6.1fs", time.Since(start).Seconds())), s) }
}

// seconds writes a short time as a person says it.
func seconds(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f d", d.Hours()/24)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
