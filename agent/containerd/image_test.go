package containerd_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/berth-run/berth/agent/runtime"
)

func (l *theLab) wants(auth string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.auth = auth
}

func TestResolve(t *testing.T) {
	ctx := testContext(t)
	d, err := lab.r.Resolve(ctx, lab.source())
	if err != nil || d.Digest != lab.digest || d.Size == 0 || d.MediaType == "" {
		t.Errorf("%+v %v", d, err)
	}
	missing := lab.source()
	missing.Reference = "registry.invalid/team/tiny:none"
	if _, err := lab.r.Resolve(ctx, missing); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("%v", err)
	}
	bad := lab.source()
	bad.Reference = "UPPER CASE"
	if _, err := lab.r.Resolve(ctx, bad); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("%v", err)
	}
	lab.wants("AWS:secret")
	defer lab.wants("")
	if _, err := lab.r.Resolve(ctx, lab.source()); !errors.Is(err, runtime.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	with := lab.source()
	with.Auth = &runtime.Auth{Username: "AWS", Password: "secret"}
	if d, err := lab.r.Resolve(ctx, with); err != nil || d.Digest != lab.digest {
		t.Errorf("%+v %v", d, err)
	}
	with.Auth.Password = "wrong"
	if _, err := lab.r.Resolve(ctx, with); !errors.Is(err, runtime.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
}

func TestPull(t *testing.T) {
	ctx := testContext(t)
	if err := lab.r.RemoveImage(ctx, lab.digest); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.r.Image(ctx, lab.digest); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("%v", err)
	}
	lab.wants("AWS:secret")
	defer lab.wants("")
	if _, err := lab.r.Pull(ctx, lab.source(), lab.digest, nil); !errors.Is(err, runtime.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	src := lab.source()
	src.Auth = &runtime.Auth{Username: "AWS", Password: "secret"}
	var last runtime.Progress
	img, err := lab.r.Pull(ctx, src, lab.digest, func(p runtime.Progress) { last = p })
	if err != nil || img.Digest != lab.digest {
		t.Fatalf("%+v %v", img, err)
	}
	if last.Offset == 0 || last.Offset > last.Total {
		t.Errorf("progress %+v", last)
	}
	// The same image by another name: nothing is asked of the registry.
	lab.wants("AWS:other")
	src.Reference = strings.Replace(src.Reference, ":1", ":latest", 1)
	if img, err = lab.r.Pull(ctx, src, lab.digest, nil); err != nil || len(img.Names) != 2 {
		t.Errorf("%+v %v", img, err)
	}
	list, err := lab.r.Images(ctx)
	if err != nil || len(list) != 1 || len(list[0].Names) != 2 {
		t.Errorf("%+v %v", list, err)
	}
}
