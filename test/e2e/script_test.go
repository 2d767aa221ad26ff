package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berth-run/berth/test/lab"
)

// The journeys, as a user types them. Beside testscript's own commands the
// transcripts have:
//
//	aws …               the aws CLI
//	let NAME aws …      the same, with what it printed as $NAME
//	until TEXT aws …    the same, again and again until it prints the text
//	as KEY              from here on somebody else calls; KEY is "id secret", or root
//	push|pull REF       an OCI client, logged in with `aws ecr get-login-password`
//	get URL             open a page, when it answers
//	berth …             the berth command, on the region
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, shared.Root.Env()...)
			e.Vars = append(e.Vars, "IMAGE="+shared.image, "REGISTRY="+shared.RegistryHost(), "SUBNET="+shared.subnets[0], "OPEN="+shared.open,
				"EXEC="+shared.exec, "ROLE="+shared.role)
			return nil
		},
		// tail came with version 2 of the CLI.
		Condition: func(cond string) (bool, error) {
			if cond != "cli2" {
				return false, fmt.Errorf("no condition %q", cond)
			}
			major, _, err := lab.CLIVersion()
			return major >= 2, err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"aws":   cmdAWS,
			"let":   cmdLet,
			"until": cmdUntil,
			"as":    cmdAs,
			"push":  cmdPush,
			"pull":  cmdPull,
			"get":   cmdGet,
			"berth": cmdBerth,
		},
	})
}

// aws runs the CLI as whoever the script is.
func aws(ts *testscript.TestScript, args []string) error {
	line, err := lab.Identity{Region: shared.Region}.AWS(args...)
	ts.Check(err)
	return ts.Exec(line[0], line[1:]...)
}

// outcome is how every command of testscript ends.
func outcome(ts *testscript.TestScript, neg bool, err error) {
	switch {
	case neg && err == nil:
		ts.Fatalf("unexpected success")
	case !neg && err != nil:
		ts.Fatalf("%v", err)
	}
}

func cmdAWS(ts *testscript.TestScript, neg bool, args []string) { outcome(ts, neg, aws(ts, args)) }

func cmdLet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1] != "aws" {
		ts.Fatalf("usage: let NAME aws …")
	}
	ts.Check(aws(ts, args[2:]))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || args[1] != "aws" {
		ts.Fatalf("usage: until TEXT aws …")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ts.Check(lab.Until(ctx, func(context.Context) (bool, error) {
		err := aws(ts, args[2:])
		return strings.Contains(ts.ReadFile("stdout"), args[0]), err
	}))
}

func cmdAs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: as KEY")
	}
	id, secret := shared.Root.AccessKeyID, shared.Root.Secret
	if args[0] != "root" {
		f := strings.Fields(args[0])
		if len(f) != 2 {
			ts.Fatalf("a key is an id and a secret, not %q", args[0])
		}
		id, secret = f[0], f[1]
	}
	ts.Setenv("AWS_ACCESS_KEY_ID", id)
	ts.Setenv("AWS_SECRET_ACCESS_KEY", secret)
}

// login answers the password that a docker login would have.
func login(ts *testscript.TestScript) string {
	ts.Check(aws(ts, []string{"ecr", "get-login-password"}))
	return strings.TrimSpace(ts.ReadFile("stdout"))
}

// docker says what the docker client says of a registry's error.
func docker(ts *testscript.TestScript, err error) {
	if e, ok := errors.AsType[*transport.Error](err); ok && len(e.Errors) > 0 {
		for _, d := range e.Errors {
			fmt.Fprintf(ts.Stderr(), "%s: %s\n", strings.ToLower(strings.ReplaceAll(string(d.Code), "_", " ")), d.Message)
		}
	} else if err != nil {
		fmt.Fprintln(ts.Stderr(), err)
	}
}

func cmdPush(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := shared.Push(ctx, args[0], login(ts), image)
	docker(ts, err)
	outcome(ts, neg, err)
}

func cmdPull(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	digest, err := shared.Pull(ctx, args[0], login(ts))
	docker(ts, err)
	if err == nil {
		fmt.Fprintln(ts.Stdout(), digest)
	}
	outcome(ts, neg, err)
}

func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if neg {
		ctx, cancel = context.WithTimeout(ctx, lab.Impatience)
		defer cancel()
		_, body, err := get(ctx, args[0])
		fmt.Fprint(ts.Stdout(), body)
		outcome(ts, neg, err)
		return
	}
	err := lab.Until(ctx, func(ctx context.Context) (bool, error) {
		code, body, err := get(ctx, args[0])
		if err != nil {
			return false, nil // nobody listens yet
		}
		fmt.Fprint(ts.Stdout(), body)
		if code != 200 {
			return false, fmt.Errorf("status %d", code)
		}
		return true, nil
	})
	outcome(ts, neg, err)
}

func cmdBerth(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := shared.Berth(ctx, args...)
	fmt.Fprint(ts.Stdout(), out)
	outcome(ts, neg, err)
}
