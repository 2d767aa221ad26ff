// Command tiny is all that is in the tests' image: a static program that does
// what its arguments say, one after the other.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// size is that of the terminal at stdin, "rowsxcolumns".
func size() string {
	var ws struct{ rows, columns, x, y uint16 }
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&ws))); errno != 0 {
		return errno.Error()
	}
	return fmt.Sprintf("%dx%d", ws.rows, ws.columns)
}

func main() {
	if filepath.Base(os.Args[0]) == "child" {
		return
	}
	args := os.Args[1:]
	next := func() string {
		if len(args) == 0 {
			fatal("argument missing")
		}
		a := args[0]
		args = args[1:]
		return a
	}
	for len(args) > 0 {
		switch op := next(); op {
		case "out":
			fmt.Println(next())
		case "err":
			fmt.Fprintln(os.Stderr, next())
		case "exit":
			n, _ := strconv.Atoi(next())
			os.Exit(n)
		case "wait": // for SIGTERM or SIGUSR1, whose number it exits with
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1)
			fmt.Println("waiting")
			os.Exit(int((<-c).(syscall.Signal)))
		case "stubborn": // ignores SIGTERM
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			fmt.Println("waiting")
			for range c {
			}
		case "echo": // says each line again with the terminal's size, until "exit"
			in := bufio.NewScanner(os.Stdin)
			for in.Scan() && in.Text() != "exit" {
				fmt.Println(size(), in.Text())
			}
			os.Exit(7)
		case "lines": // counts, one line each few milliseconds
			n, _ := strconv.Atoi(next())
			for i := range n {
				fmt.Println("line", i)
				time.Sleep(5 * time.Millisecond)
			}
		case "flood": // n bytes at once
			n, _ := strconv.Atoi(next())
			io.CopyN(os.Stdout, zeros{}, int64(n))
		case "alloc":
			n, _ := strconv.Atoi(next())
			b := make([]byte, n<<20)
			for i := range b {
				b[i] = byte(i >> 8)
			}
			fmt.Println("allocated", len(b))
		case "spin": // for so many milliseconds of the processor's
			n, _ := strconv.Atoi(next())
			for used := int64(0); used < int64(n)*1000; {
				var u syscall.Rusage
				must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
				used = u.Utime.Nano()/1000 + u.Stime.Nano()/1000
			}
		case "write":
			path := next()
			must(os.WriteFile(path, []byte(next()), 0o644))
		case "append":
			f, err := os.OpenFile(next(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			must(err)
			fmt.Fprint(f, next())
			must(f.Close())
		case "cat":
			b, err := os.ReadFile(next())
			must(err)
			os.Stdout.Write(b)
		case "try": // write to a path and tell how that went
			if err := os.WriteFile(next(), []byte("x"), 0o644); err != nil {
				fmt.Println(err.(*os.PathError).Err)
			} else {
				fmt.Println("written")
			}
		case "ls":
			entries, err := os.ReadDir(next())
			must(err)
			for _, e := range entries {
				fmt.Println(e.Name())
			}
		case "pids": // all process ids there are
			entries, err := os.ReadDir("/proc")
			must(err)
			n := 0
			for _, e := range entries {
				if _, err := strconv.Atoi(e.Name()); err == nil {
					n++
				}
			}
			fmt.Println(n)
		case "about":
			about()
		case "hold": // leave a child that holds stdout, and go
			p, err := os.StartProcess("/proc/self/exe", []string{"tiny", "sleep", next()}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
			must(err)
			p.Release()
		case "orphan": // a grandchild that ends as an orphan
			p, err := os.StartProcess("/proc/self/exe", []string{"tiny", "twice"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
			must(err)
			_, err = p.Wait()
			must(err)
		case "twice":
			p, err := os.StartProcess("/proc/self/exe", []string{"child"}, &os.ProcAttr{})
			must(err)
			p.Release()
			os.Exit(0)
		case "zombies":
			fmt.Println("zombies", zombies())
		case "sleep":
			n, _ := strconv.Atoi(next())
			time.Sleep(time.Duration(n) * time.Millisecond)
		default:
			fatal("unknown: " + op)
		}
	}
}

// about tells what a process can see of how it was made.
func about() {
	wd, _ := os.Getwd()
	host, _ := os.Hostname()
	groups, _ := os.Getgroups()
	var nofile syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &nofile)
	status := map[string]string{}
	b, _ := os.ReadFile("/proc/self/status")
	for _, l := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok {
			status[k] = strings.TrimSpace(v)
		}
	}
	var shm syscall.Statfs_t
	syscall.Statfs("/dev/shm", &shm)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"args": os.Args, "env": os.Environ(), "wd": wd, "host": host, "pid": os.Getpid(),
		"uid": os.Getuid(), "gid": os.Getgid(), "groups": groups, "nofile": nofile.Max,
		"capEff": status["CapEff"], "capBnd": status["CapBnd"], "seccomp": status["Seccomp"], "nnp": status["NoNewPrivs"],
		"shm": shm.Blocks * uint64(shm.Bsize),
	})
}

func zombies() int {
	n := 0
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if _, after, ok := strings.Cut(string(b), ") "); err == nil && ok && strings.HasPrefix(after, "Z") {
			n++
		}
	}
	return n
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func must(err error) {
	if err != nil {
		fatal(err.Error())
	}
}

func fatal(s string) {
	fmt.Fprintln(os.Stderr, s)
	os.Exit(99)
}
