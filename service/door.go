package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/service/throttle"
	"github.com/berth-run/berth/store"
)

// Authorize says what a caller must be allowed for one request of an operation.
// in is the operation's input. No checks means that everybody may.
type Authorize = func(ctx context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check

// A Registration is a service behind the door.
type Registration struct {
	*wire.Service
	// Authorize has the operations whose action or resources differ from
	// <prefix>:<Operation> on *.
	Authorize map[string]Authorize
	// Prefix of the service's actions; "" is its signing name.
	Prefix string
}

// Config is what a Door needs.
type Config struct {
	DB         *store.DB        // required
	Verifier   *auth.Verifier   // required
	Authorizer *auth.Authorizer // required
	Region     string           // required
	Services   []Registration
	// Handlers serve a path, or, if it ends with a slash, all that is under it,
	// in place of the API.
	// They authenticate on their own.
	Handlers map[string]http.Handler
	Log      *slog.Logger     // nil: nothing is logged
	Clock    func() time.Time // nil: time.Now
	// Throttle says how often an account may call; nil: as often as it likes.
	Throttle *throttle.Limiter
	// Exempt are callers that are not counted: the region's own machines.
	Exempt func(*auth.Caller) bool
	// HeaderTime is how long a client may take to send a request's header. 0: 20 seconds.
	HeaderTime time.Duration
	// BodyBytes is how much the bodies of all requests under way may be together. 0: 256 MiB.
	BodyBytes int64
	// BodyTime is how long a client may take to send a request's body. 0: a minute.
	BodyTime time.Duration
}

// A Door answers all requests to a region.
type Door struct {
	cfg      Config
	router   *wire.Router
	services map[*wire.Service]*Registration
	signing  map[string]bool // the services' names in signatures
	targets  map[string]bool // and in X-Amz-Target
	servers  servers
	bodies   atomic.Int64 // bytes of requests under way
}

// Time limits of a request to the API.
const (
	bodyTime   = 60 * time.Second
	answerTime = 120 * time.Second
)

// HealthPath answers 200 as soon as the door is open. It needs no credentials
// and tells nothing but that.
const HealthPath = "/_berth/health"

// New makes a door.
func New(cfg Config) (*Door, error) {
	if cfg.DB == nil || cfg.Verifier == nil || cfg.Authorizer == nil || cfg.Region == "" {
		return nil, errors.New("service: DB, Verifier, Authorizer and Region are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.HeaderTime == 0 {
		cfg.HeaderTime = headerTime
	}
	if cfg.BodyBytes == 0 {
		cfg.BodyBytes = maxBodies
	}
	if cfg.BodyTime == 0 {
		cfg.BodyTime = bodyTime
	}
	d := &Door{cfg: cfg, services: map[*wire.Service]*Registration{}, signing: map[string]bool{}, targets: map[string]bool{}}
	d.cfg.Services = append([]Registration(nil), cfg.Services...)
	var all []*wire.Service
	for i := range d.cfg.Services {
		r := &d.cfg.Services[i]
		if r.Prefix == "" {
			r.Prefix = r.SigningName
		}
		for op := range r.Authorize {
			if r.Operations[op] == nil {
				return nil, fmt.Errorf("service: %s has no operation %s to authorize", r.Name, op)
			}
		}
		d.services[r.Service] = r
		d.signing[r.SigningName] = true
		if r.TargetPrefix != "" {
			d.targets[r.TargetPrefix] = true
		}
		all = append(all, r.Service)
	}
	d.router = wire.NewRouter(all...)
	return d, nil
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if h := d.handler(r.URL.Path); h != nil {
		// A connection remembers the limits of the call before.
		_ = control.SetWriteDeadline(time.Time{})
		h.ServeHTTP(w, r)
		return
	}
	now := time.Now()
	// Not every ResponseWriter has deadlines; those of the listener do.
	_ = control.SetReadDeadline(now.Add(d.cfg.BodyTime))
	_ = control.SetWriteDeadline(now.Add(answerTime))
	if r.URL.Path == HealthPath {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, "{\"status\":\"ok\",\"region\":%q}\n", d.cfg.Region)
		return
	}
	d.serve(w, r)
}

// handler is the one with the longest path that r's path is under.
func (d *Door) handler(path string) http.Handler {
	var found http.Handler
	longest := 0
	for prefix, h := range d.cfg.Handlers {
		if len(prefix) > longest && (path == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix)) {
			found, longest = h, len(prefix)
		}
	}
	return found
}

