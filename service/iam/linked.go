package iam

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/auth/managed"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// A linkedRole is what a service-linked role is made of.
type linkedRole struct {
	name, description string
	policy            string // of AWS, below managed.LinkedPath
	suffix            bool   // there may be several, told apart by a suffix
}

// linkedRoles are those of the services that Berth knows, by service principal.
// What their services do on the user's behalf is done by the controllers and
// never asked of these policies; they are there to be seen and referred to.
var linkedRoles = map[string]linkedRole{
	"ecs.amazonaws.com":                         {"AWSServiceRoleForECS", "Role to enable Amazon ECS to manage your cluster.", "AmazonECSServiceRolePolicy", false},
	"ecs-compute.amazonaws.com":                 {"AWSServiceRoleForECSCompute", "", "AmazonECSComputeServiceRolePolicy", false},
	"ecs.application-autoscaling.amazonaws.com": {"AWSServiceRoleForApplicationAutoScaling_ECSService", "", "AWSApplicationAutoscalingECSServicePolicy", false},
	"elasticloadbalancing.amazonaws.com":        {"AWSServiceRoleForElasticLoadBalancing", "Allows ELB to call AWS services on your behalf.", "AWSElasticLoadBalancingServiceRolePolicy", false},
	"autoscaling.amazonaws.com": {"AWSServiceRoleForAutoScaling", "Default Service-Linked Role enables access to AWS Services and Resources used or managed by Auto Scaling",
		"AutoScalingServiceRolePolicy", true},
	"spot.amazonaws.com":                 {"AWSServiceRoleForEC2Spot", "Default EC2 Spot Service Linked Role", "AWSEC2SpotServiceRolePolicy", false},
	"replication.ecr.amazonaws.com":      {"AWSServiceRoleForECRReplication", "", "ECRReplicationServiceRolePolicy", false},
	"pullthroughcache.ecr.amazonaws.com": {"AWSServiceRoleForECRPullThroughCache", "", "AWSECRPullThroughCache_ServiceRolePolicy", false},
	"ops.apigateway.amazonaws.com":       {"AWSServiceRoleForAPIGateway", "The Service Linked Role is used by Amazon API Gateway.", "APIGatewayServiceRolePolicy", false},
	"events.amazonaws.com":               {"AWSServiceRoleForCloudWatchEvents", "", "CloudWatchEventsServiceRolePolicy", false},
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
		Trust:    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["` + service + `"]},"Action":["sts:AssumeRole"]}]}`,
		Attached: []string{managed.Prefix + managed.LinkedPath + l.policy},
	}
}

// CreateServiceLinkedRole makes the role of a service.
func (s *Service) CreateServiceLinkedRole(ctx context.Context, in *api.CreateServiceLinkedRoleInput) (*api.CreateServiceLinkedRoleOutput, error) {
	r := s.LinkedRole(account(ctx), *in.AWSServiceName)
	if r == nil {
		return nil, invalidInput("Service role for %s cannot be created: the service has no service-linked role.", *in.AWSServiceName)
	}
	if suffix := wire.Value(in.CustomSuffix); suffix != "" {
		if !linkedRoles[*in.AWSServiceName].suffix {
			return nil, invalidInput("Custom suffix is not allowed for %s", *in.AWSServiceName)
		}
		r.Name += "_" + suffix
		if len(r.Name) > maxRoleName {
			return nil, validation("The role name %s is longer than %d characters.", r.Name, maxRoleName)
		}
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

// maxRoleName is how long the name of a role may be.
const maxRoleName = 64

// needs are the ARNs of what still needs a service-linked role.
func needs(r store.Reader, x *state.Role) []string {
	var all []string
	if linkedService(x) == "ecs.amazonaws.com" {
		for c := range state.Clusters.By(r, "account", x.Account) {
			if c.Status == "ACTIVE" {
				all = append(all, c.ARN)
			}
		}
	}
	slices.Sort(all)
	return all
}

// linkedService is the principal of a service-linked role's service.
func linkedService(x *state.Role) string {
	return strings.Trim(strings.TrimPrefix(x.Path, servicePath), "/")
}

// Deletions are remembered for a day.
const deletionLife = 24 * time.Hour

// DeleteServiceLinkedRole deletes the role unless its service still needs it.
// AWS answers with a task; here it is done when the call returns, and the task
// says how it went.
func (s *Service) DeleteServiceLinkedRole(ctx context.Context, in *api.DeleteServiceLinkedRoleInput) (*api.DeleteServiceLinkedRoleOutput, error) {
	now, id := s.now(), newJobID()
	var task string
	err := s.update(ctx, func(tx *store.Tx) error {
		r, err := role(tx, account(ctx), *in.RoleName)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(r.Path, servicePath) {
			return noSuch("The role with name %s cannot be found.", *in.RoleName)
		}
		task = "task" + servicePath + linkedService(r) + "/" + r.Name + "/" + id
		d := &state.RoleDeletion{Task: task, Account: r.Account, Needed: needs(tx, r), At: now}
		if len(d.Needed) == 0 {
			forget(tx, r.ID)
			state.Roles.Delete(tx, state.IAMKey(r.Account, r.Name))
		}
		for old := range state.RoleDeletions.By(tx, "account", r.Account) {
			if now.Sub(old.At) >= deletionLife {
				state.RoleDeletions.Delete(tx, old.Task)
			}
		}
		state.RoleDeletions.Put(tx, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteServiceLinkedRoleOutput{DeletionTaskId: &task}, nil
}

// GetServiceLinkedRoleDeletionStatus tells how a deletion went.
func (s *Service) GetServiceLinkedRoleDeletionStatus(ctx context.Context, in *api.GetServiceLinkedRoleDeletionStatusInput) (*api.GetServiceLinkedRoleDeletionStatusOutput, error) {
	d, ok := state.RoleDeletions.Get(s.db.Snapshot(), *in.DeletionTaskId)
	if !ok || d.Account != account(ctx) {
		return nil, noSuch("The deletion task %s cannot be found.", *in.DeletionTaskId)
	}
	if len(d.Needed) == 0 {
		return &api.GetServiceLinkedRoleDeletionStatusOutput{Status: api.DeletionTaskStatusTypeSucceeded}, nil
	}
	reason := &api.DeletionTaskFailureReasonType{Reason: new("A service-linked role cannot be deleted while its service has resources that need it.")}
	byRegion := map[string][]string{}
	for _, arn := range d.Needed {
		region := strings.Split(arn, ":")[3]
		byRegion[region] = append(byRegion[region], arn)
	}
	for _, region := range slices.Sorted(maps.Keys(byRegion)) {
		reason.RoleUsageList = append(reason.RoleUsageList, api.RoleUsageType{Region: &region, Resources: byRegion[region]})
	}
	return &api.GetServiceLinkedRoleDeletionStatusOutput{Status: api.DeletionTaskStatusTypeFailed, Reason: reason}, nil
}
