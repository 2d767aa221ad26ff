package wire_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

const (
	json11 = "application/x-amz-json-1.1"
	form   = "application/x-www-form-urlencoded; charset=utf-8"
)

func TestRoute(t *testing.T) {
	const ecsTarget = "AmazonEC2ContainerServiceV20141113."
	scope := func(service string) http.Header {
		return http.Header{"Authorization": {"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/" + service + "/aws4_request, SignedHeaders=host, Signature=00"}}
	}
	for _, tt := range []struct {
		name    string
		method  string // default POST
		url     string // default /
		header  http.Header
		target  string
		content string
		body    string
		want    string // service, operation, protocol
		code    string // or the error's code and text
		message string
	}{
		{name: "json", target: ecsTarget + "RunTask", content: json11, want: "ecs RunTask json-1.1"},
		{name: "json with charset", target: ecsTarget + "RunTask", content: json11 + "; charset=utf-8", want: "ecs RunTask json-1.1"},
		{name: "json 1.0 answers 1.0", target: ecsTarget + "RunTask", content: "application/x-amz-json-1.0", want: "ecs RunTask json-1.0"},
		{name: "plain json", target: ecsTarget + "RunTask", content: "application/json", want: "ecs RunTask json-1.1"},
		{name: "other prefix", target: "Logs_20140328.CreateLogGroup", content: json11, want: "logs CreateLogGroup json-1.1"},
		{name: "query", content: form, body: "Action=ListUsers&Version=2010-05-08", want: "iam ListUsers query"},
		{name: "query by version", content: form, body: "Action=GetCallerIdentity&Version=2011-06-15", want: "sts GetCallerIdentity query"},
		{name: "ec2", content: form, body: "Action=DescribeVpcs&Version=2016-11-15", want: "ec2 DescribeVpcs ec2"},
		{name: "ec2 of older days by its signing name", header: scope("ec2"), content: form, body: "Action=DescribeVpcs&Version=2014-06-15", want: "ec2 DescribeVpcs ec2"},
		{name: "presigned", method: "GET", url: "/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Credential=A%2F20261122%2Feu-west-1%2Fsts%2Faws4_request", want: "sts GetCallerIdentity query"},
		{name: "action in the URL of a POST", url: "/?Action=ListUsers&Version=2010-05-08", want: "iam ListUsers query"},
		{name: "body wins over URL", url: "/?Action=ListRoles&Version=2010-05-08", content: form, body: "Action=ListUsers", want: "iam ListUsers query"},

		{name: "unknown operation", target: ecsTarget + "Runtask", content: json11, code: "UnknownOperationException", message: "The operation Runtask is unknown."},
		{name: "unknown prefix", target: "DynamoDB_20120810.GetItem", content: json11, code: "UnknownOperationException"},
		{name: "no dot", target: "RunTask", content: json11, code: "UnknownOperationException"},
		{name: "wrong content type", target: ecsTarget + "RunTask", content: "text/plain", code: "UnknownOperationException"},
		{name: "wrong method", method: "GET", target: ecsTarget + "RunTask", content: json11, code: "UnknownOperationException"},
		{name: "no target", content: json11, body: "{}", code: "UnknownOperationException"},
		{name: "unknown action", content: form, body: "Action=ListUser&Version=2010-05-08", code: "InvalidAction", message: "Could not find operation ListUser for version 2010-05-08"},
		{name: "unknown version", header: scope("iam"), content: form, body: "Action=ListUsers&Version=2099-01-01", code: "InvalidAction", message: "Could not find operation ListUsers for version 2099-01-01"},
		{name: "no version", header: scope("iam"), content: form, body: "Action=ListUsers", code: "InvalidAction", message: "Could not find operation ListUsers for version NO_VERSION_SPECIFIED"},
		{name: "no action", content: form, body: "Version=2010-05-08", code: "MissingAction"},
		{name: "unknown ec2 action", content: form, body: "Action=DescribeVpc&Version=2016-11-15", code: "InvalidAction", message: "The action DescribeVpc is not valid for this web service."},
		{name: "ec2 action that is not here", content: form, body: "Action=CreateVpnGateway&Version=2016-11-15", code: "UnsupportedOperation", message: "The operation CreateVpnGateway of Amazon EC2 is not supported by Berth."},
		{name: "ec2 action known by a part of a name", content: form, body: "Action=CreateVpnGatewa&Version=2016-11-15", code: "InvalidAction"},
		{name: "ec2 of a later day", content: form, header: scope("ec2"), body: "Action=DescribeVpcs&Version=2030-01-01", code: "NoSuchVersion"},
		{name: "ec2 without version", header: scope("ec2"), content: form, body: "Action=DescribeVpcs", code: "MissingParameter"},
		{name: "ec2 without action", header: scope("ec2"), content: form, body: "Version=2016-11-15", code: "MissingParameter"},
		{name: "bad escape", content: form, body: "Action=ListUsers&Version=2010-05-08&PathPrefix=%zz", code: "MalformedQueryString"},
		{name: "not UTF-8", content: form, body: "Action=ListUsers&Version=2010-05-08&PathPrefix=%ff", code: "MalformedQueryString"},
		{name: "query as json", content: "application/xml", body: "<x/>", code: "MalformedQueryString"},
		{name: "PUT", method: "PUT", code: "UnsupportedHttpVerb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest(first(tt.method, "POST"), first(tt.url, "/"), strings.NewReader(tt.body))
			for k, v := range tt.header {
				req.Header[k] = v
			}
			req.Header.Set("Content-Type", tt.content)
			if tt.target != "" {
				req.Header.Set("X-Amz-Target", tt.target)
			}
			call, err := wire.NewRouter(services()...).Route(req, []byte(tt.body))
			if call == nil {
				t.Fatal("no call")
			}
			if tt.code != "" {
				e, ok := errors.AsType[wire.Error](err)
				if !ok || e.ErrorCode() != tt.code {
					t.Fatalf("got error %v, want %s", err, tt.code)
				}
				if tt.message != "" && err.Error() != tt.code+": "+tt.message {
					t.Errorf("got %q, want the message %q", err, tt.message)
				}
				// Whatever went wrong, it can be answered.
				w := httptest.NewRecorder()
				if err := call.EncodeError(w, "id", err); err != nil || w.Code != e.HTTPStatus() || !strings.Contains(w.Body.String(), tt.code) {
					t.Errorf("encoded as %d %s, %v", w.Code, w.Body, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := call.Service.Name + " " + call.Operation.Name + " " + call.Protocol.String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// The whole text of each kind of answer.
func TestEnvelopes(t *testing.T) {
	oops := errors.New("dial tcp: secret address")
	for _, tt := range []struct {
		name      string
		svc       *wire.Service
		operation string
		out       any
		err       error
		status    int
		header    string // "Name: value"
		body      string
	}{
		{name: "json", svc: ecs.NewService(nil), operation: "ListTasks", out: &ecs.ListTasksOutput{TaskArns: []string{"a"}},
			status: 200, header: "Content-Type: application/x-amz-json-1.1", body: `{"taskArns":["a"]}`},
		{name: "absent lists at the top", svc: ecs.NewService(nil), operation: "ListTasks", out: (*ecs.ListTasksOutput)(nil),
			status: 200, header: "X-Amzn-Requestid: req-1", body: `{"taskArns":[]}`},
		{name: "json without output", svc: logs.NewService(nil), operation: "CreateLogGroup", out: (*logs.CreateLogGroupOutput)(nil), status: 200, body: ``},
		{name: "query", svc: sts.NewService(nil), operation: "GetCallerIdentity", out: &sts.GetCallerIdentityOutput{Account: new("1&2")},
			status: 200, header: "Content-Type: text/xml",
			body: `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Account>1&amp;2</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>req-1</RequestId></ResponseMetadata></GetCallerIdentityResponse>`},
		{name: "query without output", svc: iam.NewService(nil), operation: "DeleteUser", out: &iam.DeleteUserOutput{},
			status: 200, body: `<DeleteUserResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ResponseMetadata><RequestId>req-1</RequestId></ResponseMetadata></DeleteUserResponse>`},
		{name: "ec2", svc: ec2.NewService(nil), operation: "DescribeVpcs", out: &ec2.DescribeVpcsOutput{Vpcs: []ec2.Vpc{{VpcId: new("vpc-1"), IsDefault: new(false), Tags: []ec2.Tag{{Key: new("k"), Value: new("")}}}}},
			status: 200, header: "Content-Type: text/xml;charset=UTF-8",
			body: `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>req-1</requestId><vpcSet><item><isDefault>false</isDefault><tagSet><item><key>k</key><value></value></item></tagSet><vpcId>vpc-1</vpcId></item></vpcSet></DescribeVpcsResponse>`},
		{name: "ec2 without output", svc: ec2.NewService(nil), operation: "DeleteVpc", out: &ec2.DeleteVpcOutput{},
			status: 200, body: `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<DeleteVpcResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>req-1</requestId><return>true</return></DeleteVpcResponse>`},

		{name: "json error", svc: ecs.NewService(nil), operation: "RunTask", err: &ecs.ClusterNotFoundException{Message: "Cluster not found."},
			status: 400, header: "X-Amzn-Errortype: ClusterNotFoundException", body: `{"__type":"ClusterNotFoundException","message":"Cluster not found."}`},
		{name: "wrapped json error by code", svc: ecs.NewService(nil), operation: "RunTask", err: errorsJoin(wire.NewError(400, "ThrottlingException", "Rate exceeded")),
			status: 400, body: `{"__type":"ThrottlingException","message":"Rate exceeded"}`},
		{name: "query error", svc: iam.NewService(nil), operation: "GetUser", err: &iam.NoSuchEntityException{Message: "The user with name x cannot be found."},
			status: 404, body: `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>The user with name x cannot be found.</Message></Error><RequestId>req-1</RequestId></ErrorResponse>`},
		{name: "ec2 error", svc: ec2.NewService(nil), operation: "DeleteVpc", err: wire.NewError(400, "InvalidVpcID.NotFound", "The vpc ID 'vpc-1' does not exist"),
			status: 400, body: `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code><Message>The vpc ID 'vpc-1' does not exist</Message></Error></Errors><RequestID>req-1</RequestID></Response>`},
		{name: "failure of our own", svc: ecs.NewService(nil), operation: "RunTask", err: oops, status: 500,
			body: `{"__type":"ServerException","message":"The request processing has failed because of an internal error. (request req-1)"}`},
		{name: "failure of our own, query", svc: iam.NewService(nil), operation: "GetUser", err: oops, status: 500,
			body: `<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Receiver</Type><Code>ServiceFailure</Code><Message>The request processing has failed because of an internal error. (request req-1)</Message></Error><RequestId>req-1</RequestId></ErrorResponse>`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			call := &wire.Call{Service: tt.svc, Operation: tt.svc.Operations[tt.operation], Protocol: tt.svc.Protocol}
			w := httptest.NewRecorder()
			var err error
			if tt.err != nil {
				err = call.EncodeError(w, "req-1", tt.err)
			} else {
				err = call.EncodeResponse(w, "req-1", tt.out)
			}
			if err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, tt.status, tt.body)
			}
			if name, value, ok := strings.Cut(tt.header, ": "); ok && w.Header().Get(name) != value {
				t.Errorf("header %s is %q, want %q", name, w.Header().Get(name), value)
			}
		})
	}
}

func errorsJoin(err error) error { return errors.Join(errors.New("while placing"), err) }

func TestUnimplemented(t *testing.T) {
	_, err := ecs.Unimplemented{}.RunTask(t.Context(), &ecs.RunTaskInput{})
	if got, want := err.Error(), "UnsupportedOperationException: The operation RunTask of Amazon ECS is not supported by Berth."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
