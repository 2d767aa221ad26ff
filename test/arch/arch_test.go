// Package arch holds the shape of the repository: who may import whom, that
// every package says what it is for, and that decisions stay pure. It reads the
// source and nothing else, and must never need to build or run it.
package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/berth-run/berth"
)

// A rule says what the packages that match from may import of this module.
// Patterns are a folder, or a folder and all below it ("x/..."). The first rule
// that matches counts. What is allowed to no one but main is the wiring.
var rules = []struct {
	from string
	may  []string
}{
	// The program's only place that knows all parts.
	{".", []string{"..."}},

	// WIRE: no behaviour. Generated packages know the codecs and nothing else.
	{"aws/wire", nil},
	{"aws/gen", nil},
	{"aws/conformance", nil},
	{"aws/...", []string{"aws/wire"}},

	// WHO. The parts with the algorithms are pure.
	{"auth", []string{"auth/...", "aws/wire", "store/..."}},
	{"auth/...", nil},

	// TRUTH: nothing of ours above it.
	{"store", nil},
	{"store/state", []string{"store", "store/state/query", "aws/..."}},
	{"store/state/cron", nil},
	{"store/state/query", nil},

	// WHAT. Services meet in the store alone; ECR is the face of the registry.
	{"service", []string{"auth/...", "aws/wire", "store/...", "service/throttle"}},
	{"service/throttle", []string{"aws/wire"}},
	{"service/page", nil},
	{"service/logs/journal", nil},
	{"service/logs/document", nil},
	{"service/logs/pattern", []string{"service/logs/document"}},
	{"service/logs/insights", []string{"service/logs/document"}},
	{"service/logs", []string{"service", "service/page", "service/logs/...", "auth/...", "aws/...", "store/..."}},
	{"service/ecr", []string{"service", "service/page", "auth/...", "aws/...", "store/...", "registry/..."}},
	// RunTask decides in the call where tasks of EC2 go, with the engine that controllers use.
	{"service/ecs", []string{"service", "service/page", "auth/...", "aws/...", "store/...", "control/place/..."}},
	{"service/ec2/flow", nil},
	{"service/ec2", []string{"service", "service/page", "service/ec2/flow", "auth/...", "aws/...", "store/..."}},
	{"service/...", []string{"service", "service/page", "auth/...", "aws/...", "store/..."}},

	// DECIDE.
	{"control", []string{"store"}},
	{"control/lifecycle", []string{"control", "store/...", "registry/lifecycle"}},
	{"control/place/fill", []string{"store/state/query"}},
	{"control/place/fleet", []string{"control/place/fill", "store/...", "aws/..."}},
	{"control/place", []string{"control", "control/place/...", "store/...", "aws/..."}},
	{"control/deploy", []string{"control", "control/place/...", "store/...", "aws/..."}},
	{"control/...", []string{"control", "store/...", "aws/..."}},

	// SEND. The shapes that both ends speak depend on neither.
	{"dispatch/acs", nil},
	{"dispatch/fabric", nil},
	{"dispatch/...", []string{"dispatch/...", "auth/...", "aws/...", "store/..."}},

	// HOST, RUN, KERNEL: they outlive the server and know nothing of its truth.
	{"node/guest", nil},
	{"node/...", []string{"node/...", "agent/runtime", "dataplane/...", "dispatch/acs", "dispatch/fabric", "process"}},
	{"agent/...", []string{"agent/...", "aws/...", "auth/sigv4", "dispatch/acs"}},
	{"dataplane/...", []string{"dataplane/..."}},
	{"process", nil},

	// IMAGES. What a lifecycle policy says is a function of rows.
	{"registry/lifecycle", []string{"registry/image", "store/..."}},
	{"registry/...", []string{"registry/...", "auth/...", "aws/...", "store/..."}},

	// FACES speak HTTP.
	{"cli", []string{"aws/...", "auth/sigv4", "docs"}},
	{"demo", []string{"aws/...", "auth/sigv4", "test/image"}},
	{"docs/...", []string{"docs", "aws/..."}},

	// Tests of the whole are clients, too. Benchmarks measure parts.
	{"test/...", []string{"test/...", "aws/...", "auth/sigv4"}},
	{"bench/...", []string{"..."}},
}