// An exchange is one request on its way through the door, as the log sees it.
type exchange struct {
	id     string
	call   *wire.Call
	caller *auth.Caller
	start  time.Time

	retryAfter string // header of the answer, "" for none
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{id: newRequestID(), start: time.Now()}
	if len(r.TransferEncoding) > 0 {
		// What follows a chunked body is never taken for another request: whoever
		// stands between may see the body end elsewhere.
		w.Header().Set("Connection", "close")
	}
	err := checkHeaders(r)
	var body []byte
	if err == nil {
		var release func()
		body, release, err = d.readBody(r)
		defer release()
	}
	if err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not worth reading
	}
	var routeErr error
	x.call, routeErr = d.router.Route(r, body)
	if routeErr != nil && err == nil {
		if s := d.foreign(r); s != nil {
			d.log(r.Context(), x, s.error(), s.answer(w, x.id))
			return
		}
	}
	if x.call.Operation != nil && x.call.Operation.Streams {
		// It lasts as long as the client listens. Each event has its own limit.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
	}
	var out any
	if err == nil {
		err = routeErr
	}
	if err == nil {
		out, err = d.answer(r, body, x)
	}
	if x.retryAfter != "" {
		w.Header().Set("Retry-After", x.retryAfter)
	}
	var encodeErr error
	if err == nil {
		encodeErr = x.call.EncodeResponse(w, x.id, out)
	} else {
		encodeErr = x.call.EncodeError(w, x.id, err)
	}
	d.log(r.Context(), x, err, encodeErr)
}

// answer does what the request asks, if its caller may. A panic of a handler
// is an internal error of this request and of no other.
func (d *Door) answer(r *http.Request, body []byte, x *exchange) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	call := x.call
	reg := d.services[call.Service]
	snapshot := d.cfg.DB.Snapshot()
	if !call.Operation.Unsigned {
		x.caller, err = d.cfg.Verifier.Verify(snapshot, r, body, call.Service.SigningName)
		if err == nil {
			err = sessionTokenLimits(x.caller, call)
		}
		if f, ok := errors.AsType[*auth.Failure](err); ok {
			return nil, f.In(call.Protocol)
		}
		if err != nil {
			return nil, err
		}
	}
	if c := x.caller; c != nil && d.cfg.Throttle != nil && (d.cfg.Exempt == nil || !d.cfg.Exempt(c)) {
		if wait, ok := d.cfg.Throttle.Take(c.Account, call.Service.Name, call.Operation.Name); !ok {
			refusal, after := throttle.Error(call.Service.Description, wait)
			x.retryAfter = after
			return nil, refusal
		}
	}
	ctx := auth.WithRequest(r.Context(), d.request(r, x))
	if x.caller != nil {
		ctx = store.WithCondition(auth.WithCaller(ctx, x.caller), open(x.caller, call))
	}
	in, err := call.Decode()
	if err != nil {
		return nil, err
	}
	if err := call.Validate(in); err != nil {
		return nil, err
	}
	if !call.Operation.Unsigned {
		if err := d.cfg.Authorizer.Check(ctx, snapshot, x.caller, reg.Checks(ctx, snapshot, x.caller, call.Operation, in)...); err != nil {
			return nil, err
		}
	}
	if call.DryRun() {
		return nil, wire.NewError(http.StatusPreconditionFailed, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	}
	return call.Invoke(ctx, in)
}

