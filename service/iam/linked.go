package iam

import (
	"context"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A linkedRole is what a service-linked role is made of.
type linkedRole struct{ name, description, document string }

// linkedRoles are those of the services that exist here, by service principal.
// What their services do on the user's behalf is done by the controllers and
// never asked of these policies; they are there to be seen and referred to.
var linkedRoles = map[string]linkedRole{
	"ecs.amazonaws.com": {"AWSServiceRoleForECS", "Role to enable Amazon ECS to manage your cluster.", `{
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ec2:*NetworkInterface*", "ec2:Describe*", "elasticloadbalancing:Describe*", "elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets", "servicediscovery:*", "autoscaling:Describe*", "logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": "*"
        }
    ]
}`},
	"ecs.application-autoscaling.amazonaws.com": {"AWSServiceRoleForApplicationAutoScaling_ECSService", "", `{
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ecs:DescribeServices", "ecs:UpdateService", "cloudwatch:PutMetricAlarm", "cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms"],
            "Resource": "*"
        }
    ]
}`},
	"elasticloadbalancing.amazonaws.com": {"AWSServiceRoleForElasticLoadBalancing", "Allows ELB to call AWS services on your behalf.", `{
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ec2:Describe*", "ec2:*NetworkInterface*", "ec2:*SecurityGroup*", "ec2:*Address*"],
            "Resource": "*"
        }
    ]
}`},
	"autoscaling.amazonaws.com": {"AWSServiceRoleForAutoScaling", "Default Service-Linked Role enables access to AWS Services and Resources used or managed by Auto Scaling", `{
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ec2:*Instance*", "ec2:Describe*", "elasticloadbalancing:*Target*", "elasticloadbalancing:Describe*", "cloudwatch:*Alarm*"],
            "Resource": "*"
        }
    ]
}`},
}

// LinkedRole is the service-linked role of a service principal in an account,
// ready to be stored, or nil if the service has none.
func (s *Service) LinkedRole(account, service string) *state.Role {
	l, ok := linkedRoles[service]
	if !ok {
		return nil
	}
	return &state.Role{
		Account: account, Path: servicePath + service + "/", Name: l.name, ID: auth.NewID(auth.PrefixRole, account),
		Description: l.description, MaxSessionDuration: defaultSessionLimit, CreatedAt: s.now(),
		Trust:  `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["` + service + `"]},"Action":["sts:AssumeRole"]}]}`,
		Inline: []state.InlinePolicy{{Name: strings.Replace(l.name, "AWSServiceRoleFor", "ServiceRolePolicyFor", 1), Document: l.document}},
	}
}

// CreateServiceLinkedRole makes the role of a service.
func (s *Service) CreateServiceLinkedRole(ctx context.Context, in *api.CreateServiceLinkedRoleInput) (*api.CreateServiceLinkedRoleOutput, error) {
	r := s.LinkedRole(account(ctx), *in.AWSServiceName)
	if r == nil {
		return nil, invalidInput("Service role for %s cannot be created: the service has no service-linked role.", *in.AWSServiceName)
	}
	if wire.Value(in.CustomSuffix) != "" {
		return nil, invalidInput("Custom suffix is not allowed for %s", *in.AWSServiceName)
	}
	if in.Description != nil {
		r.Description = *in.Description
	}
	err := s.update(ctx, func(tx *store.Tx) error {
		if _, err := role(tx, r.Account, r.Name); err == nil {
			return invalidInput("Service role name %s has been taken in this account, please try a different suffix.", r.Name)
		}
		state.Roles.Put(tx, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateServiceLinkedRoleOutput{Role: viewRole(r, false)}, nil
}

// inUse says what still needs a service-linked role.
func inUse(r store.Reader, x *state.Role) bool {
	if !strings.HasPrefix(x.Path, servicePath+"ecs.amazonaws.com/") {
		return false
	}
	for c := range state.Clusters.By(r, "account", x.Account) {
		if c.Status == "ACTIVE" {
			return true
		}
	}
	return false
}

// DeleteServiceLinkedRole deletes the role unless its service still needs it.
// AWS answers with a task; here it is done when the call returns, and the task
// says how it went.
func (s *Service) DeleteServiceLinkedRole(ctx context.Context, in *api.DeleteServiceLinkedRoleInput) (*api.DeleteServiceLinkedRoleOutput, error) {
	var task string
	err := s.update(ctx, func(tx *store.Tx) error {
		r, err := role(tx, account(ctx), *in.RoleName)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(r.Path, servicePath) {
			return noSuch("The role with name %s cannot be found.", *in.RoleName)
		}
		service := strings.Trim(strings.TrimPrefix(r.Path, servicePath), "/")
		task = "task" + servicePath + service + "/" + r.Name + "/" + r.ID
		if !inUse(tx, r) {
			state.Roles.Delete(tx, state.IAMKey(r.Account, r.Name))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteServiceLinkedRoleOutput{DeletionTaskId: &task}, nil
}

// GetServiceLinkedRoleDeletionStatus tells how a deletion went.
func (s *Service) GetServiceLinkedRoleDeletionStatus(ctx context.Context, in *api.GetServiceLinkedRoleDeletionStatusInput) (*api.GetServiceLinkedRoleDeletionStatusOutput, error) {
	part := strings.Split(*in.DeletionTaskId, "/")
	if len(part) != 5 || part[0] != "task" || !slices.Contains([]string{"aws-service-role"}, part[1]) {
		return nil, noSuch("The deletion task %s cannot be found.", *in.DeletionTaskId)
	}
	r, err := role(s.db.Snapshot(), account(ctx), part[3])
	if err != nil || r.ID != part[4] {
		return &api.GetServiceLinkedRoleDeletionStatusOutput{Status: api.DeletionTaskStatusTypeSucceeded}, nil
	}
	return &api.GetServiceLinkedRoleDeletionStatusOutput{Status: api.DeletionTaskStatusTypeFailed,
		Reason: &api.DeletionTaskFailureReasonType{Reason: new("The role is in use by clusters of the account.")}}, nil
}
