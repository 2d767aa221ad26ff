package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/agent/gateway"
	"github.com/berth-run/berth/auth"
	awsautoscaling "github.com/berth-run/berth/aws/autoscaling"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	awsecr "github.com/berth-run/berth/aws/ecr"
	awsecs "github.com/berth-run/berth/aws/ecs"
	awsiam "github.com/berth-run/berth/aws/iam"
	awslogs "github.com/berth-run/berth/aws/logs"
	awsssm "github.com/berth-run/berth/aws/ssm"
	awssts "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/cli"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/address"
	"github.com/berth-run/berth/control/boot"
	"github.com/berth-run/berth/control/capacity"
	"github.com/berth-run/berth/control/deploy"
	"github.com/berth-run/berth/control/endpoint"
	nat "github.com/berth-run/berth/control/gateway"
	"github.com/berth-run/berth/control/group"
	"github.com/berth-run/berth/control/lifecycle"
	"github.com/berth-run/berth/control/place"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/control/reap"
	"github.com/berth-run/berth/control/settle"
	"github.com/berth-run/berth/control/vacate"
	"github.com/berth-run/berth/dispatch"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/process"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/autoscaling"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/service/ecr"
	"github.com/berth-run/berth/service/ecs"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/service/owner"
	"github.com/berth-run/berth/service/ssm"
	"github.com/berth-run/berth/service/sts"
	"github.com/berth-run/berth/service/throttle"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// serverConfig is what `berth server` is started with.
type serverConfig struct {
	layout
	settings
	endpoints    []string // external etcd
	healthyAfter time.Duration
}

// drainTime is how long requests under way may take once the server is asked to end.
const drainTime = 5 * time.Second

// runServer is the role server: the API and the controllers. It returns when
// ctx ends and everything it started has ended.
func runServer(ctx context.Context, c serverConfig, log *slog.Logger) error {
	if err := os.MkdirAll(c.run(), 0o700); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	// Taken before the store is opened, so that a port that is taken is said at once.
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	db, err := store.Open(ctx, store.Config{Dir: c.etcd(), Endpoints: c.endpoints, Log: log})
	if err != nil {
		return err
	}
	defer db.Close()
	s, err := newServer(ctx, c, db, log)
	if err != nil {
		return err
	}
	return s.run(ctx, listener)
}

// server is the wired whole of the role.
type server struct {
	serverConfig
	db       *store.DB
	log      *slog.Logger
	door     *service.Door
	nodes    http.Handler
	dispatch *dispatch.Server
	registry *registry.Registry
	logs     *logs.Logs
	ca       *service.Authority
	root     iam.RootKey
	usage    *iam.Usage
	owner    *owner.Owner
	fleet    *fleet.Fleet
	pool     netip.Prefix // of public addresses

	freeing sync.Mutex // one collection at a time; nothing that answers calls takes it
}