// open lets a call write only while its account is open: of a request that was
// under way when its account was closed, nothing stays.
func open(c *auth.Caller, call *wire.Call) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		if auth.Open(tx, c.Account) {
			return nil
		}
		return (&auth.Failure{Kind: auth.UnknownKey, Message: "The security token included in the request is invalid."}).In(call.Protocol)
	}
}

// Checks are what the caller must be allowed for the operation.
func (r *Registration) Checks(ctx context.Context, s store.Reader, c *auth.Caller, op *wire.Operation, in any) []auth.Check {
	if f := r.Authorize[op.Name]; f != nil {
		return f(ctx, s, c, in)
	}
	return []auth.Check{{Action: r.Prefix + ":" + op.Name, Resource: "*"}}
}

// sessionTokenLimits holds sessions of users to what AWS lets them do: in IAM
// nothing without MFA, and nothing at all for federated users; little in STS.
func sessionTokenLimits(c *auth.Caller, call *wire.Call) error {
	if c.Session == nil || c.Kind == auth.AssumedRole {
		return nil
	}
	switch call.Service.SigningName {
	case "iam":
		if c.Session.MFA != 0 && c.Kind != auth.FederatedUser {
			return nil
		}
		return &auth.Failure{Kind: auth.UnknownKey, Message: "The security token included in the request is invalid"}
	case "sts":
		if op := call.Operation.Name; op != "GetCallerIdentity" && (op != "AssumeRole" || c.Kind == auth.FederatedUser) {
			return wire.NewError(http.StatusForbidden, "AccessDenied", "Cannot call "+op+" with session credentials")
		}
	}
	return nil
}

func (d *Door) request(r *http.Request, x *exchange) *auth.Request {
	q := &auth.Request{
		ID: x.id, Protocol: x.call.Protocol, Service: x.call.Service.Name, Operation: x.call.Operation.Name,
		Region: d.cfg.Region, Host: r.Host, Secure: r.TLS != nil, UserAgent: r.UserAgent(), Referer: r.Referer(), Time: d.cfg.Clock(),
	}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		q.SourceIP = a.Addr().Unmap()
	}
	return q
}

// log writes the one line that every request leaves.
func (d *Door) log(ctx context.Context, x *exchange, err, encodeErr error) {
	status, code, level := http.StatusOK, "", slog.LevelInfo
	if err != nil {
		status, code = http.StatusInternalServerError, "internal"
		if e, ok := errors.AsType[wire.Error](err); ok {
			status, code = e.HTTPStatus(), e.ErrorCode()
		}
	}
	op := ""
	if x.call.Service != nil {
		op = x.call.Service.Name + ":"
	}
	if x.call.Operation != nil {
		op += x.call.Operation.Name
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("op", op), slog.Int("status", status),
		slog.Float64("ms", float64(time.Since(x.start).Microseconds())/1000), slog.String("id", x.id))
	if x.caller != nil {
		attrs = append(attrs, slog.String("caller", x.caller.ARN))
	}
	if code != "" {
		attrs = append(attrs, slog.String("code", code))
	}
	// What the region refuses on purpose (503 for a call too many, 501 for what it does not have)
	// is the caller's news, not the operator's.
	if status == http.StatusInternalServerError {
		level = slog.LevelError
		attrs = append(attrs, slog.Any("error", err))
	}
	if encodeErr != nil {
		attrs = append(attrs, slog.String("answer", encodeErr.Error()))
	}
	d.cfg.Log.LogAttrs(ctx, level, "request", attrs...)
}

// newRequestID makes a random UUID.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var id [36]byte
	hex.Encode(id[:], b[:4])
	hex.Encode(id[9:], b[4:6])
	hex.Encode(id[14:], b[6:8])
	hex.Encode(id[19:], b[8:10])
	hex.Encode(id[24:], b[10:])
	id[8], id[13], id[18], id[23] = '-', '-', '-', '-'
	return string(id[:])
}