// A file is one Go file of the module that is not a test.
type file struct {
	path string // from the root
	dir  string
	src  []byte
	ast  *ast.File
}

func sources(t *testing.T) (files []file, set *token.FileSet) {
	t.Helper()
	set = token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(set, rel, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file{rel, path.Dir(rel), src, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("found only %d files: this test looks in the wrong place", len(files))
	}
	return files, set
}

func (f file) test() bool      { return strings.HasSuffix(f.path, "_test.go") }
func (f file) generated() bool { return bytes.HasPrefix(f.src, []byte("// Code generated ")) }

func (f file) imports(t *testing.T) (out []string) {
	for _, i := range f.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func match(pattern, dir string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == base || strings.HasPrefix(dir, base+"/")
	}
	return dir == pattern
}

func matches(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, dir) })
}

func TestImports(t *testing.T) {
	files, _ := sources(t)
	used := make([]bool, len(rules))
	for _, f := range files {
		if f.test() {
			continue
		}
		i := slices.IndexFunc(rules, func(r struct {
			from string
			may  []string
		}) bool {
			return match(r.from, f.dir)
		})
		if i < 0 {
			t.Errorf("%s: no rule says what package %s may import: add one", f.path, f.dir)
			continue
		}
		used[i] = true
		for _, imp := range f.imports(t) {
			if imp == module {
				t.Errorf("%s imports main", f.path)
			}
			dir, ours := strings.CutPrefix(imp, module+"/")
			if ours && !matches(rules[i].may, dir) {
				t.Errorf("%s imports %s: %s may import %s", f.path, dir, rules[i].from, strings.Join(append(rules[i].may, "nothing else of ours"), ", "))
			}
			if ours && dir == "bench" || ours && strings.HasPrefix(dir, "bench/") {
				t.Errorf("%s imports a benchmark", f.path)
			}
		}
	}
	for i, r := range rules {
		if !used[i] {
			t.Errorf("the rule of %s matches no package: remove it", r.from)
		}
	}
}

// An agent and a data plane must run where there is no server, and their tests too.
func TestHostNeedsNoServer(t *testing.T) {
	files, _ := sources(t)
	for _, f := range files {
		if !match("agent/...", f.dir) && !match("dataplane/...", f.dir) {
			continue
		}
		for _, imp := range f.imports(t) {
			dir, _ := strings.CutPrefix(imp, module+"/")
			if matches([]string{"store/...", "service/...", "control/...", "registry/..."}, dir) {
				t.Errorf("%s imports %s", f.path, dir)
			}
		}
	}
}