func newServer(ctx context.Context, c serverConfig, db *store.DB, log *slog.Logger) (*server, error) {
	now := func() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
	sessions, err := auth.OpenSessions(c.sessionKey())
	if err != nil {
		return nil, err
	}
	s := &server{serverConfig: c, db: db, log: log, fleet: fleet.New(db)}
	region, err := s.bootstrap(ctx, now)
	if err != nil {
		return nil, err
	}
	s.pool = region.PublicPool
	if s.ca, err = service.OpenAuthority(c.tls(), now()); err != nil {
		return nil, err
	}
	factor, err := throttle.ParseFactor(c.Throttle)
	if err != nil {
		return nil, fmt.Errorf("region settings: throttle: %w", err)
	}
	machines := nodeRoleARN(region.Account)
	authorizer := &auth.Authorizer{Sessions: sessions}
	s.usage = &iam.Usage{DB: db, Log: log}
	verifier := &auth.Verifier{Sessions: sessions, Region: c.Region, Used: s.usage.Note}
	if s.registry, err = registry.New(ctx, registry.Config{Dir: c.layout.registry(), DB: db, Region: c.Region, Authorizer: authorizer, Log: log}); err != nil {
		return nil, err
	}
	events, err := journal.Open(c.events())
	if err != nil {
		return nil, err
	}
	endpoint := "http://" + reachable(c.Listen)
	account := func(ctx context.Context) string { return auth.FromContext(ctx).Account }
	inside := insideAddress(c.Listen, region.PublicPool)
	ecsAPI := ecs.New(ecs.Config{DB: db, Region: c.Region, Account: region.Account, PassRole: authorizer.PassRole, NewID: newID, Fleet: s.fleet, Connected: s.connected, RoleMay: roleMay(authorizer, c.Region),
		PollEndpoint: func(ctx context.Context) string {
			// Who came by the address inside VPCs has no other way here.
			if host := auth.RequestFrom(ctx).Host; host == inside {
				return "http://" + host
			}
			return endpoint
		}})
	if err := ecsAPI.Bootstrap(ctx); err != nil {
		return nil, fmt.Errorf("set up default cluster: %w", err)
	}
	if err := dispatch.IdentityKey(ctx, db); err != nil {
		return nil, err
	}
	if err := tasksEnded(ctx, c.layout, db, ecsAPI); err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this machine: %w", err)
	}
	if err := dispatch.SessionsLost(ctx, db, name, now()); err != nil {
		return nil, err
	}
	ec2API := ec2.New(ec2.Config{DB: db, Region: c.Region, Account: account, Now: now, NewID: newID,
		Assumable: func(role *state.Role, service string) bool { return authorizer.ServiceMayAssume(role, service, nil) }})
	ecrAPI, err := ecr.New(ecr.Config{DB: db, Registry: s.registry, Endpoint: s.registryEndpoint})
	if err != nil {
		return nil, err
	}
	logsAPI := logs.New(logs.Config{DB: db, Journal: events, Queries: filepath.Join(c.events(), "queries"), Region: c.Region, Now: now, NewID: newID})
	s.logs = logsAPI
	iamAPI := iam.New(iam.Config{DB: db})
	scalingAPI := autoscaling.New(autoscaling.Config{DB: db, Region: c.Region, Now: now, NewID: newID, LinkedRole: iamAPI.LinkedRole})
	ssmAPI := ssm.New(ssm.Config{DB: db, Region: c.Region, Now: now, Connected: s.connected, RoleMay: roleMay(authorizer, c.Region)})
	stsAPI := sts.New(sts.Config{DB: db, Authorizer: authorizer, Sessions: sessions})

	mint := minter{authorizer, sessions, now}
	flows := &flowWriter{db, ec2API, logsAPI, authorizer, c.Region, log.With("part", "flow logs")}
	s.dispatch = dispatch.New(dispatch.Config{DB: db, Log: log.With("part", "dispatch"), Now: now, NewID: newID,
		Endpoint: endpoint, TaskEndpoint: taskEndpoint(endpoint), NodeRole: nodeRoleARN(region.Account), NodeService: iam.NodeService, Mint: mint.role, CA: s.ca.PEM(), PullPassword: s.registry.PullPassword, Flows: flows.write, Name: name,
		Authorize: func(r *http.Request, action, resource string) error {
			snap := db.Snapshot()
			caller, err := verifier.Verify(snap, r, nil, "ecs")
			if f, ok := errors.AsType[*auth.Failure](err); ok {
				return f.In(wire.JSON11)
			}
			if err != nil {
				return err
			}
			around := &auth.Request{Protocol: wire.JSON11, Service: "ECS", Region: c.Region, Host: r.Host, Secure: r.TLS != nil, UserAgent: r.UserAgent(), Time: now()}
			if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
				around.SourceIP = a.Addr().Unmap()
			}
			if err := authorizer.Check(auth.WithRequest(r.Context(), around), snap, caller, auth.Check{Action: action, Resource: resource}); err != nil {
				return err
			}
			// Permissions alone do not make a user a machine: what is sent there holds credentials.
			return ecs.MaySpeakFor(snap, caller, resource)
		}})
	handlers := s.dispatch.Routes()
	handlers["/v2"], handlers["/v2/"] = s.registry, s.registry
	s.door, err = service.New(service.Config{DB: db, Verifier: verifier, Authorizer: authorizer, Region: c.Region, Log: log, Handlers: handlers,
		Throttle: throttle.New(factor, nil), Exempt: func(c *auth.Caller) bool { return c.RoleARN == machines },
		Services: []service.Registration{
			{Service: awsecs.NewService(ecsAPI), Authorize: checks(ecsAPI.Authorize())},
			{Service: awsautoscaling.NewService(scalingAPI), Authorize: checks(scalingAPI.Authorize())},
			{Service: awsec2.NewService(ec2API), Authorize: checks(ec2API.Authorize())},
			{Service: awsecr.NewService(ecrAPI), Authorize: ecrAPI.Authorize()},
			{Service: awslogs.NewService(logsAPI), Authorize: checks(logsAPI.Authorize())},
			{Service: awsiam.NewService(iamAPI), Authorize: checks(iamAPI.Authorize())},
			{Service: awsssm.NewService(ssmAPI), Authorize: checks(ssmAPI.Authorize())},
			{Service: awssts.NewService(stsAPI), Authorize: checks(stsAPI.Authorize())},
		}})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for path, h := range s.dispatch.NodeRoutes() {
		mux.Handle(path, h)
	}
	mux.HandleFunc("GET "+envPath, s.env)
	mux.HandleFunc("GET "+joinedPath, s.joined)
	s.owner = owner.New(owner.Config{DB: db, Now: now, Free: s.free, Log: log, Furnish: func(tx *store.Tx, account string) owner.Key {
		k := iam.Furnish(tx, account, now())
		ec2.Furnish(tx, region, account, now(), newID)
		ecsAPI.Furnish(tx, account, now())
		return owner.Key{AccessKeyID: k.AccessKeyID, Secret: k.Secret}
	}})
	for pattern, h := range s.owner.Routes() {
		mux.HandleFunc(pattern, h)
	}
	s.nodes = mux
	return s, nil
}

