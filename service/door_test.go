package service_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	sdksts "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/berth-run/berth/auth"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	awsecs "github.com/berth-run/berth/aws/ecs"
	awsiam "github.com/berth-run/berth/aws/iam"
	awssts "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/service/sts"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/test/lab"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "000000000000"
	region  = "eu-central-1"
)

// A region is a door with IAM and STS behind it, listening.
type testRegion struct {
	t        testing.TB
	db       *store.DB
	door     *service.Door
	sessions *auth.Sessions
	root     iam.RootKey
	url      string
	addr     string
	ca       *service.Authority
	log      *lockedBuffer
	now      time.Time
}

// lockedBuffer is a log that may be written and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// panicking has operations that fail in every way.
type panicking struct{ awsecs.Unimplemented }

func (panicking) ListClusters(context.Context, *awsecs.ListClustersInput) (*awsecs.ListClustersOutput, error) {
	panic("a bug with a secret in it")
}

func (panicking) DescribeClusters(context.Context, *awsecs.DescribeClustersInput) (*awsecs.DescribeClustersOutput, error) {
	return nil, errors.New("disk full")
}

func start(t testing.TB, handlers map[string]http.Handler) *testRegion {
	t.Helper()
	return startWith(t, func(c *service.Config) { c.Handlers = handlers })
}

func startWith(t testing.TB, change func(*service.Config)) *testRegion {
	t.Helper()
	r := &testRegion{t: t, db: store.OpenMemory(), log: &lockedBuffer{}, now: time.Now()}
	t.Cleanup(func() { r.db.Close() })
	var err error
	if r.sessions, err = auth.NewSessions(bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}
	if r.root, err = iam.Bootstrap(t.Context(), r.db, account, time.Now()); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return r.now }
	authorizer := &auth.Authorizer{Sessions: r.sessions}
	iamAPI := iam.New(iam.Config{DB: r.db})
	stsAPI := sts.New(sts.Config{DB: r.db, Sessions: r.sessions, Authorizer: authorizer, Clock: clock})
	config := service.Config{DB: r.db, Region: region, Authorizer: authorizer,
		Verifier: &auth.Verifier{Sessions: r.sessions, Region: region, Clock: clock},
		Log:      slog.New(slog.NewJSONHandler(r.log, nil)), BodyTime: bodyTime,
		Services: []service.Registration{
			{Service: awsiam.NewService(iamAPI), Authorize: iamAPI.Authorize()},
			{Service: awssts.NewService(stsAPI), Authorize: stsAPI.Authorize()},
			{Service: awsecs.NewService(panicking{})},
			{Service: awsec2.NewService(awsec2.Unimplemented{})},
		}}
	change(&config)
	if r.door, err = service.New(config); err != nil {
		t.Fatal(err)
	}
	if r.ca, err = service.OpenAuthority(t.TempDir(), time.Now()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	r.url = "http://" + r.addr
	done := make(chan error, 1)
	go func() {
		done <- r.door.Serve(l, r.ca.TLS(service.Names(region), []net.IP{net.IPv4(127, 0, 0, 1)}, nil))
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.door.Drain(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *testRegion) config(key, secret, token string) aws.Config {
	return aws.Config{Region: region, BaseEndpoint: &r.url, RetryMaxAttempts: 1, HTTPClient: lab.Plain{Client: http.DefaultClient},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}, nil
		})}
}

func (r *testRegion) asRoot() aws.Config { return r.config(r.root.AccessKeyID, r.root.Secret, "") }

