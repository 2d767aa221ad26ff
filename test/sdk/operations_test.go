package sdk

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go/middleware"
)

// The SDK is searched for paginators and waiters. Each is one of:
//   - in the tables of a test, which uses it on something;
//   - of an operation that Berth does not answer; then it must say so, in the
//     words of its protocol, and not answer something empty;
//   - in unused, with the reason.
var unused = map[string]map[string]string{
	"ecs": {
		"ListServicesByNamespacePaginator": "there is no Cloud Map, and so no namespace: NamespaceNotFoundException",
	},
	"ecr": {
		"DescribeImageScanFindingsPaginator": "nothing scans: ScanNotFoundException, as the waiter's test shows",
	},
}

// A helper is a paginator or waiter of the SDK.
type helper struct{ name, operation string }

var constructor = regexp.MustCompile(`(?m)^func New(\w+(?:Paginator|Waiter))\(`)

// helpers finds those of a service in the source of the SDK.
func helpers(t *testing.T, service string) (found []helper) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/"+service).Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "api_op_*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the SDK of %s has no operations: %v", service, err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constructor.FindAllSubmatch(src, -1) {
			found = append(found, helper{string(m[1]), strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "api_op_"), ".go")})
		}
	}
	return found
}

// refusal is how a protocol says that an operation is not to be had.
var refusal = map[string]string{
	"ecs": "UnsupportedOperationException", "ecr": "UnsupportedOperationException", "cloudwatchlogs": "UnsupportedOperationException",
	"ssm": "UnsupportedOperationException", "iam": "UnsupportedOperation", "ec2": "UnsupportedOperation",
}

// complete demands that these are all the paginators, or waiters, that the SDK
// has of what is answered.
func complete(t *testing.T, service, kind string, names []string) {
	t.Helper()
	used := map[string]bool{}
	for _, name := range slices.Concat(names, slices.Collect(maps.Keys(unused[service]))) {
		if !strings.HasSuffix(name, kind) {
			continue
		}
		if _, twice := used[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		used[name] = false
	}
	client := unchecked(service)
	refused := map[string]bool{}
	for _, h := range helpers(t, service) {
		if _, ok := used[h.name]; ok {
			used[h.name] = true
			continue
		}
		if !strings.HasSuffix(h.name, kind) || refused[h.operation] {
			continue
		}
		refused[h.operation] = true
		if err := call(t, client, h.operation); !refuses(service, h.operation, err) {
			t.Errorf("%s: %s is answered (%v): a test has to use it", h.name, h.operation, err)
		}
	}
	for name, ok := range used {
		if !ok {
			t.Errorf("the SDK has no %s", name)
		}
	}
}

// unchecked is a client that sends what the SDK itself would refuse.
func unchecked(service string) any {
	c := w.config.Copy()
	c.APIOptions = append(c.APIOptions, func(s *middleware.Stack) error {
		_, _ = s.Initialize.Remove("OperationInputValidation") // which is not there if nothing is required
		return nil
	})
	switch service {
	case "ecs":
		return ecs.NewFromConfig(c)
	case "ecr":
		return ecr.NewFromConfig(c)
	case "ec2":
		return ec2.NewFromConfig(c)
	case "iam":
		return iam.NewFromConfig(c)
	case "ssm":
		return ssm.NewFromConfig(c)
	}
	return cloudwatchlogs.NewFromConfig(c)
}

// inputs are what the models require of operations that are not answered: the
// refusal comes after the model's constraints have been checked.
var inputs = map[string]any{
	"GetScheduledQueryHistory":         &cloudwatchlogs.GetScheduledQueryHistoryInput{Identifier: new("q"), StartTime: new(int64(1)), EndTime: new(int64(2))},
	"ListAggregateLogGroupSummaries":   &cloudwatchlogs.ListAggregateLogGroupSummariesInput{GroupBy: logs.ListAggregateLogGroupSummariesGroupByDataSourceNameAndType},
	"ListSourcesForS3TableIntegration": &cloudwatchlogs.ListSourcesForS3TableIntegrationInput{IntegrationArn: new("arn:aws:logs:us-east-1:000000000000:integration:x")},
}

// call calls an operation with as little input as may be.
func call(t *testing.T, client any, operation string) error {
	m := reflect.ValueOf(client).MethodByName(operation)
	in := reflect.New(m.Type().In(1).Elem())
	if given := inputs[operation]; given != nil {
		in = reflect.ValueOf(given)
	}
	out := m.Call([]reflect.Value{reflect.ValueOf(t.Context()), in})
	err, _ := out[1].Interface().(error)
	return err
}

// refuses reports whether err says that the operation is not answered. What
// our models do not have yet is unknown.
func refuses(service, operation string, err error) bool {
	switch codeOf(err) {
	case refusal[service]:
		return strings.Contains(err.Error(), operation)
	case "UnknownOperationException", "InvalidAction":
		return strings.Contains(err.Error(), operation)
	}
	return false
}