// Decisions are functions of a snapshot: the time is an argument, and there is
// nobody to wait for or to call.
func TestPlansArePure(t *testing.T) {
	files, set := sources(t)
	clocks := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	impure := []string{"context", "net", "net/http", "os", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog"}
	seen := 0
	for _, f := range files {
		if f.test() || !strings.HasPrefix(f.dir, "control/") && f.dir != "dispatch/compile" && f.dir != "auth/policy" && f.dir != "registry/lifecycle" {
			continue
		}
		seen++
		for _, imp := range f.imports(t) {
			if slices.Contains(impure, imp) {
				t.Errorf("%s imports %s", f.path, imp)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(clocks, sel.Sel.Name) {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
					t.Errorf("%s reads the clock: time.%s", set.Position(sel.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
	if seen == 0 {
		t.Error("there are no plans")
	}
}

// Every package says what it owns, once.
func TestPackageComments(t *testing.T) {
	files, _ := sources(t)
	comments, onlyTests := map[string][]string{}, map[string]bool{}
	for _, f := range files {
		if _, ok := comments[f.dir]; !ok {
			comments[f.dir], onlyTests[f.dir] = nil, true
		}
		if !f.test() {
			onlyTests[f.dir] = false
		}
	}
	for _, f := range files {
		if f.ast.Doc != nil && (!f.test() || onlyTests[f.dir]) {
			comments[f.dir] = append(comments[f.dir], f.path)
		}
	}
	for dir, where := range comments {
		if len(where) != 1 {
			t.Errorf("package %s has %d package comments %v, want one", dir, len(where), where)
		}
	}
}

func TestGeneratedFilesAreMarked(t *testing.T) {
	files, _ := sources(t)
	for _, f := range files {
		if named := strings.HasSuffix(f.path, "_gen.go"); named != f.generated() {
			t.Errorf("%s: named as generated %v, marked as generated %v", f.path, named, f.generated())
		}
	}
}

// What nobody can read in one sitting is more than one thing.
func TestFilesAreShort(t *testing.T) {
	const most = 900
	files, _ := sources(t)
	for _, f := range files {
		if n := bytes.Count(f.src, []byte("\n")); n > most && !f.generated() {
			t.Errorf("%s has %d lines, more than %d", f.path, n, most)
		}
	}
}

// requires are the modules in go.mod.
func requires(t *testing.T) (modules []string) {
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) > 0 && fields[0] == "replace" {
			t.Errorf("go.mod: %s: nobody could depend on this module's versions", strings.TrimSpace(line))
		}
		if len(fields) >= 2 && strings.Contains(fields[0], ".") && strings.HasPrefix(fields[1], "v") {
			modules = append(modules, fields[0])
		}
	}
	return modules
}

// NOTICE names every module that the program imports itself, and the module
// file replaces none.
func TestNoticeIsComplete(t *testing.T) {
	modules := requires(t)
	notice, err := os.ReadFile(filepath.Join(root, "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for word := range strings.FieldsSeq(string(notice)) {
		named[word] = true
	}
	files, _ := sources(t)
	missing := map[string]string{}
	for _, f := range files {
		if f.test() || matches([]string{"test/...", "bench/...", "demo"}, f.dir) {
			continue
		}
		for _, imp := range f.imports(t) {
			best := ""
			for _, m := range modules {
				if (imp == m || strings.HasPrefix(imp, m+"/")) && len(m) > len(best) {
					best = m
				}
			}
			if best != "" && !named[best] {
				missing[best] = f.path
			}
		}
	}
	for m, by := range missing {
		t.Errorf("NOTICE does not name %s, which %s imports", m, by)
	}
}

// A quota that can be set and that nothing looks at would be a lie: every name
// in the table is one that some code asks the limit of.
func TestQuotasAreEnforced(t *testing.T) {
	files, set := sources(t)
	names := map[string]string{} // where the table has them
	var asked, begun []string    // whole names, and beginnings of names
	for _, f := range files {
		if f.test() {
			continue
		}
		of := func(e ast.Expr) (string, bool) {
			l, ok := e.(*ast.BasicLit)
			if !ok || l.Kind != token.STRING {
				return "", false
			}
			s, err := strconv.Unquote(l.Value)
			if f.dir == "service/iam" {
				s = "iam/" + s
			}
			return s, err == nil
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if s, ok := of(n.Key); ok && f.path == "store/state/quota.go" {
					names[s] = set.Position(n.Pos()).String()
				}
			case *ast.CallExpr:
				name := ""
				switch fun := n.Fun.(type) {
				case *ast.Ident:
					name = fun.Name
				case *ast.SelectorExpr:
					name = fun.Sel.Name
				}
				if name != "Limit" && name != "limit" && name != "full" {
					return true
				}
				for _, arg := range n.Args {
					if s, ok := of(arg); ok {
						asked = append(asked, s)
					}
					if sum, ok := arg.(*ast.BinaryExpr); ok {
						if s, ok := of(sum.X); ok {
							begun = append(begun, s)
						}
					}
				}
			}
			return true
		})
	}
	if len(names) < 10 {
		t.Fatalf("found only the quotas %v", names)
	}
	for name, at := range names {
		if !slices.Contains(asked, name) && !slices.ContainsFunc(begun, func(b string) bool { return strings.HasPrefix(name, b) }) {
			t.Errorf("%s: nothing enforces the quota %s", at, name)
		}
	}
}
