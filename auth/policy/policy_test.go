package policy

import (
	"strings"
	"testing"
)

func mustParse(t testing.TB, text string, kind Kind) *Document {
	t.Helper()
	d, err := Parse(text, kind)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return d
}

func TestMalformed(t *testing.T) {
	identity := func(rest string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + rest + `}]}`
	}
	const ok = `"Action":"ecs:RunTask","Resource":"*"`
	for _, tc := range []struct {
		name, text string
		kind       Kind
		want       string
	}{
		{"good", identity(ok), Identity, ""},
		{"not JSON", `{"Version`, Identity, "This policy contains invalid Json"},
		{"empty", ``, Identity, "This policy contains invalid Json"},
		{"two documents", identity(ok) + "{}", Identity, "This policy contains invalid Json"},
		{"unknown top element", `{"Version":"2012-10-17","Extra":1,"Statement":[]}`, Identity, "Syntax errors in policy."},
		{"no statement", `{"Version":"2012-10-17"}`, Identity, "Syntax errors in policy."},
		{"no version", `{"Statement":{"Effect":"Allow",` + ok + `}}`, Identity, "Policy document must be version 2012-10-17 or greater."},
		{"old version in a resource policy", `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"ecr:*"}}`, Resource, ""},
		{"bad version", `{"Version":"2020-01-01","Statement":{"Effect":"Allow",` + ok + `}}`, Identity, "Syntax errors in policy."},
		{"bad effect", `{"Version":"2012-10-17","Statement":{"Effect":"allow",` + ok + `}}`, Identity, "Syntax errors in policy."},
		{"double member", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Effect":"Allow",` + ok + `}}`, Identity, "Syntax errors in policy."},
		{"no action", identity(`"Resource":"*"`), Identity, "Policy statement must contain actions."},
		{"empty action", identity(`"Action":[],"Resource":"*"`), Identity, "Policy statement must contain actions."},
		{"no resource", identity(`"Action":"a:b"`), Identity, "Policy statement must contain resources."},
		{"both", identity(`"Action":"a:b","NotAction":"a:b","Resource":"*"`), Identity, "Syntax errors in policy."},
		{"vendor missing", identity(`"Action":"RunTask","Resource":"*"`), Identity, "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
		{"two colons", identity(`"Action":"a:b:c","Resource":"*"`), Identity, "Actions/Condition can contain only one colon."},
		{"bad vendor", identity(`"Action":"a*:b","Resource":"*"`), Identity, "Vendor a* is not valid"},
		{"resource no ARN", identity(`"Action":"a:b","Resource":"bucket"`), Identity, `Resource bucket must be in ARN format or "*".`},
		{"partition", identity(`"Action":"a:b","Resource":"arn:x:s3:::b"`), Identity, `Partition "x" is not valid for resource "arn:x:s3:::b".`},
		{"principal", identity(`"Principal":"*",` + ok), Identity, "Policy document should not specify a principal."},
		{"sid twice", `{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow",` + ok + `},{"Sid":"a","Effect":"Allow",` + ok + `}]}`, Identity, "Statement IDs (SID) in a single policy must be unique."},
		{"sid form", identity(`"Sid":"a-b",` + ok), Identity, "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*"},
		{"operator", identity(`"Condition":{"StringIs":{"k":"v"}},` + ok), Identity, "Syntax errors in policy."},
		{"null if exists", identity(`"Condition":{"NullIfExists":{"k":"true"}},` + ok), Identity, "Syntax errors in policy."},
		{"bad number", identity(`"Condition":{"NumericEquals":{"k":"x"}},` + ok), Identity, "Syntax errors in policy."},
		{"bad date", identity(`"Condition":{"DateLessThan":{"k":"x"}},` + ok), Identity, "Syntax errors in policy."},
		{"bad address", identity(`"Condition":{"IpAddress":{"aws:SourceIp":"1.2.3"}},` + ok), Identity, "Syntax errors in policy."},
		{"number and bool values", identity(`"Condition":{"NumericEquals":{"k":5},"Bool":{"b":true}},` + ok), Identity, ""},
		{"control character", identity(`"Action":"a:b","Resource":"arn:aws:s3:::\u0001"`), Identity, "Syntax errors in policy."},
		{"trust", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}}`, Trust, ""},
		{"trust with resource", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}}`, Trust, "Has prohibited field Resource"},
		{"trust without principal", `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`, Trust, "Missing required field Principal"},
		{"trust other action", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"ecs:RunTask"}}`, Trust, "AssumeRole policy may only specify STS AssumeRole actions."},
		{"trust bad principal", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"bob"},"Action":"sts:AssumeRole"}}`, Trust, `Invalid principal in policy: "AWS":"bob"`},
		{"trust wildcard in ARN", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111111111111:user/*"},"Action":"sts:AssumeRole"}}`, Trust, `Invalid principal in policy: "AWS":"arn:aws:iam::111111111111:user/*"`},
		{"trust bad service", `{"Statement":{"Effect":"Allow","Principal":{"Service":"ecs"},"Action":"sts:AssumeRole"}}`, Trust, `Invalid principal in policy: "SERVICE":"ecs"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(tc.text, tc.kind)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		condition string
		keys      map[string][]string
		want      bool
	}{
		{`{"ArnLike":{"k":"arn:aws:ecs:*:*:cluster/*"}}`, map[string][]string{"k": {"arn:aws:ecs:us-east-1:1:cluster/c"}}, true},
		{`{"ArnEquals":{"k":"arn:aws:ecs:*:cluster/c"}}`, map[string][]string{"k": {"arn:aws:ecs:us-east-1:1:cluster/c"}}, false},
		{`{"ArnNotEquals":{"k":"arn:aws:ecs:us-east-1:1:cluster/c"}}`, map[string][]string{"k": {"arn:aws:ecs:us-east-1:1:cluster/c"}}, false},
		{`{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","2001:db8::/32"]}}`, map[string][]string{"aws:sourceip": {"10.1.2.3"}}, true},
		{`{"IpAddress":{"aws:SourceIp":"2001:db8::/32"}}`, map[string][]string{"aws:sourceip": {"2001:db8::1"}}, true},
		{`{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`, map[string][]string{"aws:sourceip": {"10.1.2.3"}}, false},
		{`{"IpAddress":{"aws:SourceIp":"10.0.0.1"}}`, map[string][]string{"aws:sourceip": {"10.0.0.2"}}, false},
		{`{"DateLessThan":{"aws:CurrentTime":"2026-12-01T00:00:00Z"}}`, map[string][]string{"aws:currenttime": {"2026-11-22T00:00:00Z"}}, true},
		{`{"DateGreaterThan":{"aws:EpochTime":"2026-12-01"}}`, map[string][]string{"aws:epochtime": {"1763769600"}}, false},
		{`{"DateEquals":{"k":"0"}}`, map[string][]string{"k": {"1970-01-01T00:00:00Z"}}, true},
		{`{"NumericGreaterThanEquals":{"k":"5"}}`, map[string][]string{"k": {"5.0"}}, true},
		{`{"NumericNotEquals":{"k":"5"}}`, map[string][]string{"k": {"no number"}}, true},
		{`{"BinaryEquals":{"k":"aGk="}}`, map[string][]string{"k": {"aGk="}}, true},
		{`{"StringEquals":{"K":"v"}}`, map[string][]string{"k": {"v"}}, true},
		{`{"StringEquals":{"k":["x","v"]}}`, map[string][]string{"k": {"v"}}, true},
		{`{"StringEquals":{"k":"v","l":"w"}}`, map[string][]string{"k": {"v"}}, false},
		{`{"StringNotEquals":{"k":"v"}}`, nil, true},
		{`{"StringEqualsIfExists":{"k":"v"}}`, nil, true},
		{`{"StringEquals":{"k":"v"}}`, nil, false},
		{`{"Bool":{"aws:SecureTransport":"false"}}`, map[string][]string{"aws:securetransport": {"false"}}, true},
		{`{"Null":{"aws:TokenIssueTime":"true"}}`, nil, true},
		{`{"ForAllValues:StringEquals":{"aws:TagKeys":["a","b"]}}`, map[string][]string{"aws:tagkeys": {"a", "c"}}, false},
		{`{"ForAllValues:StringEquals":{"aws:TagKeys":["a","b"]}}`, nil, true},
		{`{"ForAnyValue:StringEquals":{"aws:TagKeys":["a","b"]}}`, map[string][]string{"aws:tagkeys": {"a", "c"}}, true},
		{`{"StringEquals":{"k":"${aws:username}"}}`, map[string][]string{"k": {"bob"}, "aws:username": {"bob"}}, true},
		{`{"StringLike":{"k":"${aws:username, 'anon'}/*"}}`, map[string][]string{"k": {"anon/x"}}, true},
		{`{"StringLike":{"k":"a${*}b"}}`, map[string][]string{"k": {"axb"}}, false},
		{`{"StringLike":{"k":"a${*}b"}}`, map[string][]string{"k": {"a*b"}}, true},
		// The value of a variable is no pattern.
		{`{"StringLike":{"k":"${aws:username}"}}`, map[string][]string{"k": {"bob"}, "aws:username": {"*"}}, false},
	} {
		doc := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":`+tc.condition+`}}`, Identity)
		got := Evaluate(&Request{Action: "ecs:RunTask", Resource: "*", Keys: tc.keys, Identity: []*Document{doc}})
		if got.Allowed != tc.want {
			t.Errorf("%s with %v: %v, want %v", tc.condition, tc.keys, got.Allowed, tc.want)
		}
	}
}

func TestVariablesNeedTheNewVersion(t *testing.T) {
	const body = `"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"arn:aws:s3:::${aws:username}"}}`
	for version, want := range map[string]bool{"2012-10-17": true, "2008-10-17": false} {
		doc := mustParse(t, `{"Version":"`+version+`",`+body, Resource)
		got := Evaluate(&Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::bob", Keys: map[string][]string{"aws:username": {"bob"}}, Policy: doc})
		if got.Allowed != want {
			t.Errorf("version %s: %v", version, got.Allowed)
		}
	}
}

func TestReasons(t *testing.T) {
	allow := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, Identity)
	deny := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`, Identity)
	other := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`, Identity)
	denyAll := mustParse(t, `{"Statement":{"Effect":"Deny","Principal":"*","Action":"*"}}`, Resource)
	me := Principal{Account: "111111111111", ARN: "arn:aws:iam::111111111111:user/bob"}
	const head = "User: arn:aws:iam::111111111111:user/bob is not authorized to perform: ecs:RunTask on resource: arn:x"
	for _, tc := range []struct {
		name string
		r    Request
		want string
	}{
		{"nothing", Request{}, head + " because no identity-based policy allows the ecs:RunTask action"},
		{"identity deny", Request{Identity: []*Document{allow, deny}}, head + " with an explicit deny in an identity-based policy"},
		{"resource deny", Request{Identity: []*Document{allow}, Policy: denyAll}, head + " with an explicit deny in a resource-based policy"},
		{"boundary", Request{Identity: []*Document{allow}, Boundary: other}, head + " because no permissions boundary allows the ecs:RunTask action"},
		{"boundary deny", Request{Identity: []*Document{allow}, Boundary: deny}, head + " with an explicit deny in a permissions boundary"},
		{"session", Request{Identity: []*Document{allow}, Session: []*Document{other}}, head + " because no session policy allows the ecs:RunTask action"},
		{"session deny", Request{Identity: []*Document{allow}, Session: []*Document{allow, deny}}, head + " with an explicit deny in a session policy"},
		{"trust", Request{Identity: []*Document{allow}, Trust: true}, head + " because no role trust policy allows the ecs:RunTask action"},
		{"other account", Request{Identity: []*Document{allow}, ResourceAccount: "222222222222"}, head + " because no resource-based policy allows the ecs:RunTask action"},
		{"allowed", Request{Identity: []*Document{allow}}, head},
	} {
		tc.r.Principal, tc.r.Action, tc.r.Resource = me, "ecs:RunTask", "arn:x"
		d := Evaluate(&tc.r)
		if got := d.Message(me.ARN, tc.r.Action, tc.r.Resource); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
		if d.Allowed != (tc.name == "allowed") {
			t.Errorf("%s: allowed %v", tc.name, d.Allowed)
		}
	}
}

func TestTrust(t *testing.T) {
	bob := Principal{Account: "111111111111", ARN: "arn:aws:iam::111111111111:user/bob"}
	mayAssume := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}}`, Identity)
	for _, tc := range []struct {
		principal string
		who       Principal
		identity  []*Document
		want      bool
	}{
		{`{"AWS":"arn:aws:iam::111111111111:user/bob"}`, bob, nil, true},
		{`{"AWS":"arn:aws:iam::111111111111:user/eve"}`, bob, []*Document{mayAssume}, false},
		{`{"AWS":"arn:aws:iam::111111111111:root"}`, bob, nil, false},
		{`{"AWS":"111111111111"}`, bob, []*Document{mayAssume}, true},
		{`{"Service":"ecs-tasks.amazonaws.com"}`, bob, []*Document{mayAssume}, false},
		{`{"Service":"ecs-tasks.amazonaws.com"}`, Principal{Service: "ecs-tasks.amazonaws.com"}, nil, true},
		{`{"Service":"ec2.amazonaws.com"}`, Principal{Service: "ecs-tasks.amazonaws.com"}, nil, false},
		{`{"AWS":"222222222222"}`, Principal{Account: "222222222222", ARN: "arn:aws:iam::222222222222:user/x"}, nil, false},
		{`{"AWS":"222222222222"}`, Principal{Account: "222222222222", ARN: "arn:aws:iam::222222222222:user/x"}, []*Document{mayAssume}, true},
	} {
		doc := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":`+tc.principal+`,"Action":"sts:AssumeRole"}}`, Trust)
		got := Evaluate(&Request{Principal: tc.who, Action: "sts:AssumeRole", Resource: "arn:aws:iam::111111111111:role/r",
			Policy: doc, Trust: true, Identity: tc.identity, ResourceAccount: "111111111111"})
		if got.Allowed != tc.want {
			t.Errorf("%s by %+v: %+v", tc.principal, tc.who, got)
		}
	}
}

func TestCache(t *testing.T) {
	var c Cache
	const text = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	a, err := c.Parse(text, Identity)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := c.Parse(strings.Clone(text), Identity); a != b {
		t.Error("the same document was compiled twice")
	}
	if _, err := c.Parse(text, Trust); err == nil {
		t.Error("a document is remembered for another kind")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Action":["ecs:*"],"Resource":"arn:aws:ecs:*:*:${aws:username}/*","Condition":{"ForAnyValue:StringLikeIfExists":{"k":["a*",1,true]}}}]}`)
	f.Add(`{"Statement":{"Effect":"Deny","NotPrincipal":{"AWS":["*","111111111111"],"Service":"a.b"},"NotAction":"x:y","NotResource":"*"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []Kind{Identity, Resource, Trust} {
			d, err := Parse(text, kind)
			if err != nil {
				if _, ok := err.(*MalformedError); !ok {
					t.Fatalf("an error that is none of AWS: %v", err)
				}
				continue
			}
			Evaluate(&Request{Action: "ecs:RunTask", Resource: "arn:aws:ecs:us-east-1:1:task/a/b", Keys: map[string][]string{"k": {text}}, Identity: []*Document{d}, Policy: d})
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	doc := mustParse(b, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["ecr:GetAuthorizationToken","logs:*"],"Resource":"*"},
		{"Effect":"Allow","Action":["ecs:RunTask","ecs:StopTask","ecs:Describe*"],"Resource":["arn:aws:ecs:*:111111111111:task/prod/*","arn:aws:ecs:*:111111111111:task-definition/web:*"],"Condition":{"ArnEquals":{"ecs:cluster":"arn:aws:ecs:us-east-1:111111111111:cluster/prod"}}},
		{"Effect":"Deny","Action":"iam:*","Resource":"*"}]}`, Identity)
	r := &Request{Principal: Principal{Account: "111111111111", ARN: "arn:aws:iam::111111111111:user/bob"},
		Action: "ecs:RunTask", Resource: "arn:aws:ecs:us-east-1:111111111111:task-definition/web:7",
		Keys: map[string][]string{"ecs:cluster": {"arn:aws:ecs:us-east-1:111111111111:cluster/prod"}}, Identity: []*Document{doc}}
	b.ReportAllocs()
	for b.Loop() {
		if !Evaluate(r).Allowed {
			b.Fatal("denied")
		}
	}
}
