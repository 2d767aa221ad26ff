package ssm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
)

type bench struct {
	*testing.T
	*SSM
	ctx context.Context
}

func newBench(t *testing.T) *bench {
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ctx := auth.WithCaller(t.Context(), &auth.Caller{Account: "123456789012", ARN: "arn:aws:iam::123456789012:user/bob"})
	return &bench{t, New(Config{DB: db, Region: "eu-west-1", Now: func() time.Time { return now }}), ctx}
}

func try[I, O any](b *bench, op func(context.Context, *I) (*O, error), body string) *O {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatal(err)
	}
	out, err := op(b.ctx, in)
	if err != nil {
		b.Fatalf("%T %s: %v", *in, body, err)
	}
	return out
}

func refuse[I, O any](b *bench, op func(context.Context, *I) (*O, error), body, code, words string) {
	b.Helper()
	in := new(I)
	if err := json.Unmarshal([]byte(body), in); err != nil {
		b.Fatal(err)
	}
	if _, err := op(b.ctx, in); err == nil || wire.Code(err) != code || !strings.Contains(err.Error(), words) {
		b.Errorf("%T %s: %v, want %s: %s", *in, body, err, code, words)
	}
}

func TestPutParameterRefuses(t *testing.T) {
	b := newBench(t)
	try(b, b.PutParameter, `{"Name":"have","Type":"String","Value":"v"}`)
	for _, x := range []struct{ body, code, words string }{
		{`"Name":"have","Type":"String","Value":"w"`, "ParameterAlreadyExists", "set the overwrite option"},
		{`"Name":"have","Type":"SecureString","Value":"w","Overwrite":true`, "HierarchyTypeMismatchException", "changing a parameter type"},
		{`"Name":"have","Value":"w","Overwrite":true,"Tags":[{"Key":"a","Value":"b"}]`, "ValidationException", "tags and overwrite can't be used together"},
		{`"Name":"new","Value":"w"`, "ValidationException", "A parameter type is required"},
		{`"Name":"awsome","Type":"String","Value":"w"`, "ValidationException", "can't be prefixed"},
		{`"Name":"/aws/x","Type":"String","Value":"w"`, "AccessDeniedException", "reserved"},
		{`"Name":"a/b","Type":"String","Value":"w"`, "ValidationException", "fully qualified"},
		{`"Name":"/a//b","Type":"String","Value":"w"`, "ValidationException", "sub-paths"},
		{`"Name":"` + strings.Repeat("/a", 16) + `","Type":"String","Value":"w"`, "HierarchyLevelLimitExceededException", "15 levels"},
		{`"Name":"p","Type":"String","Value":"abc","AllowedPattern":"^\\d+$"`, "ParameterPatternMismatchException", `^\d+$`},
		{`"Name":"p","Type":"String","Value":"abc","AllowedPattern":"("`, "InvalidAllowedPatternException", "("},
		{`"Name":"p","Type":"String","Value":"` + strings.Repeat("x", 4097) + `"`, "ValidationException", "4096 characters"},
		{`"Name":"p","Type":"String","Tier":"Advanced","Value":"` + strings.Repeat("x", 8193) + `"`, "ValidationException", "8192 characters"},
		{`"Name":"p","Type":"String","Value":"x","DataType":"aws:ec2:image"`, "ValidationException", "AMI"},
	} {
		refuse(b, b.PutParameter, "{"+x.body+"}", x.code, x.words)
	}
	if out := try(b, b.PutParameter, `{"Name":"big","Type":"String","Tier":"Intelligent-Tiering","Value":"`+strings.Repeat("x", 4097)+`"}`); out.Tier != "Advanced" {
		t.Errorf("tier %s", out.Tier)
	}
	refuse(b, b.PutParameter, `{"Name":"big","Value":"x","Tier":"Standard","Overwrite":true}`, "ValidationException", "can't downgrade")
}

