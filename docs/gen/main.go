// Command gen writes docs/coverage.json: which operations of the AWS APIs are
// answered and which fields are kept without being acted on.
//
// It reads the source of the services, so that what it writes is what the code
// says: an operation is answered if its service has the method, and a field is
// listed if the service's Stored names it. It must never be told anything else.
//
//	go run ./docs/gen
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/aws/autoscaling"
	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/docs"
)

// services are all that a region has, by the name of their packages.
var services = map[string]*wire.Service{
	"autoscaling": autoscaling.NewService(autoscaling.Unimplemented{}),
	"ec2":         ec2.NewService(ec2.Unimplemented{}),
	"ecr":         ecr.NewService(ecr.Unimplemented{}),
	"ecs":         ecs.NewService(ecs.Unimplemented{}),
	"iam":         iam.NewService(iam.Unimplemented{}),
	"logs":        logs.NewService(logs.Unimplemented{}),
	"ssm":         ssm.NewService(ssm.Unimplemented{}),
	"sts":         sts.NewService(sts.Unimplemented{}),
}

func main() {
	root := flag.String("root", ".", "folder of the repository")
	flag.Parse()
	b, err := generate(*root)
	if err == nil {
		err = os.WriteFile(filepath.Join(*root, "docs", "coverage.json"), b, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// generate returns the text of coverage.json.
func generate(root string) ([]byte, error) {
	var all []docs.Service
	for name, api := range services {
		s, err := cover(filepath.Join(root, "service", name), name, api)
		if err != nil {
			return nil, fmt.Errorf("service/%s: %w", name, err)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b docs.Service) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.MarshalIndent(all, "", "  ")
	return append(b, '\n'), err
}

// cover reads the package in dir.
func cover(dir, name string, api *wire.Service) (docs.Service, error) {
	out := docs.Service{Name: name, Title: api.Title, Answered: []string{}, Missing: []string{}, Stored: map[string]string{}}
	files, err := parse(dir)
	if err != nil {
		return out, err
	}
	methods := map[string]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if operation(d) {
					methods[d.Name.Name] = true
				}
			case *ast.GenDecl:
				if err := stored(d, out.Stored); err != nil {
					return out, err
				}
			}
		}
	}
	names := map[string]bool{}
	for op := range api.Operations {
		names[op] = true
	}
	for op := range strings.FieldsSeq(api.Known) {
		names[op] = true
	}
	for op := range names {
		if methods[op] {
			out.Answered = append(out.Answered, op)
		} else {
			out.Missing = append(out.Missing, op)
		}
	}
	slices.Sort(out.Answered)
	slices.Sort(out.Missing)
	for path := range out.Stored {
		op, _, _ := strings.Cut(path, ".")
		if !slices.Contains(out.Answered, op) {
			return out, fmt.Errorf("the list Stored names %s, which is no operation that is answered", path)
		}
	}
	return out, nil
}

func parse(dir string) (files []*ast.File, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fs.ErrNotExist
	}
	set := token.NewFileSet()
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// operation reports whether a function has the form of an operation: a method
// with a context and the operation's input.
func operation(f *ast.FuncDecl) bool {
	if f.Recv == nil || !f.Name.IsExported() {
		return false
	}
	params := f.Type.Params.List
	if len(params) != 2 {
		return false
	}
	in, ok := params[1].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	sel, ok := in.X.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == f.Name.Name+"Input"
}

// stored adds what a declaration of Stored lists: a map from Operation.field
// to what that means, or a list of Operation.field.
func stored(d *ast.GenDecl, into map[string]string) error {
	for _, spec := range d.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || !strings.EqualFold(v.Names[0].Name, "stored") {
			continue
		}
		if len(v.Values) != 1 {
			return errors.New("the list Stored has no value")
		}
		lit, ok := v.Values[0].(*ast.CompositeLit)
		if !ok {
			return errors.New("the list Stored is not written out")
		}
		for _, e := range lit.Elts {
			key, why := e, "kept"
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				key = kv.Key
				text, err := text(kv.Value)
				if err != nil {
					return err
				}
				why = text
			}
			path, err := text(key)
			if err != nil {
				return err
			}
			op, field, ok := strings.Cut(path, ".")
			if !ok {
				return fmt.Errorf("the list Stored: %q is not Operation.field", path)
			}
			into[strings.TrimSuffix(op, "Input")+"."+field] = why
		}
	}
	return nil
}

func text(e ast.Expr) (string, error) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", errors.New("the list Stored has something else than a plain string")
	}
	return strconv.Unquote(lit.Value)
}
