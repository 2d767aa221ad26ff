package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/aws/wire"
)

// checkDecoded holds what a decoder accepted: it can be checked and written,
// and what was written reads as the same.
func checkDecoded(t *testing.T, svc *wire.Service, o *wire.Operation, in any) {
	t.Helper()
	if err := wire.Validate(o, in); err != nil {
		if _, ok := errors.AsType[wire.Error](err); !ok {
			t.Fatalf("%v is no answer", err)
		}
	}
	l := &loopback{router: wire.NewRouter(svc), respond: func(*wire.Call, any) (any, error) { return o.NewOutput(), nil }}
	client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: l}}
	if err := client.Call(context.Background(), svc, o.Name, in, nil); err != nil {
		t.Fatal(err)
	}
	if svc.Protocol != wire.JSON11 {
		return // a form cannot say everything that it can be read as
	}
	if d := cmp.Diff(in, l.decoded); d != "" {
		t.Fatal(d)
	}
}

func fuzzDecode(t *testing.T, svc *wire.Service, req *http.Request, body []byte) {
	call, err := wire.NewRouter(svc).Route(req, body)
	var in any
	if err == nil {
		in, err = call.Decode()
	}
	if err != nil {
		e, ok := errors.AsType[wire.Error](err)
		if !ok || e.HTTPStatus() < 400 || e.HTTPStatus() > 499 {
			t.Fatalf("%v is no answer to bad input", err)
		}
		if err := call.EncodeError(httptest.NewRecorder(), "id", err); err != nil {
			t.Fatal(err)
		}
		return
	}
	checkDecoded(t, svc, call.Operation, in)
}

func operation(svc *wire.Service, n uint16) string {
	names := slices.Sorted(maps.Keys(svc.Operations))
	return names[int(n)%len(names)]
}

func FuzzJSON(f *testing.F) {
	svc := services()[0]
	names := slices.Sorted(maps.Keys(svc.Operations))
	at := func(name string) uint16 { return uint16(slices.Index(names, name)) }
	f.Add(at("RunTask"), []byte(`{"cluster":"c","count":1,"overrides":{"containerOverrides":[{"environment":[{"name":"a","value":"\u00e9\ud834\udd1e"}]}]},"tags":[]}`))
	f.Add(at("RegisterTaskDefinition"), []byte(`{"family":"f","containerDefinitions":[{"dockerLabels":{"a":"b"},"cpu":1e1,"essential":true,"command":["x",null]}]}`))
	f.Add(at("SubmitTaskStateChange"), []byte(`{"pullStartedAt":1479412345.123,"pullStoppedAt":"2016-11-17T19:52:25.000001Z"}`))
	f.Add(at("CreateService"), []byte(`{"deploymentConfiguration":{"lifecycleHooks":[{"hookDetails":{"a":[1,{}]}}]}}`))
	f.Fuzz(func(t *testing.T, op uint16, body []byte) {
		fuzzDecode(t, svc, post(svc.TargetPrefix+"."+operation(svc, op), json11, body), body)
	})
}

func FuzzQuery(f *testing.F) {
	svc := services()[2]
	f.Add("Action=TagUser&Version=2010-05-08&UserName=a%20b&Tags.member.1.Key=k&Tags.member.1.Value=")
	f.Add("Action=ListUsers&Version=2010-05-08&MaxItems=12&PathPrefix=%2F")
	f.Fuzz(func(t *testing.T, body string) {
		fuzzDecode(t, svc, post("", form, []byte(body)), []byte(body))
	})
}

func FuzzEC2Query(f *testing.F) {
	svc := services()[4]
	f.Add("Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=a&Filter.1.Value.2=b&DryRun=true")
	f.Add("Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=1&NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SecurityGroupId.1=sg")
	f.Fuzz(func(t *testing.T, body string) {
		fuzzDecode(t, svc, post("", form, []byte(body)), []byte(body))
	})
}

// FuzzTarget feeds the headers that routing reads.
func FuzzTarget(f *testing.F) {
	router := wire.NewRouter(services()...)
	f.Add("POST", "AmazonEC2ContainerServiceV20141113.RunTask", json11, "AWS4-HMAC-SHA256 Credential=A/20261122/r/ecs/aws4_request, SignedHeaders=host", "X-Amz-Credential=a%2Fb")
	f.Fuzz(func(t *testing.T, method, target, content, authorization, query string) {
		req := httptest.NewRequest("POST", "/", nil)
		req.Method = method
		req.URL.RawQuery = query
		req.Header.Set("X-Amz-Target", target)
		req.Header.Set("Content-Type", content)
		req.Header.Set("Authorization", authorization)
		call, err := router.Route(req, nil)
		if call == nil || err == nil && call.Operation == nil {
			t.Fatalf("%+v, %v", call, err)
		}
		if err != nil {
			if err := call.EncodeError(httptest.NewRecorder(), "id", err); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzResponse is a server that answers a client with anything.
func FuzzResponse(f *testing.F) {
	all := services()
	f.Add(uint8(4), uint16(0), 200, []byte(`<DescribeVpcsResponse><vpcSet><item><vpcId>v</vpcId></item></vpcSet></DescribeVpcsResponse>`))
	f.Add(uint8(2), uint16(0), 404, []byte(`<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>m</Message></Error></ErrorResponse>`))
	f.Add(uint8(0), uint16(0), 400, []byte(`{"__type":"com.amazonaws#ClientException","message":"m"}`))
	f.Fuzz(func(t *testing.T, service uint8, op uint16, status int, body []byte) {
		svc := all[int(service)%len(all)]
		o := svc.Operations[operation(svc, op)]
		client := wire.Client{Endpoint: "http://berth.test", HTTP: &http.Client{Transport: answer{status, body}}}
		out := o.NewOutput()
		err := client.Call(context.Background(), svc, o.Name, o.New(), out)
		if status/100 != 2 && err == nil {
			t.Fatalf("status %d is no error", status)
		}
	})
}

type answer struct {
	status int
	body   []byte
}

func (a answer) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(a.body))}, nil
}
