package ecs

import (
	"context"
	"strings"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
)

// Express gateway services bring their own load balancer, certificate and
// scaling. None of these exists here, so that none of the services does: what
// is asked for is checked and then refused by name.

func expressUnsupported() error {
	return &api.UnsupportedFeatureException{Message: "Express gateway services are not supported by this version of Berth: they need Elastic Load Balancing and Application Auto Scaling."}
}

// express is what creating and updating an express gateway service share.
type express struct {
	container   *api.ExpressGatewayContainer
	network     *api.ExpressGatewayServiceNetworkConfiguration
	scaling     *api.ExpressGatewayScalingTarget
	cpu, memory *string
	healthCheck *string
}

func (x express) check(r store.Reader, account string) error {
	if c := x.container; c != nil {
		switch p := c.ContainerPort; {
		case !isImage(val(c.Image)):
			return invalid("The image of the primary container is invalid.")
		case p != nil && (*p < 1 || *p > 65535):
			return invalid("containerPort must be between 1 and 65535.")
		}
		for _, v := range c.Environment {
			if val(v.Name) == "" {
				return invalid("An environment variable must have a name.")
			}
		}
	}
	if s := x.healthCheck; s != nil && !strings.HasPrefix(*s, "/") {
		return invalid("healthCheckPath must begin with a slash.")
	}
	if s := x.scaling; s != nil {
		low, high := val(first(s.MinTaskCount, new(int32(1)))), val(first(s.MaxTaskCount, new(int32(20))))
		if low < 0 || high < 1 || low > high {
			return invalid("The task counts of the scaling target are invalid.")
		}
		if s.AutoScalingTargetValue != nil && *s.AutoScalingTargetValue < 1 {
			return invalid("The target value of the scaling target must be at least 1.")
		}
	}
	if err := fargateSize(first(x.cpu, new("1024")), first(x.memory, new("2048")), invalid); err != nil {
		return err
	}
	if n := x.network; n != nil {
		switch {
		case len(n.Subnets) > maxSubnets:
			return invalid("subnets can have at most %d items.", maxSubnets)
		case len(n.SecurityGroups) > maxSecurityGroups:
			return invalid("securityGroups can have at most %d items.", maxSecurityGroups)
		case len(n.Subnets) > 0:
			return checkSubnets(r, account, n.Subnets, n.SecurityGroups)
		}
	}
	return nil
}

// CreateExpressGatewayService is refused.
func (e *ECS) CreateExpressGatewayService(ctx context.Context, in *api.CreateExpressGatewayServiceInput) (*api.CreateExpressGatewayServiceOutput, error) {
	caller := e.caller(ctx)
	if _, err := newTags(in.Tags); err != nil {
		return nil, err
	}
	if in.ServiceName != nil && !isName(*in.ServiceName) {
		return nil, invalid("Service name must be 1 to 255 letters, digits, underscores and hyphens.")
	}
	return nil, e.view(func(r store.Reader) error {
		if _, err := e.activeCluster(r, caller.Account, in.Cluster); err != nil {
			return err
		}
		if err := (express{in.PrimaryContainer, in.NetworkConfiguration, in.ScalingTarget, in.Cpu, in.Memory, in.HealthCheckPath}).check(r, caller.Account); err != nil {
			return err
		}
		for _, role := range []struct {
			arn     *string
			service string
		}{{in.InfrastructureRoleArn, ecsService}, {in.ExecutionRoleArn, tasksService}, {in.TaskRoleArn, tasksService}} {
			if role.arn == nil {
				continue
			}
			if !isARN(*role.arn) || expandRole(caller.Account, &role.arn) != nil {
				return invalid("Role is not valid")
			}
			if err := e.cfg.PassRole(ctx, r, caller, *role.arn, role.service); err != nil {
				return err
			}
		}
		return expressUnsupported()
	})
}

// DescribeExpressGatewayService finds none: none can be created.
func (e *ECS) DescribeExpressGatewayService(ctx context.Context, in *api.DescribeExpressGatewayServiceInput) (*api.DescribeExpressGatewayServiceOutput, error) {
	if _, err := e.expressARN(ctx, in.ServiceArn); err != nil {
		return nil, err
	}
	return nil, &api.ResourceNotFoundException{Message: "The specified express gateway service was not found."}
}

// UpdateExpressGatewayService finds none: none can be created.
func (e *ECS) UpdateExpressGatewayService(ctx context.Context, in *api.UpdateExpressGatewayServiceInput) (*api.UpdateExpressGatewayServiceOutput, error) {
	if _, err := e.expressARN(ctx, in.ServiceArn); err != nil {
		return nil, err
	}
	return nil, e.view(func(r store.Reader) error {
		if err := (express{in.PrimaryContainer, in.NetworkConfiguration, in.ScalingTarget, in.Cpu, in.Memory, in.HealthCheckPath}).check(r, e.caller(ctx).Account); err != nil {
			return err
		}
		return &api.ServiceNotFoundException{Message: "Service not found."}
	})
}

// DeleteExpressGatewayService finds none: none can be created.
func (e *ECS) DeleteExpressGatewayService(ctx context.Context, in *api.DeleteExpressGatewayServiceInput) (*api.DeleteExpressGatewayServiceOutput, error) {
	if _, err := e.expressARN(ctx, in.ServiceArn); err != nil {
		return nil, err
	}
	return nil, &api.ServiceNotFoundException{Message: "Service not found."}
}

// expressARN reads the reference to an express gateway service, which is
// always the ARN of a service.
func (e *ECS) expressARN(ctx context.Context, ref *string) (string, error) {
	a, err := e.mine(e.caller(ctx).Account, val(ref), "service")
	if err != nil {
		return "", err
	}
	if len(a.path) != 2 {
		return "", invalid("Invalid identifier: %s", *ref)
	}
	return *ref, nil
}