// user makes a user with one inline policy, "" for none, and returns its configuration.
func (r *testRegion) user(name, document string) aws.Config {
	r.t.Helper()
	c := sdkiam.NewFromConfig(r.asRoot())
	if _, err := c.CreateUser(r.t.Context(), &sdkiam.CreateUserInput{UserName: &name}); err != nil {
		r.t.Fatal(err)
	}
	if document != "" {
		if _, err := c.PutUserPolicy(r.t.Context(), &sdkiam.PutUserPolicyInput{UserName: &name, PolicyName: new("p"), PolicyDocument: &document}); err != nil {
			r.t.Fatal(err)
		}
	}
	k, err := c.CreateAccessKey(r.t.Context(), &sdkiam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.config(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, "")
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func message(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorMessage()
	}
	return ""
}

func TestCallerIdentity(t *testing.T) {
	r := start(t, nil)
	out, err := sdksts.NewFromConfig(r.asRoot()).GetCallerIdentity(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if *out.Arn != "arn:aws:iam::000000000000:root" || *out.Account != account || *out.UserId != account {
		t.Errorf("root is %s %s %s", *out.Arn, *out.Account, *out.UserId)
	}
	bob := r.user("bob", "")
	out, err = sdksts.NewFromConfig(bob).GetCallerIdentity(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if *out.Arn != "arn:aws:iam::000000000000:user/bob" || !strings.HasPrefix(*out.UserId, "AIDA") || len(*out.UserId) != 21 {
		t.Errorf("bob is %s %s", *out.Arn, *out.UserId)
	}
	if log := r.log.String(); !strings.Contains(log, `"op":"sts:GetCallerIdentity","status":200`) || !strings.Contains(log, `"caller":"arn:aws:iam::000000000000:user/bob"`) {
		t.Errorf("request log:\n%s", log)
	}
	if strings.Contains(r.log.String(), r.root.Secret) {
		t.Error("a secret is in the log")
	}
}

func TestDeniedAndAllowed(t *testing.T) {
	r := start(t, nil)
	bob := sdkiam.NewFromConfig(r.user("bob", ""))
	_, err := bob.CreateRole(t.Context(), &sdkiam.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new("{}")})
	const want = "User: arn:aws:iam::000000000000:user/bob is not authorized to perform: iam:CreateRole on resource: arn:aws:iam::000000000000:role/r because no identity-based policy allows the iam:CreateRole action"
	if code(err) != "AccessDenied" || message(err) != want {
		t.Errorf("%v", err)
	}
	eve := sdkiam.NewFromConfig(r.user("eve", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:GetUser","Resource":"arn:aws:iam::000000000000:user/${aws:username}"}]}`))
	if out, err := eve.GetUser(t.Context(), &sdkiam.GetUserInput{}); err != nil || *out.User.UserName != "eve" {
		t.Errorf("own user: %v", err)
	}
	if _, err := eve.GetUser(t.Context(), &sdkiam.GetUserInput{UserName: new("bob")}); code(err) != "AccessDenied" {
		t.Errorf("other user: %v", err)
	}
}

// post sends a signed request by hand and returns status and body.
func (r *testRegion) post(signer auth.Signer, svc, body string, header map[string]string, at time.Time, scope string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), "POST", r.url+"/", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if signer.AccessKeyID != "" {
		signer.Sign(req, []byte(body), svc, scope, at)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if id := resp.Header.Get("X-Amzn-Requestid"); len(id) != 36 {
		r.t.Errorf("request id %q", id)
	}
	return resp.StatusCode, string(data)
}

func TestAuthenticationFailures(t *testing.T) {
	r := start(t, nil)
	good := auth.Signer{AccessKeyID: r.root.AccessKeyID, Secret: r.root.Secret}
	expired, err := r.sessions.Mint(auth.Session{Kind: auth.RootUser, Account: account, PrincipalID: account}, r.now.Add(-2*time.Hour), r.now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	jsonHeader := map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListServices"}
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	protocols := []struct {
		name, svc, body string
		header          map[string]string
	}{
		{"json", "ecs", "{}", jsonHeader},
		{"query", "iam", "Action=ListUsers&Version=2010-05-08", form},
		{"ec2", "ec2", "Action=DescribeVpcs&Version=2016-11-15", form},
	}
	for _, tc := range []struct {
		name   string
		signer auth.Signer
		at     time.Duration
		scope  string
		svc    string
		status [3]int
		text   [3]string
	}{
		{name: "unsigned", status: [3]int{400, 403, 403}, text: [3]string{`"MissingAuthenticationTokenException"`, "<Code>MissingAuthenticationToken</Code>", "<Code>MissingAuthenticationToken</Code>"}},
		{name: "unknown key", signer: auth.Signer{AccessKeyID: "AKIAQAAAAAAAAAAAAAAA", Secret: "x"}, status: [3]int{400, 403, 401},
			text: [3]string{`"UnrecognizedClientException","message":"The security token included in the request is invalid."`, "<Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message>", "<Code>AuthFailure</Code><Message>AWS was not able to validate the provided access credentials</Message>"}},
		{name: "wrong secret", signer: auth.Signer{AccessKeyID: good.AccessKeyID, Secret: "x"}, status: [3]int{400, 403, 401},
			text: [3]string{`"InvalidSignatureException","message":"The request signature we calculated`, "<Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated", "AuthFailure"}},
		{name: "old", signer: good, at: -6 * time.Minute, status: [3]int{400, 403, 400},
			text: [3]string{`"InvalidSignatureException","message":"Signature expired: `, "<Code>SignatureDoesNotMatch</Code><Message>Signature expired: ", "<Code>RequestExpired</Code>"}},
		{name: "expired token", signer: auth.Signer{AccessKeyID: expired.AccessKeyID, Secret: expired.Secret, Token: expired.Token}, status: [3]int{400, 403, 400},
			text: [3]string{`"ExpiredTokenException","message":"The security token included in the request is expired"`, "<Code>ExpiredToken</Code>", "RequestExpired"}},
		{name: "forged token", signer: auth.Signer{AccessKeyID: expired.AccessKeyID, Secret: expired.Secret, Token: expired.Token[:20] + "AAAA" + expired.Token[24:]}, status: [3]int{400, 403, 401},
			text: [3]string{"UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"}},
		{name: "other region", signer: good, scope: "us-west-2", status: [3]int{400, 403, 401},
			text: [3]string{"Credential should be scoped to a valid region", "Credential should be scoped to a valid region", "AuthFailure"}},
	} {
		for i, p := range protocols {
			t.Run(tc.name+"/"+p.name, func(t *testing.T) {
				scope := tc.scope
				if scope == "" {
					scope = region
				}
				status, body := r.post(tc.signer, p.svc, p.body, p.header, r.now.Add(tc.at), scope)
				if status != tc.status[i] || !strings.Contains(body, tc.text[i]) {
					t.Errorf("%d %s\nwant %d %s", status, body, tc.status[i], tc.text[i])
				}
			})
		}
	}
	// IAM has no region of its own: clients sign for us-east-1.
	if status, body := r.post(good, "iam", protocols[1].body, form, r.now, "us-east-1"); status != 200 {
		t.Errorf("iam in us-east-1: %d %s", status, body)
	}
	if status, body := r.post(good, "ecs", "{}", jsonHeader, r.now, "us-east-1"); status != 400 {
		t.Errorf("ecs in us-east-1: %d %s", status, body)
	}
	// Signed for another service than the one that is called.
	if status, body := r.post(good, "ecr", "{}", jsonHeader, r.now, region); status != 400 || !strings.Contains(body, "Credential should be scoped to correct service: 'ecs'.") {
		t.Errorf("wrong service: %d %s", status, body)
	}
}

func TestDenialShapes(t *testing.T) {
	r := start(t, nil)
	bob := r.user("bob", "")
	creds, err := bob.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	signer := auth.Signer{AccessKeyID: creds.AccessKeyID, Secret: creds.SecretAccessKey}
	status, body := r.post(signer, "ecs", "{}", map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}, r.now, region)
	if status != 400 || body != `{"__type":"AccessDeniedException","message":"User: arn:aws:iam::000000000000:user/bob is not authorized to perform: ecs:ListClusters on resource: * because no identity-based policy allows the ecs:ListClusters action"}` {
		t.Errorf("json: %d %s", status, body)
	}
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	status, body = r.post(signer, "ec2", "Action=DescribeVpcs&Version=2016-11-15", form, r.now, region)
	const prefix = "<Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation. User: arn:aws:iam::000000000000:user/bob is not authorized to perform: ec2:DescribeVpcs because no identity-based policy allows the ec2:DescribeVpcs action. Encoded authorization failure message: "
	_, blob, ok := strings.Cut(body, prefix)
	if status != 403 || !ok {
		t.Fatalf("ec2: %d %s", status, body)
	}
	blob, _, _ = strings.Cut(blob, "<")
	out, err := sdksts.NewFromConfig(r.asRoot()).DecodeAuthorizationMessage(t.Context(), &sdksts.DecodeAuthorizationMessageInput{EncodedMessage: &blob})
	if err != nil {
		t.Fatal(err)
	}
	var decoded struct {
		Allowed bool
		Context struct{ Action string }
	}
	if err := json.Unmarshal([]byte(*out.DecodedMessage), &decoded); err != nil || decoded.Context.Action != "ec2:DescribeVpcs" {
		t.Errorf("%v: %s", err, *out.DecodedMessage)
	}
	// A dry run says that the call would have succeeded, to those who may.
	status, body = r.post(auth.Signer{AccessKeyID: r.root.AccessKeyID, Secret: r.root.Secret}, "ec2", "Action=DescribeVpcs&Version=2016-11-15&DryRun=true", form, r.now, region)
	if status != 412 || !strings.Contains(body, "DryRunOperation") {
		t.Errorf("dry run: %d %s", status, body)
	}
	if status, _ = r.post(signer, "ec2", "Action=DescribeVpcs&Version=2016-11-15&DryRun=true", form, r.now, region); status != 403 {
		t.Errorf("dry run without permission: %d", status)
	}
}

func TestInternalErrorsTellNothing(t *testing.T) {
	r := start(t, nil)
	root := auth.Signer{AccessKeyID: r.root.AccessKeyID, Secret: r.root.Secret}
	for op, logged := range map[string]string{"ListClusters": "a bug with a secret in it", "DescribeClusters": "disk full"} {
		status, body := r.post(root, "ecs", "{}", map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "AmazonEC2ContainerServiceV20141113." + op}, r.now, region)
		if status != 500 || !strings.Contains(body, "ServerException") || strings.Contains(body, logged) {
			t.Errorf("%s: %d %s", op, status, body)
		}
		if !strings.Contains(r.log.String(), logged) {
			t.Errorf("%s: the cause is not in the log", op)
		}
	}
}

func TestBothProtocolsOnOnePort(t *testing.T) {
	r := start(t, map[string]http.Handler{"/v2/": http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, "registry "+q.URL.Path)
	})})
	pem, err := os.ReadFile(r.ca.CAPath())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the CA file")
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for url, want := range map[string]string{
		r.url + service.HealthPath:                                `{"status":"ok","region":"eu-central-1"}` + "\n",
		"https://localhost" + service.HealthPath:                  `{"status":"ok","region":"eu-central-1"}` + "\n",
		"https://127.0.0.1/v2/x":                                  "registry /v2/x",
		"https://000000000000.dkr.ecr.eu-central-1.localhost/v2/": "registry /v2/",
		"https://anything.localhost/v2/":                          "registry /v2/",
		strings.Replace(r.url, "127.0.0.1", "000000000000.dkr.ecr.localhost", 1) + "/v2/a/blobs": "registry /v2/a/blobs",
	} {
		resp, err := client.Get(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != want {
			t.Errorf("%s: %v %q", url, err, body)
		}
	}
	// Another start uses the same authority.
	again, err := service.OpenAuthority(strings.TrimSuffix(r.ca.CAPath(), "/ca.pem"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(again.CAPath())
	if !bytes.Equal(now, pem) {
		t.Error("the authority was replaced")
	}
	key, err := os.Stat(strings.Replace(again.CAPath(), "ca.pem", "ca-key.pem", 1))
	if err != nil || key.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v %v", key.Mode(), err)
	}
}

// A connection that says nothing must neither hold up others nor the end.
func TestSilentConnection(t *testing.T) {
	r := start(t, nil)
	silent, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := sdksts.NewFromConfig(r.asRoot()).GetCallerIdentity(t.Context(), nil); err != nil {
		t.Error(err)
	}
	// The cleanup drains; goleak says whether anything stayed.
}

func TestDrainAnswersWhatIsUnderWay(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, map[string]http.Handler{"/slow": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})})
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get(r.url + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- r.door.Drain(context.Background()) }()
	// Once new connections are refused, draining has begun.
	for {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func BenchmarkRequest(b *testing.B) {
	r := start(b, nil)
	c := sdksts.NewFromConfig(r.asRoot())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.GetCallerIdentity(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
}
