// Command registry measures how fast layers are pushed to Berth's registry and
// pulled from it, side by side with the reference registry in the same run.
//
//	go run ./bench/registry [-mb 500] [-layers 5] [-rounds 5] [-pulls 32]
//
// The reference is the program registry, or docker-registry as Debian calls it,
// with its file-system storage; without it only Berth is measured. The client
// is the same for both and as light as can be: digests are known beforehand and
// what is pulled is thrown away. Each round pushes new random layers.
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
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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
	stop                func()
	push, pull, many    []float64 // MB/s
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
			if err := t.round(blobs, digests, pulls); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	for _, t := range targets {
		fmt.Printf("%-10s push %6.0f MB/s   pull %6.0f MB/s   %d pulls at once %6.0f MB/s\n", t.name, median(t.push), median(t.pull), pulls, median(t.many))
	}
	if len(targets) == 2 {
		a, b := targets[0], targets[1]
		fmt.Printf("%-10s push %6.2fx       pull %6.2fx       %d pulls at once %6.2fx\n", "ratio", median(a.push)/median(b.push), median(a.pull)/median(b.pull), pulls, median(a.many)/median(b.many))
	}
	return nil
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
		total += float64(len(b)) / 1e6
	}
	each := func(f func(i int) error) (float64, error) {
		start := time.Now()
		var wg sync.WaitGroup
		errs := make(chan error, len(blobs))
		slots := make(chan struct{}, 3) // as docker does
		for i := range blobs {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				errs <- f(i)
			})
		}
		wg.Wait()
		took := time.Since(start).Seconds()
		close(errs)
		for err := range errs {
			if err != nil {
				return 0, err
			}
		}
		return total / took, nil
	}
	speed, err := each(func(i int) error {
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
	})
	if err != nil {
		return err
	}
	t.push = append(t.push, speed)
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
	if speed, err = each(pull); err != nil {
		return err
	}
	t.pull = append(t.pull, speed)

	start := time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, pulls)
	for range pulls {
		wg.Go(func() { errs <- pull(0) })
	}
	wg.Wait()
	took := time.Since(start).Seconds()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	t.many = append(t.many, float64(pulls)*float64(len(blobs[0]))/1e6/took)
	return nil
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
	t := &target{name: "berth", stop: func() { cmd.Process.Kill(); cmd.Wait() }}
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
	return http.Serve(l, reg)
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
	t := &target{name: "reference", url: "http://" + addr, stop: func() { cmd.Process.Kill(); cmd.Wait() }}
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
