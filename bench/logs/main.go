// Command logs measures how fast log events are taken in through the signed
// API, and how fast they are searched, side by side with reading the same files
// and doing nothing else.
//
//	go run ./bench/logs [-events 10000000] [-clients 4] [-batch 5000] [-size 120] [-dir DIR]
//
// The server is this program again, in a process of its own, with the door, the
// service and the journal of a region, and a store in memory: events do not
// pass through the store. Client and server share the machine.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/sigv4"
	awslogs "github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/store"
)

const (
	region  = "us-east-1"
	account = "000000000000"
)

func main() {
	events := flag.Int("events", 10_000_000, "events to put and to search")
	clients := flag.Int("clients", 4, "clients that put at once, each into a stream of its own")
	batch := flag.Int("batch", 5000, "events per PutLogEvents")
	size := flag.Int("size", 120, "bytes per event")
	dir := flag.String("dir", "", "where the events go (default: a new folder, removed at the end)")
	serving := flag.String("serve", "", "be the server, on this folder")
	flag.Parse()
	runtime.LockOSThread() // the server dies with the thread that started it
	var err error
	if *serving != "" {
		err = serve(*serving)
	} else {
		err = run(context.Background(), *dir, *events, *clients, *batch, *size)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "logs:", err)
		os.Exit(1)
	}
}

// hello is what the server says when it is ready.
type hello struct{ URL, Key, Secret string }

func serve(dir string) error {
	db := store.OpenMemory()
	defer db.Close()
	root, err := iam.Bootstrap(context.Background(), db, account, time.Now())
	if err != nil {
		return err
	}
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		return err
	}
	j, err := journal.Open(dir)
	if err != nil {
		return err
	}
	n := 0
	api := logs.New(logs.Config{DB: db, Journal: j, Queries: filepath.Join(dir, "queries"), Region: region, Now: time.Now,
		NewID: func() string { n++; return fmt.Sprintf("%032x", n) }})
	defer api.Close()
	door, err := service.New(service.Config{DB: db, Region: region, Authorizer: &auth.Authorizer{Sessions: sessions}, Verifier: &auth.Verifier{Sessions: sessions, Region: region, Clock: time.Now},
		Services: []service.Registration{{Service: awslogs.NewService(api), Authorize: api.Authorize()}}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(hello{"http://" + l.Addr().String(), root.AccessKeyID, root.Secret}); err != nil {
		return err
	}
	return door.Serve(l, nil)
}

// target is the server as its clients see it.
type target struct {
	hello
	pid  int
	http *http.Client
}

var api = awslogs.NewService(nil)

func (t *target) call(ctx context.Context, op string, in, out any) error {
	signer := sigv4.Signer{AccessKeyID: t.Key, Secret: t.Secret}
	c := wire.Client{Endpoint: t.URL, HTTP: t.http, Sign: func(r *http.Request, body []byte) error {
		signer.Sign(r, body, "logs", region, time.Now())
		return nil
	}}
	return c.Call(ctx, api, op, in, out)
}

func run(ctx context.Context, dir string, events, clients, batch, size int) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "berth-bench-logs-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	t, stop, err := start(dir, clients)
	if err != nil {
		return err
	}
	defer stop()
	if err := t.call(ctx, "CreateLogGroup", &awslogs.CreateLogGroupInput{LogGroupName: new("bench")}, nil); err != nil {
		return err
	}
	fmt.Printf("%d processors, %d events of %d bytes, %d clients, batches of %d\n", runtime.NumCPU(), events, size, clients, batch)
	if err := ingest(ctx, t, events, clients, batch, size); err != nil {
		return err
	}
	return search(ctx, t, dir, events)
}

func start(dir string, clients int) (*target, func(), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self, "-serve", dir)
	cmd.Stderr, cmd.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it says
	}
	t := &target{pid: cmd.Process.Pid, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &t.hello)
	}
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("start the server: %w", err)
	}
	return t, stop, nil
}

// rss is the resident memory of the server, in MiB: all, and without the pages
// of files.
func (t *target) rss() (all, anonymous float64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			all = n / 1024
		case "RssAnon:":
			anonymous = n / 1024
		}
	}
	return all, anonymous
}

// cpu is the processor time that the server has used.
func (t *target) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
	user, _ := strconv.Atoi(f[12])
	system, _ := strconv.Atoi(f[13])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func ingest(ctx context.Context, t *target, events, clients, batch, size int) error {
	fill := strings.Repeat("x", size)
	begin := time.Now()
	first := begin.Add(-time.Hour).UnixMilli()
	var done atomic.Int64
	finished := make(chan struct{})
	var watch sync.WaitGroup
	var peak, peakAnonymous, worst float64
	watch.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		last, at := int64(0), begin
		for {
			select {
			case <-finished:
				return
			case now := <-tick.C:
				n := done.Load()
				rate := float64(n-last) / now.Sub(at).Seconds()
				if worst == 0 || rate < worst {
					worst = rate
				}
				last, at = n, now
				all, anonymous := t.rss()
				peak, peakAnonymous = max(peak, all), max(peakAnonymous, anonymous)
			}
		}
	})
	g, ctx := errgroup.WithContext(ctx)
	for c := range clients {
		g.Go(func() error {
			stream := new(fmt.Sprintf("app/web/%d", c))
			if err := t.call(ctx, "CreateLogStream", &awslogs.CreateLogStreamInput{LogGroupName: new("bench"), LogStreamName: stream}, nil); err != nil {
				return err
			}
			in := &awslogs.PutLogEventsInput{LogGroupName: new("bench"), LogStreamName: stream}
			for i := c; i < events; {
				in.LogEvents = in.LogEvents[:0]
				for ; len(in.LogEvents) < batch && i < events; i += clients {
					m := fmt.Sprintf(`{"level":"INFO","request":"%08x","status":%d,"ms":%d,"text":"`, i*2654435761%(1<<32), 200+i%3*100, i%997)
					if i%1_000_003 == 5 {
						m += "needle "
					}
					m += fill[:max(size-len(m)-2, 0)] + `"}`
					in.LogEvents = append(in.LogEvents, awslogs.InputLogEvent{Timestamp: new(first + int64(i)/10_000), Message: &m})
				}
				if err := t.call(ctx, "PutLogEvents", in, nil); err != nil {
					return err
				}
				done.Add(int64(len(in.LogEvents)))
			}
			return nil
		})
	}
	err := g.Wait()
	took := time.Since(begin)
	close(finished)
	watch.Wait()
	if err != nil {
		return err
	}
	fmt.Printf("put:    %.0f events/s over %.1f s, the slowest second %.0f; server %.2f processors, peak RSS %.0f MiB (anonymous %.0f)\n",
		float64(events)/took.Seconds(), took.Seconds(), worst, t.cpu().Seconds()/took.Seconds(), peak, peakAnonymous)
	return nil
}

