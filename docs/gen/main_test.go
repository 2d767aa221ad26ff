package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"testing"
)

func TestCoverageIsCurrent(t *testing.T) {
	want, err := generate("../..")
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../coverage.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("docs/coverage.json is not what the code says: go run ./docs/gen")
	}
}

func TestWhatCounts(t *testing.T) {
	const src = `package p
var Stored = map[string]string{"A.x": "why"}
var (
	stored = []string{"BInput.y.z"}
	other  = map[string]string{"C": "no"}
)
func (s *S) A(ctx context.Context, in *api.AInput) (*api.AOutput, error) { return nil, nil }
func (s *S) B(ctx context.Context, in *api.OtherInput) error { return nil }
func (s *S) c(ctx context.Context, in *api.cInput) error { return nil }
func D(ctx context.Context, in *api.DInput) error { return nil }
`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept, ops := map[string]string{}, map[string]bool{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if operation(d) {
				ops[d.Name.Name] = true
			}
		case *ast.GenDecl:
			if err := stored(d, kept); err != nil {
				t.Error(err)
			}
		}
	}
	if want := map[string]bool{"A": true}; !maps.Equal(ops, want) {
		t.Errorf("operations %v, want %v", ops, want)
	}
	if want := map[string]string{"A.x": "why", "B.y.z": "kept"}; !maps.Equal(kept, want) {
		t.Errorf("stored %v, want %v", kept, want)
	}
}
