package ecs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control/place/fleet"
	"github.com/berth-run/berth/store"
)

// Config is what an ECS needs.
type Config struct {
	DB      *store.DB // required
	Region  string    // required
	Account string    // required; the account of callers that carry none

	// Clock tells the time. nil: time.Now.
	Clock func() time.Time
	// NewID makes 32 random hex digits. nil: from crypto/rand.
	NewID func() string
	// PassRole returns the error that the caller gets if it may not hand the
	// role to the AWS service. Required; auth.Authorizer has it.
	PassRole func(ctx context.Context, r store.Reader, caller *auth.Caller, roleARN, service string) error
	// Fleet chooses container instances. nil: one that nobody else uses.
	Fleet *fleet.Fleet
	// PollEndpoint is the URL under which the agent of this request finds ACS and TCS. Required.
	PollEndpoint func(ctx context.Context) string
	// Connected tells whether terminals can be had on a node. nil: nowhere.
	Connected func(node string) bool
	// RoleMay tells whether a role, as an AWS service's, may do all of the
	// actions on everything. nil: it may not.
	RoleMay func(ctx context.Context, r store.Reader, roleARN, service string, actions ...string) bool
}

// ECS answers the ECS API.
type ECS struct {
	api.Unimplemented
	cfg Config
	db  *store.DB
}

var _ api.Handler = (*ECS)(nil)

// New makes the service. It panics on a Config that lacks something required:
// that is a mistake in the wiring, not an input.
func New(cfg Config) *ECS {
	if cfg.DB == nil || cfg.Region == "" || cfg.Account == "" || cfg.PassRole == nil || cfg.PollEndpoint == nil {
		panic("ecs: incomplete Config")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.NewID == nil {
		cfg.NewID = randomID
	}
	if cfg.Connected == nil {
		cfg.Connected = func(string) bool { return false }
	}
	if cfg.RoleMay == nil {
		cfg.RoleMay = func(context.Context, store.Reader, string, string, ...string) bool { return false }
	}
	if cfg.Fleet == nil {
		cfg.Fleet = fleet.New(cfg.DB)
	}
	return &ECS{cfg: cfg, db: cfg.DB}
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// now is the time as it is stored: UTC, with the milliseconds that AWS shows.
func (e *ECS) now() time.Time { return e.cfg.Clock().UTC().Truncate(time.Millisecond) }

// caller is who makes the request; a region calling itself is its account.
func (e *ECS) caller(ctx context.Context) *auth.Caller {
	if c := auth.FromContext(ctx); c != nil {
		return c
	}
	return &auth.Caller{Kind: auth.RootUser, Account: e.cfg.Account, ARN: rootARN(e.cfg.Account)}
}

// uuid makes an id of the form that containers and attachments have.
func (e *ECS) uuid() string {
	s := e.cfg.NewID()
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// deploymentID makes ecs-svc/ and 19 digits, the first of which is not 0.
func (e *ECS) deploymentID() string {
	b, _ := hex.DecodeString(e.cfg.NewID()) // it is 32 hex digits
	n := binary.BigEndian.Uint64(b) ^ binary.BigEndian.Uint64(b[8:])
	const low = 1_000_000_000_000_000_000
	return fmt.Sprintf("ecs-svc/%d", low+n%(9*low-1))
}

// view runs fn on the newest state.
func (e *ECS) view(fn func(r store.Reader) error) error { return fn(e.db.Snapshot()) }

// update runs fn as one transaction.
func (e *ECS) update(ctx context.Context, fn func(tx *store.Tx) error) error {
	err := e.db.Update(ctx, fn)
	if errors.Is(err, store.ErrTooLarge) {
		return invalid("The request is larger than what can be changed at once.")
	}
	return err
}

func invalid(format string, args ...any) error {
	return &api.InvalidParameterException{Message: fmt.Sprintf(format, args...)}
}

func client(format string, args ...any) error {
	return &api.ClientException{Message: fmt.Sprintf(format, args...)}
}

// unsupported refuses a field whose machinery this version does not have.
func unsupported(field string) error {
	return invalid("%s is not supported by this version of Berth.", field)
}

func opt(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// some is a member that is left out if it is empty. It points into an object of
// the store, which nobody changes.
func some[T comparable](v *T) *T {
	if *v == *new(T) {
		return nil
	}
	return v
}

// when is some for times.
func when(t *time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return t
}

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func num(n int) *int32 { return new(int32(n)) }

func val[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// list is l, never nil: AWS answers an empty list where there is nothing.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
