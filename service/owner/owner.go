// Package owner answers the owner of the machine, who may make and delete
// accounts and set quotas: things for which AWS has a contract, not an API of
// this region. Its routes belong on a socket that nobody else can open; it
// authenticates nobody.
//
// It decides who exists and what they may have, and never what happens to the
// things they made: that follows from the rows it writes.
package owner

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what an Owner needs.
type Config struct {
	DB  *store.DB
	Now func() time.Time
	// Furnish gives a new account what an AWS account begins with, and returns
	// the access key of its root user. It is a part of a transaction.
	Furnish func(tx *store.Tx, account string) Key
	// Free takes away what deleted accounts had outside the store.
	Free func(context.Context) error
	Log  *slog.Logger
}

// A Key is an access key.
type Key struct{ AccessKeyID, Secret string }

// Owner answers.
type Owner struct {
	Config
	once   sync.Once
	closed chan struct{}
}

// New makes an Owner.
func New(c Config) *Owner { return &Owner{Config: c, closed: make(chan struct{})} }

// Close ends the answers that wait for something.
func (o *Owner) Close() { o.once.Do(func() { close(o.closed) }) }

// Paths of the routes.
const (
	AccountsPath = "/_berth/accounts"
	QuotasPath   = "/_berth/quotas"
)

// Routes are the handlers by pattern.
func (o *Owner) Routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"POST " + AccountsPath:                o.create,
		"GET " + AccountsPath:                 o.list,
		"DELETE " + AccountsPath + "/{id}":    o.delete,
		"GET " + QuotasPath:                   o.quotas,
		"PUT " + QuotasPath + "/{name...}":    o.setQuota,
		"DELETE " + QuotasPath:                o.resetQuota,
		"DELETE " + QuotasPath + "/{name...}": o.resetQuota,
	}
}

// A Problem is an error in words for the owner.
type Problem struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
}

func (p *Problem) Error() string { return p.Message }

func problem(status int, format string, args ...any) error {
	return &Problem{status, fmt.Sprintf(format, args...)}
}

