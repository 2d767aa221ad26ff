package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berth-run/berth/registry/lifecycle"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// rule writes one rule.
func rule(priority int, selection, action string) string {
	return fmt.Sprintf(`{"rulePriority":%d,"description":"d","selection":{%s},"action":{%s}}`, priority, selection, action)
}

const (
	expire    = `"type":"expire"`
	archive   = `"type":"transition","targetStorageClass":"archive"`
	anyCount1 = `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1`
	days7     = `,"countUnit":"days","countNumber":7`
)

func TestParse(t *testing.T) {
	with := func(rules ...string) string { return `{"rules":[` + strings.Join(rules, ",") + `]}` }
	many := make([]string, 51)
	for i := range many {
		many[i] = rule(i+1, `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1`, expire)
	}
	for _, x := range []struct{ text, want string }{
		{with(rule(1, anyCount1, expire)), ""},
		{with(many[:50]...), ""},
		{with(rule(1, `"tagStatus":"tagged","tagPatternList":["*a*b*c*"],"countType":"sinceImagePulled"`+days7, archive)), ""},
		{with(rule(2, anyCount1, expire), rule(3, `"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned"`+days7, expire)), ""},
		{`{`, "Could not map policyString into LifecyclePolicy."},
		{`[]`, "Could not map policyString into LifecyclePolicy."},
		{with(rule(1, anyCount1, expire)) + `x`, "Could not map policyString into LifecyclePolicy."},
		{`{"rules":[1]}`, "Could not map policyString into LifecyclePolicy."},
		{`{}`, `object has missing required properties (["rules"])`},
		{`{"rules":[]}`, "a policy has 1 to 50 rules"},
		{with(many...), "a policy has 1 to 50 rules"},
		{`{"rules":[{"description":"x"}]}`, `object has missing required properties (["action","rulePriority","selection"])`},
		{`{"rules":[],"more":1}`, `object instance has properties which are not allowed by the schema: (["more"])`},
		{with(rule(1, `"tagStatus":"any"`, expire)), `object has missing required properties (["countNumber","countType"])`},
		{with(rule(0, anyCount1, expire)), "numeric instance is lower than the required minimum (minimum: 1, found: 0)"},
		{with(rule(1, `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":0`, expire)), "numeric instance is lower than the required minimum (minimum: 1, found: 0)"},
		{with(rule(1, `"tagStatus":"some","countType":"imageCountMoreThan","countNumber":1`, expire)), `instance value ("some") not found in enum (possible values: ["any","tagged","untagged"])`},
		{with(rule(1, `"tagStatus":"any","countType":"x","countNumber":1`, expire)), `instance value ("x") not found in enum (possible values: ["imageCountMoreThan","sinceImagePulled","sinceImagePushed","sinceImageTransitioned"])`},
		{with(rule(1, anyCount1, `"type":"keep"`)), `instance value ("keep") not found in enum (possible values: ["expire","transition"])`},
		{with(rule(1, anyCount1+`,"storageClass":"cold"`, expire)), `instance value ("cold") not found in enum (possible values: ["archive","standard"])`},
		{with(many[0], many[0]), "rule priority 1 is used more than once"},
		{with(rule(1, anyCount1+`,"countUnit":"days"`, expire)), "countUnit is not allowed with countType imageCountMoreThan"},
		{with(rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countNumber":1`, expire)), "countUnit must be days with a countType of time"},
		{with(rule(1, `"tagStatus":"tagged","countType":"imageCountMoreThan","countNumber":1`, expire)), "tagPrefixList or tagPatternList is required with tagStatus tagged"},
		{with(rule(1, `"tagStatus":"tagged","tagPrefixList":["a"],"tagPatternList":["a"],"countType":"imageCountMoreThan","countNumber":1`, expire)), "tagPrefixList and tagPatternList exclude each other"},
		{with(rule(1, anyCount1+`,"tagPrefixList":["a"]`, expire)), "tagPrefixList and tagPatternList are only allowed with tagStatus tagged"},
		{with(rule(1, `"tagStatus":"tagged","tagPrefixList":[""],"countType":"imageCountMoreThan","countNumber":1`, expire)), "a tag prefix or pattern has at least one character"},
		{with(rule(1, `"tagStatus":"tagged","tagPatternList":["*****"],"countType":"imageCountMoreThan","countNumber":1`, expire)), "a tag pattern can have at most 4 wildcards"},
		{with(rule(1, anyCount1, `"type":"transition"`)), "an action of type transition, and no other, has targetStorageClass archive"},
		{with(rule(1, anyCount1, expire+`,"targetStorageClass":"archive"`)), "an action of type transition, and no other, has targetStorageClass archive"},
		{with(rule(1, anyCount1+`,"storageClass":"archive"`, expire)), "countType sinceImageTransitioned, and no other, has storageClass archive"},
		{with(rule(1, `"tagStatus":"any","countType":"sinceImageTransitioned"`+days7, expire)), "countType sinceImageTransitioned, and no other, has storageClass archive"},
		{with(rule(1, `"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned"`+days7, archive)), "what is in storageClass archive can only expire"},
		{with(rule(1, anyCount1, expire), rule(2, anyCount1, expire)), "only one rule can have tagStatus any"},
		{with(rule(1, anyCount1, expire), many[1]), "the rule with tagStatus any must have the highest rulePriority"},
	} {
		_, err := lifecycle.Parse(x.text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != x.want {
			t.Errorf("%s:\n got %q\nwant %q", x.text, got, x.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"rules":[` + rule(1, anyCount1, expire) + `]}`)
	f.Add(`{"rules":[` + rule(1, `"tagStatus":"tagged","tagPrefixList":["a"],"countType":"sinceImagePulled"`+days7, archive) + `]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := lifecycle.Parse(text)
		if err != nil {
			return
		}
		if len(p.Rules) == 0 || !slices.IsSortedFunc(p.Rules, func(a, b lifecycle.Rule) int { return a.Priority - b.Priority }) {
			t.Errorf("%+v", p)
		}
	})
}

func parse(t interface{ Fatal(...any) }, rules ...string) *lifecycle.Policy {
	p, err := lifecycle.Parse(`{"rules":[` + strings.Join(rules, ",") + `]}`)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// img is an image that is so many days old; tags are separated by spaces.
func img(name string, age int, tags string, change ...func(*lifecycle.Image)) lifecycle.Image {
	m := lifecycle.Image{Image: &state.Image{Digest: name, PushedAt: now.Add(-time.Duration(age) * day)}, Tags: strings.Fields(tags)}
	for _, c := range change {
		c(&m)
	}
	return m
}

func taken(verdicts []lifecycle.Verdict) string {
	var s []string
	for _, v := range verdicts {
		n := 0
		if v.Rule != nil {
			n = v.Rule.Priority
		}
		s = append(s, fmt.Sprintf("%s:%d", v.Image.Digest, n))
	}
	return strings.Join(s, " ")
}

func TestEvaluate(t *testing.T) {
	held := func(m *lifecycle.Image) { m.Held = true }
	pulled := func(days int) func(*lifecycle.Image) {
		return func(m *lifecycle.Image) { m.PulledAt = now.Add(-time.Duration(days) * day) }
	}
	moved := func(days int) func(*lifecycle.Image) {
		return func(m *lifecycle.Image) { m.ArchivedAt = now.Add(-time.Duration(days) * day) }
	}
	untagged := `"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1`
	for _, x := range []struct {
		name   string
		rules  []string
		images []lifecycle.Image
		want   string
	}{
		{"the oldest beyond the number", []string{rule(1, anyCount1, expire)}, []lifecycle.Image{img("b", 2, "x"), img("c", 1, ""), img("a", 3, "y")}, "a:1 b:1"},
		{"as old as said", []string{rule(1, `"tagStatus":"any","countType":"sinceImagePushed"`+days7, expire)}, []lifecycle.Image{img("a", 7, ""), img("b", 6, "")}, "a:1"},
		{"in a million years", []string{rule(1, `"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":9000000000000000000`, expire)}, []lifecycle.Image{img("a", 7, "")}, ""},
		{"untagged only", []string{rule(1, untagged, expire)}, []lifecycle.Image{img("a", 3, ""), img("b", 2, "x"), img("c", 1, "")}, "a:1"},
		{"all prefixes, of whatever tag", []string{rule(1, `"tagStatus":"tagged","tagPrefixList":["alpha","beta"],"countType":"sinceImagePushed"`+days7, expire)},
			[]lifecycle.Image{img("a", 9, "alpha1"), img("b", 9, "alpha1 beta2"), img("c", 9, "xalpha beta")}, "b:1"},
		{"all patterns", []string{rule(1, `"tagStatus":"tagged","tagPatternList":["prod*","*-1"],"countType":"sinceImagePushed"`+days7, expire)},
			[]lifecycle.Image{img("a", 9, "prod-1"), img("b", 9, "prod-2"), img("c", 9, "prod x-1")}, "a:1 c:1"},
		// What belongs to a rule no later rule touches, though it counts it.
		{"owned by the first", []string{
			rule(1, `"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":2`, expire), rule(2, anyCount1, expire),
		}, []lifecycle.Image{img("a", 5, "prod1"), img("b", 4, "prod2"), img("c", 3, "prod3"), img("d", 2, "dev"), img("e", 1, "dev2")}, "a:1 d:2"},
		{"written in any order", []string{
			rule(2, anyCount1, expire), rule(1, `"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":9`, expire),
		}, []lifecycle.Image{img("a", 5, "prod1"), img("d", 2, "dev"), img("e", 1, "dev2")}, "d:2"},
		{"not below an index", []string{rule(1, anyCount1, expire)}, []lifecycle.Image{img("a", 3, "", held), img("b", 2, ""), img("c", 1, "")}, "b:1"},
		{"since pulled", []string{rule(1, `"tagStatus":"any","countType":"sinceImagePulled"`+days7, archive)},
			[]lifecycle.Image{img("a", 30, "", pulled(8)), img("b", 30, "", pulled(1)), img("c", 8, ""), img("d", 6, ""),
				img("e", 30, "", pulled(20), moved(10), func(m *lifecycle.Image) { m.ActivatedAt = now.Add(-day) })}, "a:1 c:1"},
		{"the archive by itself", []string{rule(1, anyCount1, archive), rule(2, `"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned"`+days7, expire)},
			[]lifecycle.Image{img("a", 30, "", moved(8)), img("b", 30, "", moved(1)), img("c", 8, ""), img("d", 1, "")}, "a:2 c:1"},
		{"orphans", []string{rule(1, `"tagStatus":"tagged","tagPrefixList":["x"],"countType":"imageCountMoreThan","countNumber":9`, expire)},
			[]lifecycle.Image{img("a", 2, "", func(m *lifecycle.Image) { m.Orphan = true }), img("b", 0, "", func(m *lifecycle.Image) { m.Orphan = true })}, "a:0"},
	} {
		verdicts, _ := parse(t, x.rules...).Evaluate(x.images, now)
		if got := taken(verdicts); got != x.want {
			t.Errorf("%s: took %q, want %q", x.name, got, x.want)
		}
	}
}

// Rows become images with what holds them.
func TestImages(t *testing.T) {
	db := store.OpenMemory()
	defer db.Close()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		for _, i := range []*state.Image{
			{Digest: "child"}, {Digest: "index", Manifests: []string{"child"}}, {Digest: "sig", Subject: "index"}, {Digest: "late", Subject: "gone"},
			{Digest: "tagged", Subject: "index"}, {Digest: "part", Subject: "gone"}, {Digest: "list", Manifests: []string{"part"}},
		} {
			i.Repository = "1/app"
			state.Images.Put(tx, i)
		}
		state.ImageTags.Put(tx, &state.ImageTag{Repository: "1/app", Tag: "t", Digest: "tagged"})
		state.Images.Put(tx, &state.Image{Repository: "1/app2", Digest: "other"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range lifecycle.Images(db.Snapshot(), "1/app") {
		got = append(got, fmt.Sprintf("%s%s %t %t", m.Digest, m.Tags, m.Held, m.Orphan))
	}
	want := []string{"child[] true false", "index[] false false", "late[] false true", "list[] false false", "part[] true false", "sig[] true false", "tagged[t] false false"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// Whatever the policy and the images.
func TestEvaluateHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []string
		for n := range rapid.IntRange(1, 4).Draw(t, "rules") {
			sel := rapid.SampledFrom([]string{`"tagStatus":"untagged"`, `"tagStatus":"tagged","tagPrefixList":["a"]`, `"tagStatus":"tagged","tagPatternList":["*b","a*"]`}).Draw(t, "selection")
			number := rapid.IntRange(1, 5).Draw(t, "number")
			kind := rapid.SampledFrom([]string{
				`,"countType":"imageCountMoreThan","countNumber":%d`, `,"countType":"sinceImagePushed","countUnit":"days","countNumber":%d`, `,"countType":"sinceImagePulled","countUnit":"days","countNumber":%d`,
			}).Draw(t, "count")
			rules = append(rules, rule(n+1, sel+fmt.Sprintf(kind, number), rapid.SampledFrom([]string{expire, archive}).Draw(t, "action")))
		}
		if rapid.Bool().Draw(t, "any") {
			rules = append(rules, rule(9, anyCount1, expire))
		}
		p := parse(t, rules...)
		var images []lifecycle.Image
		for n := range rapid.IntRange(0, 12).Draw(t, "images") {
			m := img(fmt.Sprintf("i%02d", n), rapid.IntRange(0, 6).Draw(t, "age"), rapid.SampledFrom([]string{"", "a", "b", "ab", "a b", "c"}).Draw(t, "tags"))
			m.Held = rapid.IntRange(0, 4).Draw(t, "held") == 0
			images = append(images, m)
		}
		verdicts, next := p.Evaluate(images, now)
		gone := map[string]bool{}
		for _, v := range verdicts {
			if v.Image.Held || gone[v.Image.Digest] {
				t.Fatalf("%s is held, or taken twice", v.Image.Digest)
			}
			gone[v.Image.Digest] = true
		}
		for _, r := range p.Rules {
			if r.CountType == lifecycle.Count && r.TagStatus == "any" && len(p.Rules) == 1 {
				if left := len(slices.DeleteFunc(slices.Clone(images), func(m lifecycle.Image) bool { return m.Held || gone[m.Digest] })); left > r.Number {
					t.Fatalf("%d images are left of %d", left, r.Number)
				}
			}
		}
		// The order in which images are listed means nothing.
		again, _ := p.Evaluate(rapid.Permutation(images).Draw(t, "order"), now)
		if taken(again) != taken(verdicts) {
			t.Fatalf("%s in one order, %s in another", taken(verdicts), taken(again))
		}
		// Nothing happens before next, something does then.
		if !next.IsZero() {
			if early, _ := p.Evaluate(images, next.Add(-time.Second)); taken(early) != taken(verdicts) {
				t.Fatalf("%s already before %v", taken(early), next)
			}
			if then, _ := p.Evaluate(images, next); len(then) <= len(verdicts) {
				t.Fatalf("nothing more at %v", next)
			}
		}
		// Once it is done there is nothing left to do.
		var rest []lifecycle.Image
		for _, m := range images {
			i := slices.IndexFunc(verdicts, func(v lifecycle.Verdict) bool { return v.Image.Digest == m.Digest })
			if i >= 0 && !verdicts[i].Rule.Transition {
				continue
			}
			if i >= 0 {
				moved := *m.Image
				moved.ArchivedAt = now
				m.Image = &moved
			}
			rest = append(rest, m)
		}
		if more, _ := p.Evaluate(rest, now); len(more) > 0 {
			t.Fatalf("first %s, then %s", taken(verdicts), taken(more))
		}
	})
}
