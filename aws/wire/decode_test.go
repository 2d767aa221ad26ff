package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
)

func decode(svc *wire.Service, operation, body string) (any, error) {
	target, content := svc.TargetPrefix+"."+operation, json11
	if svc.TargetPrefix == "" {
		target, content = "", form
		body = "Action=" + operation + "&Version=" + svc.APIVersion + "&" + body
	}
	call, err := wire.NewRouter(svc).Route(post(target, content, []byte(body)), []byte(body))
	if err != nil {
		return nil, err
	}
	return call.Decode()
}

func TestDecodeJSON(t *testing.T) {
	deep := strings.Repeat(`{"x":`, 200) + `1` + strings.Repeat(`}`, 200)
	for _, tt := range []struct {
		name, operation, body string
		want                  any
		message               string // of a SerializationException
	}{
		{name: "nothing", body: ``, want: &ecs.RunTaskInput{}},
		{name: "white space", body: " \r\n{ } \t", want: &ecs.RunTaskInput{}},
		{name: "null is absence", body: `{"cluster":null,"tags":null,"overrides":null}`, want: &ecs.RunTaskInput{}},
		{name: "empty is not", body: `{"cluster":"","tags":[],"overrides":{}}`, want: &ecs.RunTaskInput{Cluster: new(""), Tags: []ecs.Tag{}, Overrides: &ecs.TaskOverride{}}},
		{name: "unknown members", body: `{"zzz":{"a":[1,-2.5e3,{"b":null}],"c":true},"cluster":"c"}`, want: &ecs.RunTaskInput{Cluster: new("c")}},
		{name: "names are case-sensitive", body: `{"Cluster":"c"}`, want: &ecs.RunTaskInput{}},
		{name: "the last of two wins", body: `{"cluster":"a","cluster":"b","overrides":{"cpu":"1"},"overrides":{"memory":"2"}}`,
			want: &ecs.RunTaskInput{Cluster: new("b"), Overrides: &ecs.TaskOverride{Memory: new("2")}}},
		{name: "escapes", body: `{"cluster":"a\"\\\/\b\f\n\r\t\u00e9\ud834\udd1e\ud834x"}`, want: &ecs.RunTaskInput{Cluster: new("a\"\\/\b\f\n\r\t\u00e9\U0001d11e\ufffdx")}},
		{name: "numbers", body: `{"count":1e1,"capacityProviderStrategy":[{"weight":-0,"base":2.0}]}`,
			want: &ecs.RunTaskInput{Count: new(int32(10)), CapacityProviderStrategy: []ecs.CapacityProviderStrategyItem{{Weight: new(int32(0)), Base: new(int32(2))}}}},
		{name: "nulls in lists", body: `{"tags":[null,{"key":"k"},null]}`, want: &ecs.RunTaskInput{Tags: []ecs.Tag{{Key: new("k")}}}},
		{name: "time in seconds", operation: "SubmitTaskStateChange", body: `{"pullStartedAt":1479412345.123}`, want: &ecs.SubmitTaskStateChangeInput{PullStartedAt: new(time.UnixMilli(1479412345123).UTC())}},
		{name: "time as text", operation: "SubmitTaskStateChange", body: `{"pullStartedAt":"2016-11-17T19:52:25+00:00"}`, want: &ecs.SubmitTaskStateChangeInput{PullStartedAt: new(time.Unix(1479412345, 0).UTC())}},
		{name: "members of the agent", operation: "RegisterContainerInstance", body: `{"clientToken":"t"}`, want: &ecs.RegisterContainerInstanceInput{ClientToken: new("t")}},

		{name: "number for string", body: `{"cluster":1}`, message: "NUMBER_VALUE can not be converted to a String"},
		{name: "bool for string", body: `{"cluster":true}`, message: "TRUE_VALUE can not be converted to a String"},
		{name: "string for integer", body: `{"count":"1"}`, message: "STRING_VALUE can not be converted to an Integer"},
		{name: "string for bool", body: `{"enableExecuteCommand":"true"}`, message: "STRING_VALUE can not be converted to a Boolean"},
		{name: "list for string", body: `{"cluster":["a"]}`, message: "Start of list found where not expected."},
		{name: "object for list", body: `{"tags":{"a":"b"}}`, message: "Start of structure or map found where not expected."},
		{name: "string for list", body: `{"tags":"a"}`, message: "Expected list or null"},
		{name: "string for structure", body: `{"overrides":"a"}`, message: "Expected structure or map or null"},
		{name: "fraction", body: `{"count":1.5}`, message: "The number 1.5 is out of the range of Integer"},
		{name: "range", body: `{"count":2147483648}`, message: "The number 2147483648 is out of the range of Integer"},
		{name: "range of a float", body: `{"count":1e300}`, message: "The number 1e300 is out of the range of Integer"},
		{name: "no object", body: `[]`, message: "Start of list found where not expected."},
		{name: "cut off", body: `{"cluster":"a`, message: "Unexpected end of the document"},
		{name: "trailing", body: `{} {}`, message: "Unexpected data after the document"},
		{name: "comma", body: `{"cluster":"a",}`, message: "Unexpected character at offset 15 of the document"},
		{name: "leading zero", body: `{"count":01}`, message: "Unexpected character at offset 10 of the document"},
		{name: "bare word", body: `{"count":nul}`, message: "Unexpected character at offset 9 of the document"},
		{name: "bad escape", body: `{"cluster":"\x"}`, message: "Unexpected character at offset 13 of the document"},
		{name: "control character", body: "{\"cluster\":\"\n\"}", message: "Unexpected character at offset 12 of the document"},
		{name: "not UTF-8", body: "{\"cluster\":\"\xff\"}", message: "The document is not valid UTF-8"},
		{name: "not UTF-8 in what is skipped", body: "{\"zzz\":\"\xc3\\n\"}", message: "The document is not valid UTF-8"},
		{name: "too deep", body: `{"zzz":` + deep + `}`, message: "The document is nested too deeply"},
		{name: "time", operation: "SubmitTaskStateChange", body: `{"pullStartedAt":1e99}`, message: "1e99 can not be converted to a Timestamp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode(ecs.NewService(nil), first(tt.operation, "RunTask"), tt.body)
			if tt.message != "" {
				if err == nil || err.Error() != "SerializationException: "+tt.message {
					t.Errorf("got %v, want %s", err, tt.message)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDecodeQuery(t *testing.T) {
	for _, tt := range []struct {
		name      string
		svc       *wire.Service
		operation string
		body      string
		want      any
		err       string
	}{
		{name: "list", svc: iam.NewService(nil), operation: "TagUser", body: "UserName=a%20b+c&Tags.member.2.Key=k2&Tags.member.1.Key=k1&Tags.member.1.Value=",
			want: &iam.TagUserInput{UserName: new("a b c"), Tags: []iam.Tag{{Key: new("k1"), Value: new("")}, {Key: new("k2")}}}},
		{name: "order is that of the numbers", svc: iam.NewService(nil), operation: "UntagUser", body: "TagKeys.member.10=c&TagKeys.member.9=b&TagKeys.member.1=a",
			want: &iam.UntagUserInput{TagKeys: []string{"a", "b", "c"}}},
		{name: "empty list", svc: iam.NewService(nil), operation: "UntagUser", body: "TagKeys=", want: &iam.UntagUserInput{TagKeys: []string{}}},
		{name: "the last of two wins", svc: iam.NewService(nil), operation: "GetUser", body: "UserName=a&UserName=b", want: &iam.GetUserInput{UserName: new("b")}},
		{name: "unknown and miscased", svc: iam.NewService(nil), operation: "GetUser", body: "username=a&Foo.1.Bar=b", want: &iam.GetUserInput{}},
		{name: "integer", svc: iam.NewService(nil), operation: "ListUsers", body: "MaxItems=x", err: "MalformedInput: The parameter MaxItems is malformed."},
		{name: "index", svc: iam.NewService(nil), operation: "UntagUser", body: "TagKeys.member.01=x", err: "MalformedInput: The parameter TagKeys.01 is malformed."},
		{name: "structure for a string", svc: iam.NewService(nil), operation: "GetUser", body: "UserName.X=a", err: "MalformedInput: The parameter UserName is malformed."},

		{name: "filters", svc: ec2.NewService(nil), operation: "DescribeVpcs", body: "Filter.1.Name=tag%3Aa&Filter.1.Value.1=x&Filter.1.Value.2=y&VpcId.1=vpc-1&MaxResults=5&DryRun=true",
			want: &ec2.DescribeVpcsInput{Filters: []ec2.Filter{{Name: new("tag:a"), Values: []string{"x", "y"}}}, VpcIds: []string{"vpc-1"}, MaxResults: new(int32(5)), DryRun: new(true)}},
		{name: "gaps close", svc: ec2.NewService(nil), operation: "DescribeVpcs", body: "VpcId.7=b&VpcId.2=a", want: &ec2.DescribeVpcsInput{VpcIds: []string{"a", "b"}}},
		{name: "lower-case location", svc: ec2.NewService(nil), operation: "AttachInternetGateway", body: "InternetGatewayId=igw&VpcId=v", want: &ec2.AttachInternetGatewayInput{InternetGatewayId: new("igw"), VpcId: new("v")}},
		{name: "wrapped value", svc: ec2.NewService(nil), operation: "ModifyVpcAttribute", body: "VpcId=v&EnableDnsSupport.Value=false", want: &ec2.ModifyVpcAttributeInput{VpcId: new("v"), EnableDnsSupport: &ec2.AttributeBooleanValue{Value: new(false)}}},
		{name: "ec2 boolean", svc: ec2.NewService(nil), operation: "DescribeVpcs", body: "DryRun=maybe", err: "InvalidParameterValue: Invalid value 'maybe' for DryRun."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode(tt.svc, tt.operation, tt.body)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