func TestVersionsAndLabels(t *testing.T) {
	b := newBench(t)
	try(b, b.PutParameter, `{"Name":"/p","Type":"SecureString","Value":"one","Description":"d","Tags":[{"Key":"a","Value":"b"}]}`)
	if out := try(b, b.PutParameter, `{"Name":"/p","Value":"two","Overwrite":true}`); *out.Version != 2 {
		t.Errorf("version %d", *out.Version)
	}
	sealed := *try(b, b.GetParameter, `{"Name":"/p"}`).Parameter.Value
	if sealed == "two" || sealed == "" {
		t.Errorf("a SecureString shows %q undecrypted", sealed)
	}
	get := func(name string) string {
		p := try(b, b.GetParameter, `{"Name":"`+name+`","WithDecryption":true}`).Parameter
		return fmt.Sprint(*p.Value, " ", *p.Version, " ", wire.Value(p.Selector))
	}
	out := try(b, b.LabelParameterVersion, `{"Name":"/p","ParameterVersion":1,"Labels":["prod","1bad","awsx"]}`)
	if len(out.InvalidLabels) != 2 {
		t.Errorf("%+v", out)
	}
	for name, want := range map[string]string{"/p": "two 2 ", "/p:1": "one 1 :1", "/p:prod": "one 1 :prod", "arn:aws:ssm:eu-west-1:123456789012:parameter/p": ""} {
		if want != "" && get(name) != want {
			t.Errorf("%s is %s, want %s", name, get(name), want)
		}
	}
	try(b, b.LabelParameterVersion, `{"Name":"/p","Labels":["prod"]}`)
	if got := get("/p:prod"); got != "two 2 :prod" {
		t.Errorf("the label did not move: %s", got)
	}
	refuse(b, b.GetParameter, `{"Name":"/p:9"}`, "ParameterVersionNotFound", "could not find version 9 of /p")
	h := try(b, b.GetParameterHistory, `{"Name":"/p","WithDecryption":true}`).Parameters
	if len(h) != 2 || *h[0].Value != "one" || *h[1].Description != "d" || h[1].Labels[0] != "prod" || *h[0].KeyId != "alias/aws/ssm" || *h[0].LastModifiedUser != "arn:aws:iam::123456789012:user/bob" {
		t.Errorf("%+v", h)
	}
	if got := try(b, b.GetParameters, `{"Names":["/p","/none"]}`); len(got.Parameters) != 1 || got.InvalidParameters[0] != "/none" {
		t.Errorf("%+v", got)
	}
	if d := try(b, b.DescribeParameters, `{"ParameterFilters":[{"Key":"tag:a","Values":["b"]},{"Key":"Type","Values":["SecureString"]},{"Key":"Path","Option":"Recursive","Values":["/"]}]}`).Parameters; len(d) != 1 || *d[0].Version != 2 {
		t.Errorf("%+v", d)
	}
	refuse(b, b.DescribeParameters, `{"ParameterFilters":[{"Key":"Colour","Values":["red"]}]}`, "InvalidFilterKey", "Colour")
	try(b, b.AddTagsToResource, `{"ResourceType":"Parameter","ResourceId":"/p","Tags":[{"Key":"c","Value":"d"}]}`)
	try(b, b.RemoveTagsFromResource, `{"ResourceType":"Parameter","ResourceId":"/p","TagKeys":["a"]}`)
	if ts := try(b, b.ListTagsForResource, `{"ResourceType":"Parameter","ResourceId":"/p"}`).TagList; len(ts) != 1 || *ts[0].Key != "c" {
		t.Errorf("%+v", ts)
	}
	for i := range 99 {
		if i == 98 {
			// The oldest version has no label any more, so it goes.
			try(b, b.UnlabelParameterVersion, `{"Name":"/p","ParameterVersion":2,"Labels":["prod"]}`)
		}
		try(b, b.PutParameter, fmt.Sprintf(`{"Name":"/p","Value":"v%d","Overwrite":true}`, i))
	}
	refuse(b, b.GetParameter, `{"Name":"/p:1"}`, "ParameterVersionNotFound", "version 1")
	try(b, b.DeleteParameter, `{"Name":"/p"}`)
	refuse(b, b.DeleteParameter, `{"Name":"/p"}`, "ParameterNotFound", "/p")
}

func FuzzSplit(f *testing.F) {
	f.Add("/a/b:1")
	f.Add("arn:aws:ssm:eu-west-1:123456789012:parameter/a:label")
	s := New(Config{Region: "eu-west-1"})
	f.Fuzz(func(t *testing.T, name string) {
		bare, selector := split(name)
		if bare != name && bare+":"+selector != name {
			t.Errorf("%q: %q %q", name, bare, selector)
		}
		s.bare("123456789012", bare)
	})
}
