// Command api measures signed calls over kept connections: DescribeTasks and
// ListTasks, with many tasks in the store, against two bare handlers that verify
// the signature; RegisterTaskDefinition, durable, against bare transactions of
// an embedded etcd; and all of them against moto_server, if it is installed.
//
// The two bare handlers differ in where the answer comes from. "writes JSON"
// decodes the request and encodes the same answer with encoding/json, from Go
// structs that it has at hand: what a competent handler without anything behind
// it would do. "ready bytes" neither reads the request nor encodes anything, it
// writes the same bytes each time: no handler of an API could, so it is the
// stricter one, and shows what the signature and net/http cost alone. Neither
// looks anything up, authorizes, validates or logs, which Berth does.
//
//	go run ./bench/api [-tasks 100000] [-clients 8] [-rounds 7] [-slice 1s] [-only OPERATION] [-cpuprofile F]
//
// The contenders take turns in slices of a second, in one process with the
// clients, which send requests that were signed beforehand: so the time is the
// server's.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/sigv4"
	awsecs "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/ecs"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const (
	account = "000000000000"
	region  = "us-east-1"
	target  = "AmazonEC2ContainerServiceV20141113."
)

type config struct {
	tasks, clients, rounds int
	slice                  time.Duration
	profile                string
	only                   string
}

