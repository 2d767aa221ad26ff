package policy

import (
	"maps"
	"slices"
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
		{"not JSON", `{"Version`, Identity, "Syntax errors in policy."},
		{"empty", ``, Identity, "Syntax errors in policy."},
		{"two documents", identity(ok) + "{}", Identity, "Syntax errors in policy."},
		{"not JSON, trust", `{"Version`, Trust, "This policy contains invalid Json"},
		{"no statements", `{"Version":"2012-10-17","Statement":[]}`, Identity, "Syntax errors in policy."},
		{"null statement", `{"Version":"2012-10-17","Statement":null}`, Identity, "Syntax errors in policy."},
		{"effect in another case", `{"Version":"2012-10-17","Statement":{"Effect":"allow",` + ok + `}}`, Identity, "The policy failed legacy parsing"},
		{"unknown field in a trust policy", `{"Statement":{"Effect":"Allow","Principals":"*","Action":"sts:AssumeRole"}}`, Trust, "Unknown field Principals"},
		{"short ARN", identity(`"Action":"a:b","Resource":"arn:aws:s3::bucket"`), Identity, "The policy failed legacy parsing"},
		{"vendor of ARN", identity(`"Action":"a:b","Resource":"arn:aws"`), Identity, "Resource vendor must be fully qualified and cannot contain regexes."},
		{"region in IAM's ARN", identity(`"Action":"a:b","Resource":"arn:aws:iam:eu-central-1:111111111111:user/x"`), Identity, "IAM resource arn:aws:iam:eu-central-1:111111111111:user/x cannot contain region information."},
		{"kind in IAM's ARN", identity(`"Action":"a:b","Resource":"arn:aws:iam::111111111111:usr/x"`), Identity, `IAM resource path must either be "*" or start with user/, federated-user/, role/, group/, instance-profile/, mfa/, server-certificate/, policy/, sms-mfa/, saml-provider/, oidc-provider/, report/, access-report/.`},
		{"federated principal", `{"Statement":{"Effect":"Allow","Principal":{"Federated":["accounts.google.com","arn:aws:iam::111111111111:oidc-provider/x.io","arn:aws:iam::111111111111:saml-provider/x"]},"Action":"sts:AssumeRoleWithWebIdentity"}}`, Trust, ""},
		{"unknown federation", `{"Statement":{"Effect":"Allow","Principal":{"Federated":"x.io"},"Action":"sts:AssumeRoleWithWebIdentity"}}`, Trust, `Invalid principal in policy: "FEDERATED":"x.io"`},
		{"canonical user", `{"Statement":{"Effect":"Allow","Principal":{"CanonicalUser":"79a5"},"Action":"ecr:*"}}`, Resource, `Invalid principal in policy: "CANONICALUSER":"79a5"`},
		{"everybody trusted", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}}`, Trust, `AssumeRolepolicy contained an invalid principal: "STAR".`},
		{"every account trusted", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}}`, Trust, ""},
		{"trust with NotPrincipal", `{"Statement":{"Effect":"Allow","NotPrincipal":{"AWS":"*"},"Action":"sts:AssumeRole"}}`, Trust, "AssumeRolepolicy contained an invalid principal: NotPrincipal."},
		{"trust without action", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"*"}}}`, Trust, "Missing required field Action"},
		{"trust without effect", `{"Statement":{"Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}}`, Trust, "Missing required field Effect"},
		{"bad bytes", identity(`"Condition":{"BinaryEquals":{"k":"!"}},` + ok), Identity, "Syntax errors in policy."},
		{"no truth", identity(`"Condition":{"Bool":{"k":"yes"}},` + ok), Identity, "Syntax errors in policy."},
		{"the version is named before the action", `{"Statement":{"Effect":"Allow","Resource":"*"}}`, Identity, "Policy document must be version 2012-10-17 or greater."},
		{"unknown top element", `{"Version":"2012-10-17","Extra":1,"Statement":[]}`, Identity, "Syntax errors in policy."},
		{"no statement", `{"Version":"2012-10-17"}`, Identity, "Syntax errors in policy."},
		{"no version", `{"Statement":{"Effect":"Allow",` + ok + `}}`, Identity, "Policy document must be version 2012-10-17 or greater."},
		{"old version in a resource policy", `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"ecr:*"}}`, Resource, ""},
		{"bad version", `{"Version":"2020-01-01","Statement":{"Effect":"Allow",` + ok + `}}`, Identity, "Syntax errors in policy."},
		{"bad effect", `{"Version":"2012-10-17","Statement":{"Effect":"Permit",` + ok + `}}`, Identity, "Syntax errors in policy."},
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
		{"bad date", identity(`"Condition":{"DateLessThan":{"k":"x"}},` + ok), Identity, "The policy failed legacy parsing"},
		{"bad address", identity(`"Condition":{"IpAddress":{"aws:SourceIp":"1.2.3"}},` + ok), Identity, "Syntax errors in policy."},
		{"number and bool values", identity(`"Condition":{"NumericEquals":{"k":5},"Bool":{"b":true}},` + ok), Identity, ""},
		{"control character", identity(`"Action":"a:b","Resource":"arn:aws:s3:::\u0001"`), Identity, "Syntax errors in policy."},
		{"trust", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}}`, Trust, ""},
		{"trust with resource", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}}`, Trust, "Has prohibited field Resource"},
		{"trust without principal", `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`, Trust, "Missing required field Principal"},
		{"trust other action", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"ecs:RunTask"}}`, Trust, "AssumeRole policy may only specify STS AssumeRole actions."},
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

// AWS's own example of where a lone statement begins and ends, and what it says
// of the elements of a list: from behind what the reader had read before.
func TestPositions(t *testing.T) {
	lone := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"dynamodb:*","Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2018-08-16T12:00:00Z"}}}}`, Identity)
	if st := lone.Statement(0); st.Start != (Position{1, 38}) || st.End != (Position{1, 167}) || st.Deny || len(st.Conditions) != 1 || st.Conditions[0].Key != "aws:CurrentTime" {
		t.Errorf("%+v", st)
	}
	list := mustParse(t, `{
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "a",
            "Effect": "Allow",
            "Action": "codecommit:ListRepositories",
            "Resource": "*"
        },
        {"Effect": "Deny", "NotAction": ["a:b", "c:d"], "Resource": "*"}
    ]
}`, Identity)
	if st := list.Statement(0); st.Start != (Position{3, 19}) || st.End != (Position{9, 10}) || st.Sid != "a" || st.Actions[0] != "codecommit:ListRepositories" {
		t.Errorf("%+v", st)
	}
	if st := list.Statement(1); st.Start != (Position{9, 10}) || st.End != (Position{10, 73}) || !st.Deny || len(st.Actions) != 2 {
		t.Errorf("%+v", st)
	}
}

