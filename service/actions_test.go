package service_test

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/actions"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

var update = flag.Bool("update", false, "rewrite testdata/deviations.txt")

const deviations = "testdata/deviations.txt"

// Every service asks for the actions that AWS has, on the types of resources
// and with the condition keys that AWS's table gives them. Where that is not so
// yet, testdata/deviations.txt says so, and after a # why it stays so; -update
// rewrites it.
func TestChecksFollowTheTable(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	sessions, err := auth.NewSessions(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	caller := &auth.Caller{Kind: auth.User, Account: account, Name: "nobody", ARN: "arn:aws:iam::" + account + ":user/nobody", UserID: "AIDAX"}
	ctx := auth.WithCaller(auth.WithRequest(t.Context(), &auth.Request{Region: region}), caller)
	found := map[string]bool{}
	for _, reg := range everything(t, db, sessions, &auth.Authorizer{Sessions: sessions}) {
		if reg.Prefix == "" {
			reg.Prefix = reg.SigningName
		}
		for name, op := range reg.Operations {
			if op.Unsigned {
				continue
			}
			for i, in := range []any{op.New(), filled(op.New())} {
				if i == 0 && wire.Validate(op, in) != nil {
					continue
				}
				for _, c := range reg.Checks(ctx, db.Snapshot(), caller, op, in) {
					for _, what := range deviates(&c) {
						found[reg.Prefix+":"+name+" "+what] = true
					}
				}
			}
		}
	}
	text, err := os.ReadFile(deviations)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{} // with its reason
	for line := range strings.Lines(string(text)) {
		d, why, _ := strings.Cut(strings.TrimSpace(line), " # ")
		known[d] = why
	}
	got := slices.Sorted(maps.Keys(found))
	if *update {
		var out strings.Builder
		for _, d := range got {
			out.WriteString(d)
			if why := known[d]; why != "" {
				out.WriteString(" # " + why)
			}
			out.WriteString("\n")
		}
		if err := os.WriteFile(deviations, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, d := range got {
		why, ok := known[d]
		if !ok {
			t.Errorf("deviates from the table: %s", d)
		} else if reasoned[strings.SplitN(d, ":", 2)[0]] && why == "" {
			t.Errorf("deviates from the table without a reason: %s", d)
		}
	}
	for d := range known {
		if !found[d] {
			t.Errorf("no longer deviates (run with -update): %s", d)
		}
	}
}

// reasoned are the services whose deviations must each say why they stay.
var reasoned = map[string]bool{"ecs": true, "iam": true, "sts": true}

// deviates lists what a check has that the table does not.
func deviates(c *auth.Check) (out []string) {
	a, ok := actions.Find(c.Action)
	if !ok {
		return []string{c.Action + " is no action"}
	}
	switch {
	case c.Resource == "*" || c.Resource == "x": // x is the filling of a member that should be an ARN
		if a.NeedsResource() && c.Resource == "*" {
			out = append(out, c.Action+" needs a resource")
		}
	case a.Type(c.Resource) == nil && !strings.Contains(c.Resource, ":some:"): // as is this ARN
		kind := c.Resource
		if part := strings.SplitN(kind, ":", 6); len(part) == 6 {
			kind, _, _ = strings.Cut(part[2]+":"+part[5], "/")
		}
		out = append(out, c.Action+" is not for "+kind)
	}
	for k := range c.Keys {
		global := strings.HasPrefix(k, "aws:") && !strings.HasPrefix(k, "aws:RequestTag/") && !strings.HasPrefix(k, "aws:ResourceTag/") && k != "aws:TagKeys"
		if !global && !a.HasKey(k) {
			key, _, _ := strings.Cut(k, "/")
			out = append(out, c.Action+" has no key "+key)
		}
	}
	return out
}