// connected tells whether terminals can be had on a node.
func (s *server) connected(node string) bool { return s.dispatch.Connected(node) }

// roleMay tells whether a role, as a service's, may do all of these actions on
// everything.
func roleMay(authorizer *auth.Authorizer, region string) func(ctx context.Context, r store.Reader, arn, service string, actions ...string) bool {
	return func(ctx context.Context, r store.Reader, arn, service string, actions ...string) bool {
		role, ok := state.Roles.Get(r, state.IAMKey(accountOf(arn), state.ShortARN(arn)))
		if !ok || role.ARN() != arn || !authorizer.ServiceMayAssume(role, service, nil) {
			return false
		}
		const session = "ssm-agent"
		c := &auth.Caller{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, RoleARN: role.ARN(), SessionName: session,
			ARN: auth.AssumedRoleARN(role.Account, role.Name, session), UserID: role.ID + ":" + session,
			Session: &auth.Session{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, ARN: role.ARN(), PrincipalID: role.ID, SessionName: session}}
		ctx = auth.WithCaller(auth.WithRequest(ctx, &auth.Request{Protocol: wire.JSON11, Service: "SSM", Region: region}), c)
		for _, a := range actions {
			if err := authorizer.Check(ctx, r, c, auth.Check{Action: a, Resource: "*"}); err != nil {
				return false
			}
		}
		return true
	}
}

// tasksEnded hands on that the tasks and instances of this machine ended with the region or
// the machine. Nothing serves yet, so none can have begun since.
func tasksEnded(ctx context.Context, l layout, db *store.DB, tasks *ecs.ECS) error {
	if _, err := os.Stat(l.ended()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("how the tasks of this machine ended: %w", err)
	}
	name, err := os.Hostname() // as the node calls itself
	if err != nil {
		return fmt.Errorf("name of this machine: %w", err)
	}
	if err := tasks.HostStopped(ctx, name); err != nil {
		return err
	}
	if err := dispatch.HostStopped(ctx, db, name); err != nil {
		return err
	}
	return os.Remove(l.ended())
}

// checks gives a service's table the door's type.
func checks(m map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check) map[string]service.Authorize {
	out := make(map[string]service.Authorize, len(m))
	for op, f := range m {
		out[op] = f
	}
	return out
}

