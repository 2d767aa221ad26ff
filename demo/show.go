package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// show prints what happens, with the time since the start.
type show struct {
	w      io.Writer
	start  time.Time
	colour bool
}

func newShow(f *os.File) *show {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &show{f, time.Now(), err == nil && os.Getenv("NO_COLOR") == ""}
}

func (s *show) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *show) line(mark, format string, args []any) {
	at := s.paint("2", fmt.Sprintf("%6.1fs", time.Since(s.start).Seconds()))
	text := strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf(format, args...)), "\n", "\n          ")
	fmt.Fprintf(s.w, "%s %s %s\n", at, mark, text)
}

func (s *show) title(text string) { fmt.Fprintf(s.w, "\n%s\n", s.paint("1", text)) }

// doing says what is begun, done what is finished, refused what was rightly
// refused, and say prints a line to copy.
func (s *show) doing(format string, args ...any) { s.line(" ", format, args) }
func (s *show) done(format string, args ...any)  { s.line(s.paint("32", "✓"), format, args) }
func (s *show) refused(format string, args ...any) {
	s.line(s.paint("33", "✗"), format, args)
}
func (s *show) say(format string, args ...any) {
	fmt.Fprintf(s.w, "  %s\n", fmt.Sprintf(format, args...))
}

func (s *show) fail(err error) { s.line(s.paint("31", "✗"), "%v", []any{err}) }
