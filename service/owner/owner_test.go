package owner

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func start(t *testing.T) (*store.DB, *Owner, func(method, path, body string) (int, string)) {
	t.Helper()
	db := store.OpenMemory()
	now := func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }
	o := New(Config{DB: db, Now: now, Log: slog.New(slog.DiscardHandler),
		Furnish: func(tx *store.Tx, id string) Key {
			state.Accounts.Put(tx, &state.Account{ID: id, CreatedAt: now()})
			return Key{"AKIA" + id, "secret"}
		},
		Free: func(context.Context) error { return nil },
	})
	mux := http.NewServeMux()
	for pattern, h := range o.Routes() {
		mux.HandleFunc(pattern, h)
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(func() { o.Close(); srv.Close(); db.Close() })
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, &state.Region{Name: "us-east-1", Account: "000000000000"})
		state.Accounts.Put(tx, &state.Account{ID: "000000000000", CreatedAt: now()})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return db, o, func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b strings.Builder
		if _, err := io.Copy(&b, res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, b.String()
	}
}

func TestAccounts(t *testing.T) {
	db, _, ask := start(t)
	for _, x := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", AccountsPath, `{"id":"123456789012"}`, 200, `"accessKeyId":"AKIA123456789012","secretAccessKey":"secret"`},
		{"POST", AccountsPath, `{"id":"123456789012"}`, 409, "account 123456789012 exists already"},
		{"POST", AccountsPath, `{"id":"12345678901x"}`, 400, "it has 12 digits"},
		{"POST", AccountsPath, `{"id":"\u0661\u0662\u0663456789012"}`, 400, "it has 12 digits"},
		{"POST", AccountsPath, `nonsense`, 400, "not JSON"},
		{"GET", AccountsPath, "", 200, `"first":true`},
		{"DELETE", AccountsPath + "/000000000000", "", 409, "the region's own"},
		{"DELETE", AccountsPath + "/999999999999", "", 404, "there is no account"},
		{"DELETE", AccountsPath + "/..%2fx", "", 404, "there is no account"},
	} {
		if status, body := ask(x.method, x.path, x.body); status != x.status || !strings.Contains(body, x.want) {
			t.Errorf("%s %s %s: %d %s", x.method, x.path, x.body, status, body)
		}
	}
	ids := map[string]bool{}
	for range 50 {
		_, body := ask("POST", AccountsPath, "{}")
		var a Account
		if err := json.Unmarshal([]byte(body), &a); err != nil || !state.IsAccountID(a.ID) || a.ID[0] == '0' || ids[a.ID] {
			t.Fatalf("%s %v", body, err)
		}
		ids[a.ID] = true
	}
	if n := state.Accounts.Count(db.Snapshot()); n != 52 {
		t.Errorf("%d accounts", n)
	}
}

// Whoever waits for the end hears of it when the account's row goes, and of
// each step before.
func TestDeleteWaits(t *testing.T) {
	db, o, ask := start(t)
	ask("POST", AccountsPath, `{"id":"123456789012"}`)
	put := func(f func(tx *store.Tx)) {
		t.Helper()
		if err := db.Update(t.Context(), func(tx *store.Tx) error { f(tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(func(tx *store.Tx) {
		state.Tasks.Put(tx, &state.Task{ARN: "t", Account: "123456789012", LastStatus: state.Running})
	})
	done := make(chan string, 1)
	go func() {
		_, body := ask("DELETE", AccountsPath+"/123456789012", "")
		done <- body
	}()
	w := db.Watch(state.Accounts)
	defer w.Close()
	for {
		snap, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := state.Accounts.Get(snap, "123456789012"); ok && a.Closing() {
			break
		}
	}
	if status, body := ask("POST", AccountsPath, `{"id":"123456789012"}`); status != 409 || !strings.Contains(body, "is being deleted") {
		t.Errorf("%d %s", status, body)
	}
	select {
	case body := <-done:
		t.Fatalf("it is said to be gone while a task runs: %s", body)
	default:
	}
	put(func(tx *store.Tx) { state.Tasks.Delete(tx, "t") })
	put(func(tx *store.Tx) { state.Accounts.Delete(tx, "123456789012") })
	if body := <-done; !strings.HasSuffix(body, "{\"done\":true}\n") {
		t.Errorf("%s", body)
	}

	// A server that ends lets nobody wait for ever.
	ask("POST", AccountsPath, `{"id":"123456789012"}`)
	go func() {
		_, body := ask("DELETE", AccountsPath+"/123456789012", "")
		done <- body
	}()
	for {
		snap, _, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := state.Accounts.Get(snap, "123456789012"); ok && a.Closing() {
			break
		}
	}
	o.Close()
	if body := <-done; strings.Contains(body, "done") {
		t.Errorf("%s", body)
	}
}

func TestQuotas(t *testing.T) {
	db, _, ask := start(t)
	const name = "ecs/clusters"
	limit := func(account string) int { return state.Limit(db.Snapshot(), account, name) }
	for _, x := range []struct {
		method, path, body string
		status             int
		want               string
		mine, others       int
	}{
		{"PUT", QuotasPath + "/" + name, `{"value":7}`, 200, "", 7, 7},
		{"PUT", QuotasPath + "/" + name + "?account=000000000000", `{"value":3}`, 200, "", 3, 7},
		{"GET", QuotasPath + "?account=000000000000", "", 200, `{"name":"ecs/clusters","value":3,"default":10000,"set":"account"}`, 3, 7},
		{"GET", QuotasPath, "", 200, `{"name":"ecs/clusters","value":7,"default":10000,"set":"region"}`, 3, 7},
		{"PUT", QuotasPath + "/ecs/clusterz", `{"value":7}`, 404, "ecs/clusters", 3, 7},
		{"PUT", QuotasPath + "/" + name, `{"value":-1}`, 400, "negative", 3, 7},
		{"PUT", QuotasPath + "/" + name, `{"value":"x"}`, 400, "not JSON", 3, 7},
		{"PUT", QuotasPath + "/" + name + "?account=999999999999", `{"value":1}`, 404, "no account", 3, 7},
		{"DELETE", QuotasPath + "/nothing", "", 404, "there is no quota", 3, 7},
		{"DELETE", QuotasPath + "/" + name, "", 200, "", 3, 10000},
		{"DELETE", QuotasPath + "?account=000000000000", "", 200, "", 10000, 10000},
	} {
		status, body := ask(x.method, x.path, x.body)
		if status != x.status || !strings.Contains(body, x.want) {
			t.Errorf("%s %s: %d %s", x.method, x.path, status, body)
		}
		if mine, others := limit("000000000000"), limit("1"); mine != x.mine || others != x.others {
			t.Errorf("after %s %s: %d and %d, want %d and %d", x.method, x.path, mine, others, x.mine, x.others)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"ecs/clusters", "ecs/services-per-cluster", "ecr/repositories", "iam/roles"}
	for said, want := range map[string]string{"ecs/cluster": "ecs/clusters", "clusters": "ecs/clusters", "iam/role": "iam/roles", "repos": "ecr/repositories", "": "iam/roles", strings.Repeat("x", 10_000): "ecr/repositories"} {
		if got := nearest(said, names)[0]; got != want {
			t.Errorf("%.20q: %s, want %s", said, got, want)
		}
	}
}
