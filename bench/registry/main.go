// Command registry measures how fast layers are pushed to Berth's registry and
// pulled from it, side by side with the reference registry in the same run.
//
//	go run ./bench/registry [-mb 500] [-layers 5] [-rounds 5] [-pulls 32]
//
// The reference is the program registry, or docker-registry as Debian calls it,
// with its file-system storage; without it only Berth is measured. The client
// is the same for both and as light as can be: digests are known beforehand and
// what is pulled is thrown away. Each round pushes new random layers.
//
// Speeds are those of a machine on which nothing else runs. What the servers'
// own processors had to do for a gigabyte depends less on that, and is printed
// beside. In a virtual machine the first use of each page of memory may cost
// many times what writing to it costs, which would be all that pushes show: so
// before each of them more than it needs is written to a file and removed. Printed,
// too, is how long Berth's goroutines waited for locks during the pulls
// at once, all of them together.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func main() {
	mb := flag.Int("mb", 500, "megabytes per round")
	layers := flag.Int("layers", 5, "layers they are split into")
	rounds := flag.Int("rounds", 5, "rounds; the median counts")
	pulls := flag.Int("pulls", 32, "parallel pulls of one layer")
	flag.Parse()
	runtime.LockOSThread() // the servers die with the thread that started them
	if err := run(*mb, *layers, *rounds, *pulls); err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

// A target is a registry to measure.
type target struct {
	name, url, password string
	pid                 int
	stop                func()
	push, pull, many    speeds
}

// speeds are those of all rounds.
type speeds struct {
	mbs []float64 // MB/s
	cpu []float64 // seconds of the server's processors for each GB
}

func (s speeds) String() string {
	return fmt.Sprintf("%5.0f MB/s %5.2f CPU s/GB", median(s.mbs), median(s.cpu))
}

// add measures one step of so many bytes.
func (t *target) add(s *speeds, bytes float64, f func() error) error {
	cpu, err := processors(t.pid)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := f(); err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	after, err := processors(t.pid)
	if err != nil {
		return err
	}
	s.mbs = append(s.mbs, bytes/1e6/took)
	s.cpu = append(s.cpu, (after-cpu)/(bytes/1e9))
	return nil
}

// processors is how many seconds of processor time a process has had.
func processors(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	var user, system float64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		return 0, err
	}
	return (user + system) / 100, nil // USER_HZ
}

