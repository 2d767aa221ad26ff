package wire_test

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

// The words of each service.
func TestValidationTexts(t *testing.T) {
	long := strings.Repeat("x", 65)
	for _, tt := range []struct {
		svc       *wire.Service
		operation string
		in        any
		want      string // "" if valid
	}{
		{ecs.NewService(nil), "RunTask", &ecs.RunTaskInput{TaskDefinition: new("t")}, ""},
		{ecs.NewService(nil), "RunTask", &ecs.RunTaskInput{}, "ClientException: TaskDefinition can not be blank."},
		{ecs.NewService(nil), "RunTask", &ecs.RunTaskInput{TaskDefinition: new("t"), LaunchType: "EC3"},
			"InvalidParameterException: 1 validation error detected: Value 'EC3' at 'launchType' failed to satisfy constraint: Member must satisfy enum value set: [EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES]"},
		{ecs.NewService(nil), "CreateService", &ecs.CreateServiceInput{ServiceName: new("s"), NetworkConfiguration: &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{}}},
			"InvalidParameterException: 1 validation error detected: Value null at 'networkConfiguration.awsvpcConfiguration.subnets' failed to satisfy constraint: Member must not be null"},

		{ecr.NewService(nil), "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("Bad_Name!")},
			`InvalidParameterException: Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression '[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*''`},
		{ecr.NewService(nil), "CreateRepository", &ecr.CreateRepositoryInput{},
			"InvalidParameterException: Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must not be null'"},
		{ecr.NewService(nil), "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("a/b-c__d.e")}, ""},

		{iam.NewService(nil), "CreateRole", &iam.CreateRoleInput{RoleName: new(""), AssumeRolePolicyDocument: new("{}")},
			`ValidationError: 2 validation errors detected: Value '' at 'roleName' failed to satisfy constraint: Member must have length greater than or equal to 1; ` +
				`Value '' at 'roleName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\w+=,.@-]+`},
		{iam.NewService(nil), "CreateRole", &iam.CreateRoleInput{AssumeRolePolicyDocument: new("{}"), RoleName: &long},
			"ValidationError: 1 validation error detected: Value '" + long + "' at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64"},
		{iam.NewService(nil), "CreateRole", &iam.CreateRoleInput{RoleName: new("r")},
			"ValidationError: 1 validation error detected: Value null at 'assumeRolePolicyDocument' failed to satisfy constraint: Member must not be null"},
		{iam.NewService(nil), "TagUser", &iam.TagUserInput{UserName: new("u"), Tags: []iam.Tag{{Key: new("a"), Value: new("b")}, {Key: new("*"), Value: new("")}}},
			`ValidationError: 1 validation error detected: Value '*' at 'tags.2.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+`},
		{iam.NewService(nil), "CreateLoginProfile", &iam.CreateLoginProfileInput{UserName: new("u"), Password: new("geheim\u20ac")},
			`ValidationError: 1 validation error detected: Value at 'password' failed to satisfy constraint: Member must satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+`},
		{iam.NewService(nil), "ListUsers", &iam.ListUsersInput{MaxItems: new(int32(0)), PathPrefix: new("/a/")},
			"ValidationError: 1 validation error detected: Value '0' at 'maxItems' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{sts.NewService(nil), "AssumeRole", &sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::1:role/r"), RoleSessionName: new("s1"), DurationSeconds: new(int32(899))},
			"ValidationError: 1 validation error detected: Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},

		{ssm.NewService(nil), "GetParameter", &ssm.GetParameterInput{},
			"ValidationException: 1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null"},

		{ec2.NewService(nil), "DeleteVpc", &ec2.DeleteVpcInput{}, "MissingParameter: The request must contain the parameter vpcId"},
		{ec2.NewService(nil), "DescribeVpcs", &ec2.DescribeVpcsInput{MaxResults: new(int32(3))},
			"InvalidParameterValue: Value (3) for parameter maxResults is invalid. Expecting a value greater than or equal to 5."},
		{ec2.NewService(nil), "CreateVpc", &ec2.CreateVpcInput{InstanceTenancy: "shared"},
			"InvalidParameterValue: Value (shared) for parameter instanceTenancy is invalid. Expecting one of: default, dedicated, host."},

		{logs.NewService(nil), "CreateLogGroup", &logs.CreateLogGroupInput{LogGroupName: new("a b")},
			`InvalidParameterException: 1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+`},
	} {
		err := wire.Validate(tt.svc.Operations[tt.operation], tt.in)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s %s\ngot  %s\nwant %s", tt.svc.Name, tt.operation, got, tt.want)
		}
	}
}

// Every constraint of every input is checked: an input that violates just one
// is told so, by its path and the words of that constraint.
func TestEveryConstraint(t *testing.T) {
	for _, svc := range services() {
		t.Run(svc.Name, func(t *testing.T) {
			w := walker{t: t, seen: map[string]bool{}}
			for _, name := range slices.Sorted(maps.Keys(svc.Operations)) {
				w.o = svc.Operations[name]
				w.structure(w.o.Input(), nil, nil)
			}
			if w.checked < 20 {
				t.Errorf("only %d constraints were checked", w.checked)
			}
			t.Logf("%d constraints", w.checked)
		})
	}
}

// A step goes from a value into one of its parts, making the part.
type step func(reflect.Value) reflect.Value

type walker struct {
	t       *testing.T
	o       *wire.Operation
	seen    map[string]bool // shapes on the way, against endless recursion
	checked int
}