func (o *Owner) fail(w http.ResponseWriter, err error) {
	p, ok := err.(*Problem)
	if !ok {
		o.Log.Error("owner", "err", err)
		p = &Problem{http.StatusInternalServerError, err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Account is an account as the owner sees it.
type Account struct {
	ID              string         `json:"id"`
	AccessKeyID     string         `json:"accessKeyId,omitempty"` // of a new one
	SecretAccessKey string         `json:"secretAccessKey,omitempty"`
	CreatedAt       time.Time      `json:"createdAt,omitzero"`
	Closing         bool           `json:"closing,omitempty"`
	First           bool           `json:"first,omitempty"` // the region's own
	Holds           map[string]int `json:"holds,omitempty"` // rows by table; of tasks, those that are not stopped
}

// maxInput bounds what the owner sends.
const maxInput = 1 << 16

func (o *Owner) create(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxInput)).Decode(&in); err != nil {
		o.fail(w, problem(http.StatusBadRequest, "the request is not JSON: %v", err))
		return
	}
	if in.ID != "" && !state.IsAccountID(in.ID) {
		o.fail(w, problem(http.StatusBadRequest, "%q is not an account id: it has 12 digits", in.ID))
		return
	}
	var id string
	var key Key
	err := o.DB.Update(r.Context(), func(tx *store.Tx) error {
		if id = in.ID; id == "" {
			for id = randomID(); state.Accounts.Has(tx, id); id = randomID() {
			}
		}
		if a, ok := state.Accounts.Get(tx, id); ok {
			if a.Closing() {
				return problem(http.StatusConflict, "account %s is being deleted; it can be made again once it is gone", id)
			}
			return problem(http.StatusConflict, "account %s exists already", id)
		}
		key = o.Furnish(tx, id)
		return nil
	})
	if err != nil {
		o.fail(w, err)
		return
	}
	answer(w, Account{ID: id, AccessKeyID: key.AccessKeyID, SecretAccessKey: key.Secret})
}

// randomID is an account id that does not begin with 0: spreadsheets lose that.
func randomID() string {
	var b [8]byte
	rand.Read(b[:])
	return fmt.Sprint(100_000_000_000 + binary.BigEndian.Uint64(b[:])%900_000_000_000)
}

func (o *Owner) list(w http.ResponseWriter, _ *http.Request) {
	snap := o.DB.Snapshot()
	first := firstAccount(snap)
	holds := map[string]map[string]int{}
	for a := range state.Accounts.All(snap) {
		holds[a.ID] = map[string]int{}
	}
	for _, t := range store.Tables() {
		for key, row := range store.Rows(snap, t) {
			account, _ := state.Owner(snap, t, key, row)
			if k, ok := row.(*state.Task); ok && k.LastStatus == state.Stopped {
				continue
			}
			if of := holds[account]; of != nil {
				of[t.Name()]++
			}
		}
	}
	out := []Account{}
	for a := range state.Accounts.All(snap) {
		out = append(out, Account{ID: a.ID, CreatedAt: a.CreatedAt, Closing: a.Closing(), First: a.ID == first, Holds: holds[a.ID]})
	}
	slices.SortStableFunc(out, func(a, b Account) int { return a.CreatedAt.Compare(b.CreatedAt) })
	answer(w, out)
}

func firstAccount(r store.Reader) string {
	if region, ok := state.Regions.Get(r, state.RegionKey); ok {
		return region.Account
	}
	return ""
}

// Progress is what is still left of an account that is being deleted. The last
// one is Done, and there is nothing left.
type Progress struct {
	Services   int    `json:"services,omitempty"`
	Tasks      int    `json:"tasks,omitempty"`
	Interfaces int    `json:"interfaces,omitempty"`
	Done       bool   `json:"done,omitempty"`
	Error      string `json:"error,omitempty"`
}

// delete closes an account at once, and answers with a line of Progress each
// time that less is left. It does not matter if nobody waits for the end: the
// controllers go on.
func (o *Owner) delete(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	watch := o.DB.Watch(state.Accounts, state.Services, state.Tasks, state.NetworkInterfaces)
	defer watch.Close()
	err := o.DB.Update(r.Context(), func(tx *store.Tx) error {
		a, ok := state.Accounts.Get(tx, id)
		switch {
		case !ok:
			return problem(http.StatusNotFound, "there is no account %q", id)
		case id == firstAccount(tx):
			return problem(http.StatusConflict, "account %s is the region's own and goes with the region", id)
		case a.Closing():
			return nil
		}
		n := *a
		n.ClosingAt = o.Now()
		state.Accounts.Put(tx, &n)
		return nil
	})
	if err != nil {
		o.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	say := func(p Progress) error {
		if err := lines.Encode(p); err != nil {
			return err
		}
		return flush.Flush()
	}
	ctx, cancel := context.WithCancel(r.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	waiting.Go(func() {
		select {
		case <-o.closed:
			cancel()
		case <-ctx.Done():
		}
	})
	last := Progress{Services: -1}
	for {
		snap, _, err := watch.Next(ctx)
		if err != nil {
			return // the client went away, or the server does
		}
		if a, ok := state.Accounts.Get(snap, id); !ok || !a.Closing() {
			break
		}
		if p := left(snap, id); p != last {
			if last = p; say(p) != nil {
				return
			}
		}
	}
	end := Progress{Done: true}
	if err := o.Free(ctx); err != nil {
		o.Log.Error("free the space of a deleted account", "account", id, "err", err)
		end.Error = err.Error()
	}
	_ = say(end)
}

func left(r store.Reader, account string) (p Progress) {
	for s := range state.Services.All(r) {
		if s.Account == account {
			p.Services++
		}
	}
	for t := range state.Tasks.All(r) {
		if t.Account == account && t.LastStatus != state.Stopped {
			p.Tasks++
		}
	}
	for e := range state.NetworkInterfaces.All(r) {
		if e.Account == account {
			p.Interfaces++
		}
	}
	return p
}

// Quota is a quota as it holds.
type Quota struct {
	Name    string `json:"name"`
	Value   int    `json:"value"`
	Default int    `json:"default"`
	// Set says where the value comes from: "account", "region" or "".
	Set string `json:"set,omitempty"`
}

func (o *Owner) quotas(w http.ResponseWriter, r *http.Request) {
	snap, account := o.DB.Snapshot(), r.URL.Query().Get("account")
	if err := known(snap, account); err != nil {
		o.fail(w, err)
		return
	}
	out := []Quota{}
	for _, name := range state.QuotaNames() {
		q := Quota{Name: name, Value: state.Limit(snap, account, name)}
		q.Default, _ = state.QuotaDefault(name)
		switch {
		case account != "" && state.Quotas.Has(snap, state.QuotaKey(account, name)):
			q.Set = "account"
		case state.Quotas.Has(snap, state.QuotaKey("", name)):
			q.Set = "region"
		}
		out = append(out, q)
	}
	answer(w, out)
}

// known refuses an account that does not exist. "" is every account.
func known(r store.Reader, account string) error {
	if account != "" && !state.Accounts.Has(r, account) {
		return problem(http.StatusNotFound, "there is no account %q", account)
	}
	return nil
}

func (o *Owner) setQuota(w http.ResponseWriter, r *http.Request) {
	name, account := r.PathValue("name"), r.URL.Query().Get("account")
	var in struct {
		Value int `json:"value"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxInput)).Decode(&in); err != nil {
		o.fail(w, problem(http.StatusBadRequest, "the request is not JSON: %v", err))
		return
	}
	if err := checkQuota(name); err != nil {
		o.fail(w, err)
		return
	}
	if in.Value < 0 {
		o.fail(w, problem(http.StatusBadRequest, "a quota cannot be negative"))
		return
	}
	err := o.DB.Update(r.Context(), func(tx *store.Tx) error {
		if err := known(tx, account); err != nil {
			return err
		}
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: name, Value: in.Value})
		return nil
	})
	if err != nil {
		o.fail(w, err)
		return
	}
	answer(w, struct{}{})
}

// resetQuota takes back what was set: one quota, or with no name all of them,
// for an account or, without one, for every account that has none of its own.
func (o *Owner) resetQuota(w http.ResponseWriter, r *http.Request) {
	name, account := r.PathValue("name"), r.URL.Query().Get("account")
	if name != "" {
		if err := checkQuota(name); err != nil {
			o.fail(w, err)
			return
		}
	}
	err := o.DB.Update(r.Context(), func(tx *store.Tx) error {
		if err := known(tx, account); err != nil {
			return err
		}
		for q := range state.Quotas.Prefix(tx, state.QuotaKey(account, "")) {
			if q.Account == account && (name == "" || q.Name == name) {
				state.Quotas.Delete(tx, state.QuotaKey(account, q.Name))
			}
		}
		return nil
	})
	if err != nil {
		o.fail(w, err)
		return
	}
	answer(w, struct{}{})
}

func checkQuota(name string) error {
	if _, ok := state.QuotaDefault(name); ok {
		return nil
	}
	near := nearest(name, state.QuotaNames())
	return problem(http.StatusNotFound, "there is no quota %q; near to it are %s", name, strings.Join(near, ", "))
}

// nearest are the three names that are most like one.
func nearest(name string, names []string) []string {
	away := map[string]int{}
	for _, n := range names {
		d := distance(name, n)
		if name != "" && strings.Contains(n, name) {
			d = 0
		}
		away[n] = d
	}
	by := slices.SortedFunc(maps.Keys(away), func(a, b string) int {
		if away[a] != away[b] {
			return away[a] - away[b]
		}
		return strings.Compare(a, b)
	})
	return by[:min(3, len(by))]
}

// distance is how many letters must be put in, taken out or changed.
func distance(a, b string) int {
	if len(a) > maxName {
		a = a[:maxName]
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

const maxName = 200