// run serves until ctx ends or a part fails.
func (s *server) run(ctx context.Context, listener net.Listener) error {
	os.Remove(s.socket()) // a socket that nobody listens on any more
	socket, err := net.Listen("unix", s.socket())
	if err != nil {
		return fmt.Errorf("listen for nodes: %w", err)
	}
	if err := os.Chmod(s.socket(), 0o600); err != nil {
		return fmt.Errorf("socket for nodes: %w", err)
	}
	nodes := &http.Server{Handler: s.nodes, ReadHeaderTimeout: drainTime, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	host, _, _ := net.SplitHostPort(s.Listen)
	var ips []net.IP
	if ip := net.ParseIP(host); ip != nil {
		ips = append(ips, ip)
	}
	ips = append(ips, net.IP(s.pool.Masked().Addr().AsSlice()))
	tls := s.ca.TLS(service.Names(s.Region), ips, nil)

	defer s.registry.Close()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.door.Serve(listener, tls) })
	within, err := listenInside(gctx, s.Listen, s.pool)
	if err != nil {
		return err
	}
	if within != nil {
		g.Go(func() error { return s.door.Serve(within, tls) })
	}
	g.Go(func() error {
		if err := nodes.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve nodes: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		return s.db.WhileLeader(gctx, func(ctx context.Context) error { return s.lead(ctx) })
	})
	g.Go(func() error {
		<-gctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(gctx), drainTime)
		defer cancel()
		s.dispatch.Close()
		s.owner.Close()
		s.logs.Close()
		return errors.Join(s.door.Drain(drain), nodes.Shutdown(drain))
	})
	g.Go(func() error { return s.collect(gctx) })
	g.Go(func() error { s.usage.Run(gctx); return nil })
	g.Go(func() error { return s.db.Wait(gctx) })
	if err := process.Notify(); err != nil {
		return fmt.Errorf("say that the server is ready: %w", err)
	}
	s.log.Info("region is up", "endpoint", "http://"+s.Listen, "region", s.Region)
	err = g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		s.log.Info("region is down")
		return nil
	}
	return err
}

// collectEvery is how often image content and log events that nothing names are looked for.
const collectEvery = time.Hour

// collect removes image content and log events that nothing uses any more.
func (s *server) collect(ctx context.Context) error {
	s.freeing.Lock()
	if err := s.logs.Collect(); err != nil { // what a server that died has left
		s.log.Error("collect log events", "err", err)
	}
	s.freeing.Unlock()
	t := time.NewTicker(collectEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.free(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("collect", "err", err)
			}
		}
	}
}

// free gives back the space of what no row names any more.
func (s *server) free(ctx context.Context) error {
	s.freeing.Lock()
	defer s.freeing.Unlock()
	var errs []error
	if err := s.registry.Collect(ctx); err != nil {
		errs = append(errs, fmt.Errorf("image content: %w", err))
	}
	if err := s.logs.Collect(); err != nil {
		errs = append(errs, fmt.Errorf("log events: %w", err))
	}
	return errors.Join(errs...)
}

// lead runs what only one server of a region may do.
func (s *server) lead(ctx context.Context) error {
	clock := control.Clock{Now: func() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }, NewID: newID}
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range []control.Controller{
		deploy.Controller(deploy.Settings{HealthyAfter: s.healthyAfter, Fleet: s.fleet}),
		place.Controller(s.fleet), address.Controller, nat.Controller, endpoint.Controller, boot.Controller, group.Controller, capacity.Controller, settle.Controller, reap.Controller, reap.History, reap.Networks, reap.Sessions, vacate.Controller, lifecycle.Controller,
	} {
		g.Go(func() error { return control.Run(ctx, s.db, c, clock, s.log) })
	}
	return g.Wait()
}

// bootstrap makes what a new region begins with. Each part leaves alone what is there.
func (s *server) bootstrap(ctx context.Context, now func() time.Time) (*state.Region, error) {
	c, db := s.serverConfig, s.db
	var region *state.Region
	err := db.Update(ctx, func(tx *store.Tx) error {
		have, ok := state.Regions.Get(tx, state.RegionKey)
		if ok {
			if have.Name != c.Region || have.Account != c.Account {
				return fmt.Errorf("the data directory %s holds region %s of account %s", c.data, have.Name, have.Account)
			}
			n := *have
			n.ShortID = c.shortID() // the directory may have been moved
			n.IPv6Pool = have.IPv6()
			region = &n
		} else {
			pool, err := publicPool(c.shortID())
			if err != nil {
				return err
			}
			region = &state.Region{Name: c.Region, Account: c.Account, ShortID: c.shortID(), PublicPool: pool, Zones: zones(c.Region), CreatedAt: now()}
			region.IPv6Pool = region.IPv6()
		}
		state.Regions.Put(tx, region)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("set up region: %w", err)
	}
	if s.root, err = iam.Bootstrap(ctx, db, region.Account, now()); err != nil {
		return nil, err
	}
	if err := ec2.Bootstrap(ctx, db, region, region.Account, now(), newID); err != nil {
		return nil, fmt.Errorf("set up default VPC: %w", err)
	}
	return region, nil
}

// zones are the three that every region here has, with AWS's kind of ids.
func zones(region string) (out []state.Zone) {
	short := ""
	for i, part := range strings.Split(region, "-") {
		switch {
		case i == 0:
			short += part
		case len(part) == 1:
			short += part
		case part == "northeast", part == "northwest", part == "southeast", part == "southwest":
			short += part[:1] + part[5:6]
		default:
			short += part[:1]
		}
	}
	for i, letter := range "abc" {
		out = append(out, state.Zone{Name: region + string(letter), ID: fmt.Sprintf("%s-az%d", short, i+1)})
	}
	return out
}

// publicPool picks 1022 addresses of the range that is set aside for tests of
// network devices (RFC 2544) and that nothing on a real network uses. Regions
// on one machine must not share them, so a pool that the machine already
// routes is passed over.
func publicPool(shortID string) (netip.Prefix, error) {
	sum, err := hex.DecodeString(shortID)
	if err != nil || len(sum) == 0 {
		return netip.Prefix{}, fmt.Errorf("short id %q", shortID)
	}
	routed := hostPrefixes()
	for i := range 128 {
		n := (int(sum[0]) + i) % 128
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18 + byte(n/64), byte(n % 64 * 4), 0}), 22)
		free := true
		for _, r := range routed {
			if r.Bits() > 0 && r.Overlaps(p) {
				free = false
			}
		}
		if free {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("every pool of public addresses is in use on this machine")
}