func TestKeys(t *testing.T) {
	d := mustParse(t, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::${aws:PrincipalTag/Team, 'none'}/${*}","Condition":{"StringLike":{"s3:Prefix":"${aws:username}"},"Bool":{"AWS:UserName":"true"}}}]}`, Identity)
	if got := strings.Join(d.Keys(), " "); got != "s3:Prefix aws:username aws:PrincipalTag/Team" {
		t.Errorf("keys %s", got)
	}
}

func TestExplain(t *testing.T) {
	allow := mustParse(t, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ecs:*","Resource":"*"},
		{"Effect":"Allow","Action":"ecs:RunTask","Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/Team":"a"},"Bool":{"aws:SecureTransport":"true"}}},
		{"Effect":"Allow","Action":"iam:*","Resource":"arn:aws:s3:::${aws:username}"}]}`, Identity)
	deny := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"ecs:Run*","Resource":"*"}}`, Identity)
	r := &Request{Principal: Principal{Account: "111111111111", ARN: "arn:aws:iam::111111111111:user/bob"}, Action: "ecs:RunTask", Resource: "*",
		Keys: map[string][]string{"aws:securetransport": {"true"}}, Identity: []*Document{allow, deny}, Boundary: allow, Session: []*Document{}}
	x := Explain(r)
	want := []Match{{IdentityPolicy, 0, 0, false}, {IdentityPolicy, 1, 0, true}, {BoundaryPolicy, 0, 0, false}}
	if x.Allowed || !x.Explicit || !slices.Equal(x.Matched, want) {
		t.Errorf("%+v", x)
	}
	if !slices.Equal(x.Missing, []string{"aws:RequestTag/Team"}) {
		t.Errorf("missing %v", x.Missing)
	}
	if by := (map[Source]Outcome{IdentityPolicy: Denies, BoundaryPolicy: Allows, SessionPolicy: Silent}); !maps.Equal(x.By, by) {
		t.Errorf("by source %v, want %v", x.By, by)
	}
}

// AWS documents to which kinds of principals a resource's policy gives more
// than a boundary or a session policy allows.
func TestWhoIsNamed(t *testing.T) {
	nothing := mustParse(t, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}}`, Identity)
	const account = "111111111111"
	user := Principal{Account: account, ARN: "arn:aws:iam::111111111111:user/u"}
	role := Principal{Account: account, ARN: "arn:aws:sts::111111111111:assumed-role/r/s", Parent: "arn:aws:iam::111111111111:role/r"}
	federated := Principal{Account: account, ARN: "arn:aws:sts::111111111111:federated-user/f", Parent: user.ARN}
	for _, tc := range []struct {
		named string
		who   Principal
		bound bool // by boundary, session policy
		want  bool
	}{
		{user.ARN, user, true, true},
		{role.ARN, role, true, true},
		{role.Parent, role, true, false},
		{role.Parent, role, false, true},
		{federated.ARN, federated, true, true},
		{user.ARN, federated, true, false},
		{account, user, false, false},
		{"*", role, true, true},
	} {
		r := &Request{Principal: tc.who, Action: "ecr:BatchGetImage", Resource: "*",
			Policy: mustParse(t, `{"Statement":{"Effect":"Allow","Principal":{"AWS":"`+tc.named+`"},"Action":"ecr:*"}}`, Resource)}
		if tc.bound {
			r.Boundary, r.Session = nothing, []*Document{nothing}
		}
		if got := Evaluate(r); got.Allowed != tc.want {
			t.Errorf("%s named, %s asks, bound %v: %+v", tc.named, tc.who.ARN, tc.bound, got)
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
			r := &Request{Action: "ecs:RunTask", Resource: "arn:aws:ecs:us-east-1:1:task/a/b", Keys: map[string][]string{"k": {text}}, Identity: []*Document{d}, Policy: d}
			if x := Explain(r); x.Decision != Evaluate(r) {
				t.Fatalf("explained as %+v", x)
			}
			for i := range d.Statements() {
				if st := d.Statement(i); st.Start.Line < 1 || st.Start.Column < 1 || st.End.Line < st.Start.Line {
					t.Fatalf("statement %d at %+v", i, st)
				}
			}
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
