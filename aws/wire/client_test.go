package wire_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

func TestClientSigns(t *testing.T) {
	signed := ""
	client := wire.Client{
		Endpoint: "http://berth.test/",
		HTTP:     &http.Client{Transport: answer{200, []byte(`<R><AssumeRoleWithWebIdentityResult/></R>`)}},
		Sign: func(req *http.Request, body []byte) error {
			signed = req.URL.String() + " " + string(body)
			return nil
		},
	}
	svc := sts.NewService(nil)
	if err := client.Call(t.Context(), svc, "GetCallerIdentity", &sts.GetCallerIdentityInput{}, nil); err != nil {
		t.Fatal(err)
	}
	if want := "http://berth.test/ Action=GetCallerIdentity&Version=2011-06-15"; signed != want {
		t.Errorf("signed %q, want %q", signed, want)
	}
	signed = ""
	if err := client.Call(t.Context(), svc, "AssumeRoleWithWebIdentity", &sts.AssumeRoleWithWebIdentityInput{}, &sts.AssumeRoleWithWebIdentityOutput{}); err != nil {
		t.Fatal(err)
	}
	if signed != "" {
		t.Error("an operation for callers without credentials was signed")
	}
	client.Sign = func(*http.Request, []byte) error { return errors.New("no key") }
	if err := client.Call(t.Context(), svc, "GetCallerIdentity", &sts.GetCallerIdentityInput{}, nil); err == nil {
		t.Error("an unsigned request was sent")
	}
}

// Whatever a server answers in the place of an error, the caller learns what
// is to be learnt.
func TestClientErrors(t *testing.T) {
	for _, tt := range []struct {
		name      string
		svc       *wire.Service
		operation string
		in        any
		status    int
		body      string
		want      string
		typed     bool
	}{
		{"modelled", ecs.NewService(nil), "RunTask", &ecs.RunTaskInput{}, 400, `{"__type":"com.amazonaws.ecs#ClientException","Message":"m"}`, "ecs RunTask: ClientException: m", true},
		{"not modelled", ecs.NewService(nil), "RunTask", &ecs.RunTaskInput{}, 400, `{"__type":"ThrottlingException:http://x","message":"m"}`, "ecs RunTask: ThrottlingException: m", false},
		{"not json", ecs.NewService(nil), "RunTask", &ecs.RunTaskInput{}, 502, `Bad Gateway`, "ecs RunTask: UnknownError: the answer has HTTP status 502 and no error in it", false},
		{"query", iam.NewService(nil), "GetUser", &iam.GetUserInput{}, 404, `<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>m</Message></Error></ErrorResponse>`, "iam GetUser: NoSuchEntity: m", true},
		{"ec2", ec2.NewService(nil), "DeleteVpc", &ec2.DeleteVpcInput{}, 400, `<Response><Errors><Error><Code>DependencyViolation</Code><Message>m</Message></Error></Errors></Response>`, "ec2 DeleteVpc: DependencyViolation: m", false},
		{"not xml", iam.NewService(nil), "GetUser", &iam.GetUserInput{}, 500, `{}`, "iam GetUser: UnknownError: the answer has HTTP status 500 and no error in it", false},
		{"cut off", ec2.NewService(nil), "DescribeVpcs", &ec2.DescribeVpcsInput{}, 200, `<R><vpcSet><item>`, "ec2 DescribeVpcs: decode response: XML syntax error on line 1: unexpected EOF", false},
		{"no such operation", iam.NewService(nil), "getUser", &iam.GetUserInput{}, 200, ``, "AWS IAM has no operation getUser", false},
		{"wrong input", iam.NewService(nil), "GetUser", &iam.GetRoleInput{}, 200, ``, "iam GetUser: the input is a *iam.GetRoleInput, not a *iam.GetUserInput", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: answer{tt.status, []byte(tt.body)}}}
			var out any
			if o := tt.svc.Operations[tt.operation]; o != nil {
				out = o.NewOutput()
			}
			err := client.Call(t.Context(), tt.svc, tt.operation, tt.in, out)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			e, ok := errors.AsType[wire.Error](err)
			if _, untyped := e.(*wire.APIError); ok && untyped == tt.typed {
				t.Errorf("got a %T", e)
			}
			if ok && tt.name != "modelled" && !tt.typed && e.HTTPStatus() != tt.status {
				t.Errorf("status %d, want %d", e.HTTPStatus(), tt.status)
			}
		})
	}
}