// minter makes credentials of roles for services.
type minter struct {
	authorizer *auth.Authorizer
	sessions   *auth.Sessions
	now        func() time.Time
}

func (m minter) role(r store.Reader, arn, by, session string, lifetime time.Duration) (fabric.Credentials, error) {
	role, ok := state.Roles.Get(r, state.IAMKey(accountOf(arn), state.ShortARN(arn)))
	if !ok || role.ARN() != arn {
		return fabric.Credentials{}, fmt.Errorf("role %s does not exist", arn)
	}
	if !m.authorizer.ServiceMayAssume(role, by, nil) {
		return fabric.Credentials{}, fmt.Errorf("role %s does not trust %s", arn, by)
	}
	now := m.now()
	c, err := m.sessions.Mint(auth.Session{Kind: auth.AssumedRole, Account: role.Account, Name: role.Name, ARN: role.ARN(),
		PrincipalID: role.ID, SessionName: session}, now, now.Add(lifetime))
	if err != nil {
		return fabric.Credentials{}, fmt.Errorf("mint credentials of %s: %w", arn, err)
	}
	return fabric.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.Secret, Token: c.Token, Expiration: c.Expires}, nil
}

func nodeRoleARN(account string) string {
	return "arn:aws:iam::" + account + ":role" + iam.NodeRolePath + iam.NodeRole
}

func accountOf(arn string) string {
	if p := strings.SplitN(arn, ":", 6); len(p) == 6 {
		return p[4]
	}
	return ""
}

// taskEndpoint is the API as a Fargate task reaches it: by the gateway that
// the agent keeps in each VPC.
func taskEndpoint(endpoint string) string {
	address, err := gateway.Address(endpoint)
	if err != nil {
		return ""
	}
	return "http://" + address
}

// registryEndpoint is where a client that asked the API reaches the registry:
// the same port, by the account's own host name.
func (s *server) registryEndpoint(ctx context.Context, account string) string {
	r := auth.RequestFrom(ctx)
	scheme := "http"
	if r.Secure {
		scheme = "https"
	}
	host := account + ".dkr.ecr." + s.Region + ".localhost"
	if _, port, err := net.SplitHostPort(s.Listen); err == nil {
		host = net.JoinHostPort(host, port)
	}
	return scheme + "://" + host
}

// newID makes 32 random hex digits.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// reachable is the listen address as a client on this machine dials it.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// joinedPath is where whoever starts the region hears that a machine of it is
// there, or was at an earlier start.
const joinedPath = "/_berth/joined"

func (s *server) joined(w http.ResponseWriter, r *http.Request) {
	watch := s.db.Watch(state.Nodes)
	defer watch.Close()
	for {
		snap, _, err := watch.Next(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		for range state.Nodes.All(snap) {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
}

// envPath is where the owner of the machine gets the root credentials, on the
// socket that only root can open.
const envPath = "/_berth/env"

func (s *server) env(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(cli.Environment{Endpoint: "http://" + reachable(s.Listen), Region: s.Region, Account: s.Account,
		AccessKeyID: s.root.AccessKeyID, SecretAccessKey: s.root.Secret, CA: s.ca.CAPath()})
}
