package actions

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	for _, tc := range []struct {
		action, resource string
		kind, key        string
		needs            bool
	}{
		{"ecs:RunTask", "arn:aws:ecs:eu-central-1:111111111111:task-definition/web:7", "task-definition", "ecs:cluster", true},
		{"ECS:runtask", "*", "", "aws:RequestTag/team", true},
		{"sts:AssumeRole", "arn:aws:iam::111111111111:role/a/b", "role", "sts:ExternalId", true},
		{"ec2:StopInstances", "arn:aws:ec2:eu-central-1:111111111111:instance/i-1", "instance", "ec2:ResourceTag/x", true},
		{"s3:GetObject", "arn:aws:s3:::bucket/a/b", "object", "s3:ExistingObjectTag/a", false},
		{"elasticloadbalancing:DescribeLoadBalancers", "*", "", "", false},
	} {
		a, ok := Find(tc.action)
		if !ok {
			t.Errorf("%s is not there", tc.action)
			continue
		}
		kind := ""
		if got := a.Type(tc.resource); got != nil {
			kind = got.Name
		}
		if kind != tc.kind || tc.key != "" && !a.HasKey(tc.key) || a.HasKey("ecs:nonsense") || a.NeedsResource() != tc.needs {
			t.Errorf("%s on %s: type %q, key %s %v, needs a resource %v", tc.action, tc.resource, kind, tc.key, a.HasKey(tc.key), a.NeedsResource())
		}
	}
	if _, ok := Find("ecs:Nonsense"); ok {
		t.Error("an action that does not exist")
	}
	services := map[string]int{}
	for name := range load() {
		services[name[:strings.IndexByte(name, ':')]]++
	}
	for _, s := range []string{"ecs", "ecr", "iam", "sts", "ec2", "logs", "elasticloadbalancing", "autoscaling", "apigateway", "cloudformation", "ssm",
		"secretsmanager", "servicediscovery", "application-autoscaling", "events", "scheduler", "cloudwatch", "s3", "kms"} {
		if services[s] == 0 {
			t.Errorf("no action of %s", s)
		}
	}
}