func main() {
	var c config
	flag.IntVar(&c.tasks, "tasks", 100_000, "tasks in the store")
	flag.IntVar(&c.clients, "clients", 8, "connections")
	flag.IntVar(&c.rounds, "rounds", 7, "turns of each contender")
	flag.DurationVar(&c.slice, "slice", time.Second, "how long a turn is")
	flag.StringVar(&c.profile, "cpuprofile", "", "write a CPU profile of all turns to this file")
	flag.StringVar(&c.only, "only", "", "one operation alone")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.run(ctx); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func (c *config) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := open(ctx, filepath.Join(dir, "region"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	fmt.Printf("putting %d tasks into the store …\n", c.tasks)
	if err := r.fill(ctx, c.tasks); err != nil {
		return err
	}
	if c.profile != "" {
		f, err := os.Create(c.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	for _, op := range []string{"DescribeTasks", "ListTasks"} {
		if c.only != "" && c.only != op {
			continue
		}
		if err := c.read(ctx, r, op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	if c.only == "" || c.only == "RegisterTaskDefinition" {
		if err := c.register(ctx, r, filepath.Join(dir, "etcd")); err != nil {
			return fmt.Errorf("RegisterTaskDefinition: %w", err)
		}
	}
	if c.only != "" {
		return ctx.Err()
	}
	if path, err := exec.LookPath("moto_server"); err == nil {
		if err := c.moto(ctx, r, path); err != nil {
			return fmt.Errorf("moto_server: %w", err)
		}
	}
	return ctx.Err()
}

// A region is the API of ECS on a listener of its own.
type server struct {
	db   *store.DB
	door *service.Door
	addr string
	sign sigv4.Signer
	done chan error
	log  *service.Lines
	file *os.File
	arns []string
}

func open(ctx context.Context, dir string) (*server, error) {
	db, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	root, err := iam.Bootstrap(ctx, db, account, time.Now())
	if err != nil {
		return nil, err
	}
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	authorizer := &auth.Authorizer{Sessions: sessions}
	api := ecs.New(ecs.Config{DB: db, Region: region, Account: account, PassRole: authorizer.PassRole, PollEndpoint: func(context.Context) string { return "" }})
	if err := api.Bootstrap(ctx); err != nil {
		return nil, err
	}
	// A server writes its log, too, as the role does.
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	checks := map[string]service.Authorize{}
	for op, f := range api.Authorize() {
		checks[op] = f
	}
	lines := service.NewLines(logFile)
	door, err := service.New(service.Config{DB: db, Region: region, Authorizer: authorizer, Verifier: &auth.Verifier{Sessions: sessions, Region: region},
		Log: slog.New(slog.NewTextHandler(lines, nil)), Services: []service.Registration{{Service: awsecs.NewService(api), Authorize: checks}}})
	if err != nil {
		return nil, err
	}
	ca, err := service.OpenAuthority(filepath.Join(dir, "tls"), time.Now())
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &server{db: db, door: door, addr: l.Addr().String(), log: lines, file: logFile, done: make(chan error, 1),
		sign: sigv4.Signer{AccessKeyID: root.AccessKeyID, Secret: root.Secret}}
	go func() { r.done <- door.Serve(l, ca.TLS(service.Names(region), nil, nil)) }()
	return r, nil
}

func (r *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := errors.Join(r.door.Drain(ctx), <-r.done, r.db.Close())
	r.log.Flush()
	return errors.Join(err, r.file.Close())
}

// fill puts running tasks into the default cluster, as a service that has been
// there for a while looks.
func (r *server) fill(ctx context.Context, n int) error {
	prefix := "arn:aws:ecs:" + region + ":" + account + ":"
	for len(r.arns) < n {
		var batch []*state.Task
		for range min(500, n-len(r.arns)) {
			i := len(r.arns)
			at := time.Unix(1_790_000_000+int64(i), 0).UTC()
			t := &state.Task{ARN: fmt.Sprintf("%stask/default/%032x", prefix, uint64(i)*0x9e3779b97f4a7c15), Account: account,
				Cluster: prefix + "cluster/default", TaskDefinition: prefix + "task-definition/web:1", Family: "web", Group: "family:web",
				LaunchType: "FARGATE", LastStatus: state.Running, DesiredStatus: state.Running, CPU: "256", Memory: "512",
				CreatedAt: at, StartedAt: at, StartedBy: "ecs-svc/1234567890123456789",
				Containers: []state.Container{{Name: "app", Image: "web:1", LastStatus: state.Running}, {Name: "sidecar", Image: "proxy:1", LastStatus: state.Running}}}
			batch = append(batch, t)
			r.arns = append(r.arns, t.ARN)
		}
		if err := r.db.Update(ctx, func(tx *store.Tx) error {
			for _, t := range batch {
				state.Tasks.Put(tx, t)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// request makes the bytes of a signed call.
func (r *server) request(host, op, body string) []byte {
	req := &http.Request{Method: "POST", Host: host, URL: &url.URL{Path: "/"}, Header: http.Header{
		"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target + op}, "Content-Length": {strconv.Itoa(len(body))}}}
	r.sign.Sign(req, []byte(body), "ecs", region, time.Now())
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST / HTTP/1.1\r\nHost: %s\r\n", host)
	_ = req.Header.Write(&b) // to memory
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// A contender answers calls; requests[i] are those of client i, asked in turn.
type contender struct {
	name     string
	addr     string
	requests [][][]byte
	conns    []net.Conn
	readers  []*bufio.Reader
	next     []int
}

func (c *contender) dial() error {
	c.next = make([]int, len(c.requests))
	for range c.requests {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		c.conns = append(c.conns, conn)
		c.readers = append(c.readers, bufio.NewReaderSize(conn, 64<<10))
	}
	return nil
}

func (c *contender) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// call asks one thing as client i and returns the body of the answer, which is
// good until the next call.
func (c *contender) call(i int, keep bool) ([]byte, error) {
	req := c.requests[i][c.next[i]%len(c.requests[i])]
	c.next[i]++
	if _, err := c.conns[i].Write(req); err != nil {
		return nil, err
	}
	r := c.readers[i]
	status, err := r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	ok := bytes.Contains(status, []byte(" 200 "))
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		if k, v, found := bytes.Cut(line, []byte(": ")); found && bytes.EqualFold(k, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, errors.New("an answer without a length")
	}
	if keep || !ok {
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%s: refused: %s", c.name, body)
		}
		return body, nil
	}
	_, err = r.Discard(length)
	return nil, err
}

// turn asks with all clients for a while and returns the calls per second.
func (c *contender) turn(ctx context.Context, d time.Duration) (float64, error) {
	return rate(ctx, len(c.conns), d, func(i int) error { _, err := c.call(i, false); return err })
}

func rate(ctx context.Context, clients int, d time.Duration, call func(i int) error) (float64, error) {
	var n atomic.Int64
	errs := make([]error, clients)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for time.Since(start) < d && ctx.Err() == nil && errs[i] == nil {
				errs[i] = call(i)
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds(), errors.Join(errors.Join(errs...), ctx.Err())
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// duel lets two take turns and prints the medians, and that of the ratios.
func (c *config) duel(ctx context.Context, what string, names [2]string, turns [2]func() (float64, error), aim float64) error {
	var rates [2][]float64
	var ratios []float64
	for range c.rounds {
		var now [2]float64
		for i, turn := range turns {
			var err error
			if now[i], err = turn(); err != nil {
				return err
			}
			rates[i] = append(rates[i], now[i])
		}
		ratios = append(ratios, now[0]/now[1])
	}
	fmt.Printf("%-22s %s %6.0f/s   %-17s %6.0f/s   ratio %.2f", what, names[0], median(rates[0]), names[1], median(rates[1]), median(ratios))
	if aim > 0 {
		fmt.Printf(" (aim: at least %.1f)", aim)
	}
	fmt.Println()
	return nil
}

// read compares an operation that reads with the bare handler.
func (c *config) read(ctx context.Context, r *server, op string) error {
	body := func(i, n int) string {
		if op == "DescribeTasks" {
			b, _ := json.Marshal(map[string]any{"tasks": []string{r.arns[(i*7919+n*104729)%len(r.arns)]}}) // strings always encode
			return string(b)
		}
		return `{"cluster":"default"}`
	}
	requests := func(host string) (all [][][]byte) {
		for i := range c.clients {
			var own [][]byte
			for n := range 32 {
				own = append(own, r.request(host, op, body(i, n)))
			}
			all = append(all, own)
		}
		return all
	}
	ours := &contender{name: "berth", addr: r.addr, requests: requests(r.addr)}
	if err := ours.dial(); err != nil {
		return err
	}
	defer ours.close()
	answer, err := ours.call(0, true)
	if err != nil {
		return err
	}
	encode, err := encoder(op, answer)
	if err != nil {
		return err
	}
	for _, x := range []struct {
		name   string
		answer func(body []byte) ([]byte, error)
	}{{"bare, writes JSON", encode}, {"bare, ready bytes", func([]byte) ([]byte, error) { return answer, nil }}} {
		if err := c.readAgainst(ctx, r, op, x.name, ours, requests, x.answer); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) readAgainst(ctx context.Context, r *server, op, name string, ours *contender, requests func(host string) [][][]byte, answer func([]byte) ([]byte, error)) error {
	bare, err := serveBare(r.sign, answer)
	if err != nil {
		return err
	}
	defer bare.close()
	theirs := &contender{name: name, addr: bare.addr, requests: requests(bare.addr)}
	if err := theirs.dial(); err != nil {
		return err
	}
	defer theirs.close()
	return c.duel(ctx, op, [2]string{"berth", name}, [2]func() (float64, error){
		func() (float64, error) { return ours.turn(ctx, c.slice) },
		func() (float64, error) { return theirs.turn(ctx, c.slice) }}, 0.7)
}

// encoder is a handler that decodes its request and encodes an answer, both with
// encoding/json and structs of what there is in them. It makes the bytes of Berth's
// answer, or says that it does not.
func encoder(op string, answer []byte) (func([]byte) ([]byte, error), error) {
	in, have := func() any { return &listInput{} }, any(&listOutput{})
	if op == "DescribeTasks" {
		in, have = func() any { return &describeInput{} }, &describeOutput{}
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(have); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	again, err := json.Marshal(have)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, answer) {
		return nil, fmt.Errorf("the bare handler would not write the same:\n%s\n%s", again, answer)
	}
	return func(body []byte) ([]byte, error) {
		if err := json.Unmarshal(body, in()); err != nil {
			return nil, err
		}
		return json.Marshal(have)
	}, nil
}

type listInput struct {
	Cluster string `json:"cluster"`
}

type listOutput struct {
	TaskArns  []string `json:"taskArns"`
	NextToken string   `json:"nextToken,omitempty"`
}

type describeInput struct {
	Cluster string   `json:"cluster"`
	Tasks   []string `json:"tasks"`
}

type describeOutput struct {
	Tasks    []task `json:"tasks"`
	Failures []struct {
		Arn    string `json:"arn"`
		Reason string `json:"reason"`
	} `json:"failures"`
}

type pair struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

type task struct {
	Attachments          []pair      `json:"attachments"`
	Attributes           []pair      `json:"attributes"`
	ClusterArn           string      `json:"clusterArn"`
	Containers           []container `json:"containers"`
	CPU                  string      `json:"cpu"`
	CreatedAt            float64     `json:"createdAt"`
	DesiredStatus        string      `json:"desiredStatus"`
	EnableExecuteCommand bool        `json:"enableExecuteCommand"`
	Group                string      `json:"group"`
	HealthStatus         string      `json:"healthStatus"`
	Accelerators         []pair      `json:"inferenceAccelerators"`
	LastStatus           string      `json:"lastStatus"`
	LaunchType           string      `json:"launchType"`
	Memory               string      `json:"memory"`
	Overrides            struct {
		Containers   []pair `json:"containerOverrides"`
		Accelerators []pair `json:"inferenceAcceleratorOverrides"`
	} `json:"overrides"`
	StartedAt         float64 `json:"startedAt"`
	StartedBy         string  `json:"startedBy"`
	Tags              []pair  `json:"tags"`
	TaskArn           string  `json:"taskArn"`
	TaskDefinitionArn string  `json:"taskDefinitionArn"`
	Version           int     `json:"version"`
}

type container struct {
	ContainerArn      string `json:"containerArn"`
	TaskArn           string `json:"taskArn"`
	Name              string `json:"name"`
	Image             string `json:"image"`
	LastStatus        string `json:"lastStatus"`
	NetworkBindings   []pair `json:"networkBindings"`
	NetworkInterfaces []pair `json:"networkInterfaces"`
	HealthStatus      string `json:"healthStatus"`
}

// A bare handler verifies a signature and writes an answer.
type bareHandler struct {
	addr string
	srv  *http.Server
	done chan error
}

func serveBare(key sigv4.Signer, makeAnswer func(body []byte) ([]byte, error)) (*bareHandler, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	keys := &sigv4.Keys{}
	b := &bareHandler{addr: l.Addr().String(), done: make(chan error, 1)}
	b.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			var sig *sigv4.Signature
			if sig, err = sigv4.Parse(r); err == nil && sig.AccessKeyID == key.AccessKeyID {
				err = sig.Verify(r, body, key.Secret, time.Now(), keys)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		answer, err := makeAnswer(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer) // the client will notice
	})}
	go func() { b.done <- b.srv.Serve(l) }()
	return b, nil
}

func (b *bareHandler) close() {
	b.srv.Close()
	<-b.done
}

const definition = `{"family":%q,"networkMode":"awsvpc","cpu":"256","memory":"512","executionRoleArn":"arn:aws:iam::000000000000:role/ecsTaskExecutionRole","requiresCompatibilities":["FARGATE"],` +
	`"containerDefinitions":[{"name":"app","image":"web:%d","portMappings":[{"containerPort":80}],"environment":[{"name":"A","value":"1"},{"name":"B","value":"2"}],` +
	`"logConfiguration":{"logDriver":"awslogs","options":{"awslogs-group":"/ecs/web","awslogs-region":"us-east-1","awslogs-stream-prefix":"web"}}}]}`

// register compares a durable write with the transactions of a bare etcd.
func (c *config) register(ctx context.Context, r *server, dir string) error {
	ours := &contender{name: "berth", addr: r.addr}
	for i := range c.clients {
		var own [][]byte
		for n := range 64 {
			own = append(own, r.request(r.addr, "RegisterTaskDefinition", fmt.Sprintf(definition, fmt.Sprintf("family-%d", i), n)))
		}
		ours.requests = append(ours.requests, own)
	}
	if err := ours.dial(); err != nil {
		return err
	}
	defer ours.close()
	client, stop, err := bareEtcd(dir)
	if err != nil {
		return err
	}
	defer stop()
	var n atomic.Int64
	value := strings.Repeat("x", 1200) // about what a definition is in the store
	put := func(int) error {
		k := fmt.Sprintf("/bare/%09d", n.Add(1))
		_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(k), "=", 0)).Then(clientv3.OpPut(k, value)).Commit()
		return err
	}
	return c.duel(ctx, "RegisterTaskDefinition", [2]string{"berth", "bare etcd"}, [2]func() (float64, error){
		func() (float64, error) { return ours.turn(ctx, c.slice) },
		func() (float64, error) { return rate(ctx, c.clients, c.slice, put) }}, 0.5)
}

func bareEtcd(dir string) (*clientv3.Client, func(), error) {
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = dir, "fatal"
	any, _ := url.Parse("http://127.0.0.1:0") // a constant
	cfg.ListenPeerUrls, cfg.ListenClientUrls = []url.URL{*any}, []url.URL{*any}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, nil, err
	}
	<-e.Server.ReadyNotify()
	client := v3client.New(e.Server)
	return client, func() { client.Close(); e.Close() }, nil
}

// moto compares with moto_server, which has none of the tasks.
func (c *config) moto(ctx context.Context, r *server, path string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	l.Close()
	host, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-H", host, "-p", port)
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = cmd.Wait() }() // killed: its status says nothing
	// It says so when it listens, and goes on talking.
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "Running on") {
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	for _, op := range []struct{ name, body string }{{"ListTasks", `{"cluster":"default"}`}, {"RegisterTaskDefinition", fmt.Sprintf(definition, "moto", 1)}} {
		both := [2]*contender{{name: "berth", addr: r.addr}, {name: "moto_server", addr: addr}}
		for _, x := range both {
			for range c.clients {
				x.requests = append(x.requests, [][]byte{r.request(x.addr, op.name, op.body)})
			}
		}
		if op.name == "ListTasks" {
			cluster := &contender{name: "moto_server", addr: addr, requests: [][][]byte{{r.request(addr, "CreateCluster", `{"clusterName":"default"}`)}}}
			if err := cluster.dial(); err != nil {
				return err
			}
			if _, err := cluster.call(0, true); err != nil {
				return err
			}
			cluster.close()
		}
		turn := func(x *contender) func() (float64, error) {
			return func() (float64, error) {
				// moto_server closes a connection after each answer.
				if x.name == "berth" {
					if x.conns == nil {
						if err := x.dial(); err != nil {
							return 0, err
						}
					}
					return x.turn(ctx, c.slice)
				}
				return rate(ctx, c.clients, c.slice, func(i int) error {
					one := &contender{name: x.name, addr: x.addr, requests: x.requests[i : i+1]}
					if err := one.dial(); err != nil {
						return err
					}
					defer one.close()
					_, err := one.call(0, false)
					return err
				})
			}
		}
		err := c.duel(ctx, op.name, [2]string{"berth", "moto_server"}, [2]func() (float64, error){turn(both[0]), turn(both[1])}, 0)
		both[0].close()
		if err != nil {
			return err
		}
	}
	return nil
}