func search(ctx context.Context, t *target, dir string, events int) error {
	var paths []string
	var bytes int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		paths = append(paths, path)
		bytes += info.Size()
		return nil
	})
	if err != nil {
		return err
	}
	mb := float64(bytes) / 1e6
	fmt.Printf("stored: %.0f MB in %d files\n", mb, len(paths))
	filter := func(pattern string) func() (int, error) {
		return func() (int, error) {
			n := 0
			in := &awslogs.FilterLogEventsInput{LogGroupName: new("bench"), FilterPattern: &pattern}
			for {
				var out awslogs.FilterLogEventsOutput
				if err := t.call(ctx, "FilterLogEvents", in, &out); err != nil {
					return n, err
				}
				if n += len(out.Events); out.NextToken == nil {
					return n, nil
				}
				in.NextToken = out.NextToken
			}
		}
	}
	needles := 0
	for i := 5; i < events; i += 1_000_003 {
		needles++
	}
	for _, x := range []struct {
		name string
		want int
		cold bool
		do   func() (int, error)
	}{
		{"cat, cold", -1, true, func() (int, error) { return 0, exec.Command("cat", paths...).Run() }},
		{"FilterLogEvents needle, cold", needles, true, filter("needle")},
		{"cat", -1, false, func() (int, error) { return 0, exec.Command("cat", paths...).Run() }},
		{"read at once", -1, false, func() (int, error) { return 0, read(paths) }},
		{"FilterLogEvents needle", needles, false, filter("needle")},
		{"FilterLogEvents ?needle ?nothing", needles, false, filter("?needle ?nothing")},
		{`FilterLogEvents { $.text = "needle*" }`, needles, false, filter(`{ $.text = "needle*" }`)},
		{"FilterLogEvents { $.ms > 1000 }", 0, false, filter(`{ $.ms > 1000 }`)},
		{"Insights stats count(*) by bin(5m)", -1, false, func() (int, error) { return t.query(ctx, "stats count(*) by bin(5m)") }},
		{"Insights stats avg(ms) by status", 3, false, func() (int, error) { return t.query(ctx, "stats avg(ms) by status") }},
	} {
		rounds := 3
		if x.cold {
			rounds = 1
		}
		var took []float64
		for range rounds {
			if x.cold {
				if err := evict(paths); err != nil {
					return err
				}
			}
			begin := time.Now()
			n, err := x.do()
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			if x.want >= 0 && n != x.want {
				return fmt.Errorf("%s: %d found, not %d", x.name, n, x.want)
			}
			took = append(took, time.Since(begin).Seconds())
		}
		slices.Sort(took)
		s := took[len(took)/2]
		fmt.Printf("%-40s %7.2f s  %6.0f MB/s  %5.1f M events/s\n", x.name, s, mb/s, float64(events)/s/1e6)
	}
	all, anonymous := t.rss()
	fmt.Printf("server after the searches: RSS %.0f MiB (anonymous %.0f)\n", all, anonymous)
	return nil
}

func (t *target) query(ctx context.Context, text string) (int, error) {
	var started awslogs.StartQueryOutput
	now := time.Now().Unix()
	if err := t.call(ctx, "StartQuery", &awslogs.StartQueryInput{LogGroupName: new("bench"), StartTime: new(now - 7*86400), EndTime: &now, QueryString: &text}, &started); err != nil {
		return 0, err
	}
	tick := time.NewTicker(5 * time.Millisecond) // as a client of Insights has to
	defer tick.Stop()
	for range tick.C {
		var out awslogs.GetQueryResultsOutput
		if err := t.call(ctx, "GetQueryResults", &awslogs.GetQueryResultsInput{QueryId: started.QueryId}, &out); err != nil {
			return 0, err
		}
		switch out.Status {
		case awslogs.QueryStatusScheduled, awslogs.QueryStatusRunning:
		case awslogs.QueryStatusComplete:
			return len(out.Results), nil
		default:
			return 0, fmt.Errorf("the query is %s", out.Status)
		}
	}
	return 0, nil
}

// read reads the files with as many readers as there are processors.
func read(paths []string) error {
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for _, path := range paths {
		g.Go(func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			b := make([]byte, 1<<20)
			for {
				if _, err := f.Read(b); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// evict drops the files from the page cache.
func evict(paths []string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
		if err != nil {
			return fmt.Errorf("evict %s: %w", path, err)
		}
	}
	return nil
}