func (w *walker) structure(sc *wire.Schema, path []string, steps []step) {
	if w.seen[sc.Name] || len(path) > 12 {
		return
	}
	w.seen[sc.Name] = true
	defer delete(w.seen, sc.Name)
	for i := range sc.Members {
		m := &sc.Members[i]
		p := append(slices.Clone(path), m.Name)
		into := append(slices.Clone(steps), func(v reflect.Value) reflect.Value {
			f := v.FieldByName(goName(m.Name))
			if f.Kind() == reflect.Pointer {
				f.Set(reflect.New(f.Type().Elem()))
				return f.Elem()
			}
			return f
		})
		if m.Required {
			w.expect(steps, p, func(reflect.Value) {}, "Member must not be null")
		}
		w.value(m.Schema, p, into)
	}
}

func (w *walker) value(sc *wire.Schema, path []string, steps []step) {
	switch sc.Kind {
	case wire.Struct:
		w.structure(sc, path, steps)
	case wire.List:
		w.lengths(sc, path, steps, func(v reflect.Value, n int) { v.Set(reflect.MakeSlice(v.Type(), n, n)) })
		w.value(sc.Elem.Schema, append(slices.Clone(path), "1", "member"), append(slices.Clone(steps), func(v reflect.Value) reflect.Value {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			return v.Index(0)
		}))
	case wire.Map:
		w.lengths(sc, path, steps, func(v reflect.Value, n int) {
			m := reflect.MakeMap(v.Type())
			for i := range n {
				m.SetMapIndex(reflect.ValueOf(strconv.Itoa(i)), reflect.Zero(v.Type().Elem()))
			}
			v.Set(m)
		})
	case wire.String:
		w.lengths(sc, path, steps, func(v reflect.Value, n int) { v.SetString(strings.Repeat("a", n)) })
		if len(sc.Enum) > 0 {
			w.expect(steps, path, func(v reflect.Value) { v.SetString("no such value") }, "Member must satisfy enum value set: ["+strings.Join(sc.Enum, ", ")+"]")
		}
		if sc.Pattern != nil {
			if re, err := sc.Pattern.Compile(); err == nil {
				for _, bad := range []string{"\x00", "", "\n", " ", "é", "!", strings.Repeat("a", 3000)} {
					if !re.MatchString(bad) {
						w.expect(steps, path, func(v reflect.Value) { v.SetString(bad) }, "Member must satisfy regular expression pattern: "+sc.Pattern.Text())
						break
					}
				}
			}
		}
	case wire.Blob:
		w.lengths(sc, path, steps, func(v reflect.Value, n int) { v.SetBytes(make([]byte, n)) })
	case wire.Integer, wire.Long:
		if sc.HasMin && sc.Min > math.MinInt32 {
			w.expect(steps, path, func(v reflect.Value) { v.SetInt(int64(sc.Min) - 1) }, fmt.Sprintf("Member must have value greater than or equal to %.0f", sc.Min))
		}
		if sc.HasMax && sc.Max < math.MaxInt32 {
			w.expect(steps, path, func(v reflect.Value) { v.SetInt(int64(sc.Max) + 1) }, fmt.Sprintf("Member must have value less than or equal to %.0f", sc.Max))
		}
	}
}

func (w *walker) lengths(sc *wire.Schema, path []string, steps []step, set func(reflect.Value, int)) {
	if sc.HasMin && sc.Min > 0 {
		w.expect(steps, path, func(v reflect.Value) { set(v, int(sc.Min)-1) }, fmt.Sprintf("Member must have length greater than or equal to %.0f", sc.Min))
	}
	if sc.HasMax && sc.Max < 1<<17 {
		w.expect(steps, path, func(v reflect.Value) { set(v, int(sc.Max)+1) }, fmt.Sprintf("Member must have length less than or equal to %.0f", sc.Max))
	}
}

func (w *walker) expect(steps []step, path []string, violate func(reflect.Value), want string) {
	in := w.o.New()
	v := reflect.ValueOf(in).Elem()
	for _, s := range steps {
		v = s(v)
	}
	violate(v)
	if v.Kind() == reflect.String && v.Len() == 0 && v.Type() != reflect.TypeFor[string]() {
		return // an enum's "" is absence
	}
	names := make([]string, len(path))
	for i, p := range path {
		names[i] = strings.ToLower(p[:1]) + p[1:]
	}
	want = " at '" + strings.Join(names, ".") + "' failed to satisfy constraint: " + want
	w.checked++
	got := wire.Violations(w.o, in)
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, want) }) {
		w.t.Errorf("%s: no violation %q in %q", w.o.Name, want, got)
	}
}

// Patterns that Go's engine does not have are known, and few.
func TestPatterns(t *testing.T) {
	var bad []string
	n := 0
	for _, svc := range services() {
		for name := range svc.Schemas.Names() {
			if p := svc.Schemas.Lookup(name).Pattern; p != nil {
				n++
				if _, err := p.Compile(); err != nil {
					bad = append(bad, svc.Name+" "+name)
				}
			}
		}
	}
	slices.Sort(bad)
	want := []string{
		"iam accountAliasType", // (?!-): the service checks it
	}
	if !slices.Equal(bad, want) {
		t.Errorf("patterns that cannot be checked: %q, want %q", bad, want)
	}
	if n < 50 {
		t.Errorf("only %d patterns", n)
	}
}