func run(mb, layers, rounds, pulls int) (err error) {
	// In a process of its own, as the reference is: a collector that is shared
	// with the client would measure the client.
	if dir := os.Getenv("BENCH_REGISTRY_SERVE"); dir != "" {
		return serve(dir)
	}
	dir, err := os.MkdirTemp("", "berth-bench-registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ours, err := startOurs(filepath.Join(dir, "berth"))
	if err != nil {
		return err
	}
	defer ours.stop()
	targets := []*target{ours}
	if path := reference(); path != "" {
		t, err := startReference(path, filepath.Join(dir, "reference"))
		if err != nil {
			return err
		}
		defer t.stop()
		targets = append(targets, t)
	} else {
		fmt.Println("no reference registry on PATH (Debian: docker-registry): no ratios")
	}
	size := mb << 20 / layers
	for r := range rounds {
		blobs := make([][]byte, layers)
		digests := make([]content.Digest, layers)
		for i := range blobs {
			blobs[i] = make([]byte, size)
			rand.Read(blobs[i])
			digests[i] = content.Sum(blobs[i])
		}
		// Who goes first changes, for the sake of the disk.
		order := slices.Clone(targets)
		if r%2 == 1 {
			slices.Reverse(order)
		}
		for _, t := range order {
			if err := touch(filepath.Join(dir, "touched"), 2*mb); err != nil {
				return err
			}
			if err := t.round(blobs, digests, pulls); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	for _, t := range targets {
		fmt.Printf("%-10s push %v   pull %v   %d pulls at once %v\n", t.name, t.push, t.pull, pulls, t.many)
	}
	if len(targets) == 2 {
		a, b := targets[0], targets[1]
		fmt.Print("ratio     ")
		for _, r := range []struct {
			what string
			a, b speeds
		}{{"push", a.push, b.push}, {"pull", a.pull, b.pull}, {fmt.Sprint(pulls, " pulls at once"), a.many, b.many}} {
			fmt.Printf(" %s %.2fx, CPU %.2fx  ", r.what, median(r.a.mbs)/median(r.b.mbs), median(r.b.cpu)/median(r.a.cpu))
		}
		fmt.Println()
	}
	res, err := http.Get(ours.url + waitPath)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	wait, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	fmt.Printf("berth      waited %s s for locks in all\n", wait)
	return nil
}

// touch makes the machine have the memory for so many megabytes of files.
func touch(path string, mb int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	b := make([]byte, 1<<20)
	for range mb {
		if _, err := f.Write(b); err != nil {
			f.Close()
			return err
		}
	}
	return f.Close()
}

// waitPath is where the server says how long its goroutines have waited for locks.
const waitPath = "/wait"

func wait(w http.ResponseWriter, _ *http.Request) {
	sample := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
	metrics.Read(sample)
	fmt.Fprintf(w, "%.3f", sample[0].Value.Float64())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func (t *target) do(method, url string, body io.Reader, status int) (*http.Response, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, err
	}
	if t.password != "" {
		req.SetBasicAuth("AWS", t.password)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != status {
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		return nil, fmt.Errorf("%s %s: %s %s", method, url, res.Status, b)
	}
	return res, nil
}

func (t *target) round(blobs [][]byte, digests []content.Digest, pulls int) error {
	total := 0.0
	for _, b := range blobs {
		total += float64(len(b))
	}
	// all does f for each layer, three at a time as docker does.
	all := func(n, slots int, f func(i int) error) func() error {
		return func() error {
			var g errgroup.Group
			g.SetLimit(slots)
			for i := range n {
				g.Go(func() error { return f(i) })
			}
			return g.Wait()
		}
	}
	push := func(i int) error {
		res, err := t.do("POST", t.url+"/v2/app/blobs/uploads/", nil, 202)
		if err != nil {
			return err
		}
		res.Body.Close()
		loc, err := res.Request.URL.Parse(res.Header.Get("Location"))
		if err != nil {
			return err
		}
		// One PATCH of unknown length, then the PUT: what docker push does.
		res, err = t.do("PATCH", loc.String(), struct{ io.Reader }{bytes.NewReader(blobs[i])}, 202)
		if err != nil {
			return err
		}
		res.Body.Close()
		if loc, err = loc.Parse(res.Header.Get("Location")); err != nil {
			return err
		}
		q := loc.Query()
		q.Set("digest", string(digests[i]))
		loc.RawQuery = q.Encode()
		res, err = t.do("PUT", loc.String(), nil, 201)
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	pull := func(i int) error {
		res, err := t.do("GET", t.url+"/v2/app/blobs/"+string(digests[i]), nil, 200)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		buf := make([]byte, 256<<10)
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buf)
		if err == nil && n != int64(len(blobs[i])) {
			err = fmt.Errorf("%d bytes of %d", n, len(blobs[i]))
		}
		return err
	}
	if err := t.add(&t.push, total, all(len(blobs), 3, push)); err != nil {
		return err
	}
	if err := t.add(&t.pull, total, all(len(blobs), 3, pull)); err != nil {
		return err
	}
	return t.add(&t.many, float64(pulls)*float64(len(blobs[0])), all(pulls, pulls, func(int) error { return pull(0) }))
}

// startOurs starts this program again as a server.
func startOurs(dir string) (*target, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "BENCH_REGISTRY_SERVE="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &target{name: "berth", pid: cmd.Process.Pid, stop: func() { cmd.Process.Kill(); cmd.Wait() }}
	if _, err := fmt.Fscanln(out, &t.url, &t.password); err != nil {
		t.stop()
		return nil, fmt.Errorf("start: %w", err)
	}
	return t, nil
}

// serve is the registry over a real etcd, with authentication.
func serve(dir string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, store.Config{Dir: filepath.Join(dir, "etcd")})
	if err != nil {
		return err
	}
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		return err
	}
	reg, err := registry.New(ctx, registry.Config{
		Dir: filepath.Join(dir, "registry"), DB: db, Region: "us-east-1",
		Authorizer: &auth.Authorizer{Sessions: sessions}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	const account = "000000000000"
	err = db.Update(ctx, func(tx *store.Tx) error {
		state.Accounts.Put(tx, &state.Account{ID: account})
		state.Repositories.Put(tx, &state.Repository{Account: account, Name: "app", ARN: reg.RepositoryARN(account, "app"), TagMutability: "MUTABLE"})
		return nil
	})
	if err != nil {
		return err
	}
	root := &auth.Caller{Kind: auth.RootUser, Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account}
	password, err := reg.Password(auth.WithCaller(ctx, root), time.Now().Add(12*time.Hour))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://"+l.Addr().String(), password)
	mux := http.NewServeMux()
	mux.Handle("/v2/", reg)
	mux.HandleFunc(waitPath, wait)
	return http.Serve(l, mux)
}

func reference() string {
	for _, name := range []string{"registry", "docker-registry"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func startReference(path, dir string) (*target, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + filepath.Join(dir, "data") + "}}\nhttp: {addr: \"" + addr + "\"}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "serve", config)
	var log strings.Builder
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t := &target{name: "reference", pid: cmd.Process.Pid, url: "http://" + addr, stop: func() { cmd.Process.Kill(); cmd.Wait() }}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(t.url + "/v2/")
		if err == nil {
			res.Body.Close()
			return t, nil
		}
		if time.Now().After(deadline) {
			t.stop()
			return nil, fmt.Errorf("the reference registry did not start: %w: %s", err, log.String())
		}
	}
}
