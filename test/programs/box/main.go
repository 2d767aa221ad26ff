// Command box is everything that runs inside the containers of the tests. Its
// arguments are steps, done one after the other, so that a task definition
// reads as what its container does:
//
//	box print hello exit 3
//	box write /shared/ready x serve 80
//
// It is static and needs nothing around it: the image holds this file alone.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() { steps(os.Args[1:]) }

func steps(args []string) {
	next := func() string {
		if len(args) == 0 {
			fail("a step lacks its argument")
		}
		a := args[0]
		args = args[1:]
		return a
	}
	number := func() int {
		n, err := strconv.Atoi(next())
		check(err)
		return n
	}
	for len(args) > 0 {
		switch step := next(); step {
		case "print":
			fmt.Println(next())
		case "eprint":
			fmt.Fprintln(os.Stderr, next())
		case "lines":
			for i := range number() {
				fmt.Printf("line %d\n", i+1)
			}
		case "env":
			fmt.Println(os.Getenv(next()))
		case "exit":
			os.Exit(number())
		case "sleep":
			d, err := time.ParseDuration(next())
			check(err)
			time.Sleep(d)
		case "term": // run until asked to end, and end well
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			fmt.Println("waiting")
			<-c
			fmt.Println("asked to end")
			os.Exit(0)
		case "stubborn": // run until killed
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGTERM)
			fmt.Println("waiting")
			for range c {
				fmt.Println("asked to end, but no")
			}
		case "alloc": // so many MiB, all of them touched
			alloc(number())
		case "write":
			path := next()
			check(os.WriteFile(path, []byte(next()), 0o644))
		case "append":
			f, err := os.OpenFile(next(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			check(err)
			_, err = f.WriteString(next())
			check(err)
			check(f.Close())
		case "cat":
			b, err := os.ReadFile(next())
			check(err)
			fmt.Println(string(b))
		case "exists": // a health check
			_, err := os.Stat(next())
			check(err)
		case "limit": // of open files; the runtime of Go has changed the soft one
			var l syscall.Rlimit
			check(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l))
			fmt.Printf("nofile %d\n", l.Max)
		case "space": // size and type of a file system
			path := next()
			var s syscall.Statfs_t
			check(syscall.Statfs(path, &s))
			fmt.Printf("%s %d %#x\n", path, int64(s.Blocks)*int64(s.Bsize), s.Type)
		case "listen": // serve beside what follows
			l, err := net.Listen("tcp", ":"+next())
			check(err)
			go func() { fail(http.Serve(l, pages()).Error()) }()
		case "dial": // says whether an address can be reached
			to := next()
			if err := dial(to, "700ms"); err != nil {
				fmt.Printf("%s: %v\n", to, err)
			} else {
				fmt.Printf("%s: reached\n", to)
			}
		case "talk": // do what lines of the input say, until one says no more
			for lines := bufio.NewScanner(os.Stdin); ; {
				fmt.Print("box> ")
				if !lines.Scan() {
					check(lines.Err())
					return
				}
				steps(strings.Fields(lines.Text()))
			}
		case "size": // of the terminal
			var size struct{ rows, columns, _, _ uint16 }
			_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
			if errno != 0 {
				fail(errno.Error())
			}
			fmt.Printf("%d columns, %d rows\n", size.columns, size.rows)
		case "serve":
			check(http.ListenAndServe(":"+next(), pages()))
		default:
			fail("no such step: " + step)
		}
	}
}

func alloc(mib int) {
	held = append(held, make([]byte, mib<<20))
	last := held[len(held)-1]
	for i := 0; i < len(last); i += 4096 {
		last[i] = 1
	}
	fmt.Printf("allocated %d MiB\n", mib)
}

// held keeps what was allocated from the collector.
var held [][]byte

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, "box:", why)
	os.Exit(99)
}
