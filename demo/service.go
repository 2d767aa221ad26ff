package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
)

const tasksTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// define makes what the service needs.
func (d *demo) define(ctx context.Context) error {
	r := d.region
	if err := r.do(ctx, iamAPI, "CreateRole", &iam.CreateRoleInput{RoleName: new(executionRole), AssumeRolePolicyDocument: new(tasksTrust)}, nil, "EntityAlreadyExists"); err != nil {
		return err
	}
	if err := r.do(ctx, iamAPI, "AttachRolePolicy", &iam.AttachRolePolicyInput{RoleName: new(executionRole),
		PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")}, nil); err != nil {
		return err
	}
	var role iam.GetRoleOutput
	if err := r.do(ctx, iamAPI, "GetRole", &iam.GetRoleInput{RoleName: new(executionRole)}, &role); err != nil {
		return err
	}
	d.show.done("role %s", wire.Value(role.Role.Arn))

	if err := r.do(ctx, logsAPI, "CreateLogGroup", &logs.CreateLogGroupInput{LogGroupName: new(logGroup)}, nil, "ResourceAlreadyExistsException"); err != nil {
		return err
	}
	d.show.done("log group %s", logGroup)

	var def ecs.RegisterTaskDefinitionOutput
	if err := r.do(ctx, ecsAPI, "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{
		Family:                  new(family),
		NetworkMode:             ecs.NetworkModeAwsvpc,
		RequiresCompatibilities: []ecs.Compatibility{ecs.CompatibilityFargate},
		Cpu:                     new("256"),
		Memory:                  new("512"),
		ExecutionRoleArn:        role.Role.Arn,
		ContainerDefinitions: []ecs.ContainerDefinition{{
			Name:         new("web"),
			Image:        new(d.repositoryName + ":latest"),
			Essential:    new(true),
			PortMappings: []ecs.PortMapping{{ContainerPort: new(int32(80)), Protocol: ecs.TransportProtocolTcp}},
			LogConfiguration: &ecs.LogConfiguration{LogDriver: ecs.LogDriverAwslogs, Options: map[string]string{
				"awslogs-group": logGroup, "awslogs-region": r.name, "awslogs-stream-prefix": "web",
			}},
		}},
	}, &def); err != nil {
		return err
	}
	d.taskDefinition = fmt.Sprintf("%s:%d", family, wire.Value(def.TaskDefinition.Revision))
	d.show.done("task definition %s: 0.25 vCPU, 512 MiB, awsvpc, port 80", d.taskDefinition)
	return nil
}

// network returns the subnets of the default VPC and a group that admits HTTP.
func (d *demo) network(ctx context.Context) (*ecs.NetworkConfiguration, error) {
	r := d.region
	var vpcs ec2.DescribeVpcsOutput
	if err := r.do(ctx, ec2API, "DescribeVpcs", &ec2.DescribeVpcsInput{Filters: filter("is-default", "true")}, &vpcs); err != nil {
		return nil, err
	}
	if len(vpcs.Vpcs) == 0 {
		return nil, errors.New("the region has no default VPC")
	}
	vpc := wire.Value(vpcs.Vpcs[0].VpcId)
	var subnets ec2.DescribeSubnetsOutput
	if err := r.do(ctx, ec2API, "DescribeSubnets", &ec2.DescribeSubnetsInput{Filters: append(filter("vpc-id", vpc), filter("default-for-az", "true")...)}, &subnets); err != nil {
		return nil, err
	}
	conf := &ecs.AwsVpcConfiguration{AssignPublicIp: ecs.AssignPublicIpEnabled}
	for _, s := range subnets.Subnets {
		conf.Subnets = append(conf.Subnets, wire.Value(s.SubnetId))
	}

	var group string
	var have ec2.DescribeSecurityGroupsOutput
	if err := r.do(ctx, ec2API, "DescribeSecurityGroups", &ec2.DescribeSecurityGroupsInput{Filters: append(filter("vpc-id", vpc), filter("group-name", groupName)...)}, &have); err != nil {
		return nil, err
	}
	if len(have.SecurityGroups) > 0 {
		group = wire.Value(have.SecurityGroups[0].GroupId)
	} else {
		var made ec2.CreateSecurityGroupOutput
		if err := r.do(ctx, ec2API, "CreateSecurityGroup", &ec2.CreateSecurityGroupInput{GroupName: new(groupName), Description: new("HTTP from anywhere"), VpcId: new(vpc)}, &made); err != nil {
			return nil, err
		}
		group = wire.Value(made.GroupId)
	}
	if err := r.do(ctx, ec2API, "AuthorizeSecurityGroupIngress", &ec2.AuthorizeSecurityGroupIngressInput{GroupId: new(group),
		IpPermissions: []ec2.IpPermission{{IpProtocol: new("tcp"), FromPort: new(int32(80)), ToPort: new(int32(80)), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}}},
	}, nil, "InvalidPermission.Duplicate"); err != nil {
		return nil, err
	}
	conf.SecurityGroups = []string{group}
	d.show.done("security group %s admits port 80, in %s with %d subnets", group, vpc, len(conf.Subnets))
	return &ecs.NetworkConfiguration{AwsvpcConfiguration: conf}, nil
}

func filter(name string, values ...string) []ec2.Filter {
	return []ec2.Filter{{Name: new(name), Values: values}}
}

// serve creates the service, or moves the one that is there to the new
// revision, and waits until it is steady.
func (d *demo) serve(ctx context.Context) error {
	network, err := d.network(ctx)
	if err != nil {
		return err
	}
	before, err := d.service(ctx)
	if err != nil {
		return err
	}
	active := before != nil && wire.Value(before.Status) == "ACTIVE"
	// What was there before is not news.
	seen, states := map[string]bool{}, map[string]string{}
	for _, status := range []ecs.DesiredStatus{ecs.DesiredStatusRunning, ecs.DesiredStatusStopped} {
		if !active {
			break // ListTasks knows no service of that name
		}
		all, err := d.tasks(ctx, status)
		if err != nil {
			return err
		}
		for _, t := range all {
			states[shortARN(wire.Value(t.TaskArn))] = wire.Value(t.LastStatus)
		}
	}
	if active {
		for _, e := range before.Events {
			seen[wire.Value(e.Id)] = true
		}
		if err := d.region.do(ctx, ecsAPI, "UpdateService", &ecs.UpdateServiceInput{Cluster: new(cluster), Service: new(serviceName),
			TaskDefinition: new(d.taskDefinition), DesiredCount: new(int32(tasks)), NetworkConfiguration: network}, nil); err != nil {
			return err
		}
		d.show.done("service %s is updated to %s: a rolling deployment", serviceName, d.taskDefinition)
	} else {
		if err := d.region.do(ctx, ecsAPI, "CreateService", &ecs.CreateServiceInput{Cluster: new(cluster), ServiceName: new(serviceName),
			TaskDefinition: new(d.taskDefinition), DesiredCount: new(int32(tasks)), LaunchType: ecs.LaunchTypeFargate, NetworkConfiguration: network}, nil); err != nil {
			return err
		}
		d.show.done("service %s is created with %d tasks of %s", serviceName, tasks, d.taskDefinition)
	}
	return d.steady(ctx, seen, states)
}

func (d *demo) service(ctx context.Context) (*ecs.Service, error) {
	var out ecs.DescribeServicesOutput
	if err := d.region.do(ctx, ecsAPI, "DescribeServices", &ecs.DescribeServicesInput{Cluster: new(cluster), Services: []string{serviceName}}, &out); err != nil {
		return nil, err
	}
	if len(out.Services) == 0 {
		return nil, nil
	}
	return &out.Services[0], nil
}

// The API has no call that waits: a client asks again.
const askEvery = 200 * time.Millisecond

// steady shows the events of the service that are not in seen, as they come,
// and the tasks as they leave states, until the deployment is complete.
func (d *demo) steady(ctx context.Context, seen map[string]bool, states map[string]string) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		if err := d.showTasks(ctx, states); err != nil {
			return err
		}
		s, err := d.service(ctx)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("service %s is gone", serviceName)
		}
		steady := false
		for _, e := range slices.Backward(s.Events) { // the newest is the first
			if id := wire.Value(e.Id); !seen[id] {
				seen[id] = true
				steady = strings.Contains(wire.Value(e.Message), "has reached a steady state")
				d.show.doing("%s", wire.Value(e.Message))
				if strings.Contains(wire.Value(e.Message), "unable to consistently start tasks") {
					return fmt.Errorf("the tasks of service %s do not stay up", serviceName)
				}
			}
		}
		for _, dep := range s.Deployments {
			if dep.RolloutState == ecs.DeploymentRolloutStateFailed {
				return fmt.Errorf("the deployment failed: %s", wire.Value(dep.RolloutStateReason))
			}
		}
		done := len(s.Deployments) == 1 && wire.Value(s.Deployments[0].RunningCount) == tasks &&
			s.Deployments[0].RolloutState == ecs.DeploymentRolloutStateCompleted
		if done || steady && len(s.Deployments) == 1 {
			d.show.done("service %s is steady", serviceName)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for service %s: %w", serviceName, ctx.Err())
		case <-tick.C:
		}
	}
}

// showTasks prints the changes of the service's tasks since the last time.
func (d *demo) showTasks(ctx context.Context, states map[string]string) error {
	for _, status := range []ecs.DesiredStatus{ecs.DesiredStatusRunning, ecs.DesiredStatusStopped} {
		all, err := d.tasks(ctx, status)
		if err != nil {
			return err
		}
		for _, t := range all {
			id, state := shortARN(wire.Value(t.TaskArn)), wire.Value(t.LastStatus)
			before := states[id]
			states[id] = state
			switch {
			case before == state:
			case state == "STOPPED":
				d.show.doing("task %s %s: %s", id, state, reason(t))
				if t.StopCode == ecs.TaskStopCodeEssentialContainerExited {
					d.showLog(ctx, id)
				}
			default:
				d.show.doing("task %s %s", id, state)
			}
		}
	}
	return nil
}

// reason is why a task stopped.
func reason(t ecs.Task) string {
	parts := []string{wire.Value(t.StoppedReason)}
	for _, c := range t.Containers {
		if c.ExitCode != nil && *c.ExitCode != 0 {
			parts = append(parts, fmt.Sprintf("%s: exit code %d", wire.Value(c.Name), *c.ExitCode))
		}
		if r := wire.Value(c.Reason); r != "" && !strings.Contains(parts[0], r) {
			parts = append(parts, wire.Value(c.Name)+": "+r)
		}
	}
	return strings.Join(parts, "; ")
}

// showLog prints the last lines that a task wrote. It is for a task that failed:
// what goes wrong here must not hide that.
func (d *demo) showLog(ctx context.Context, id string) {
	var out logs.GetLogEventsOutput
	if d.region.do(ctx, logsAPI, "GetLogEvents", &logs.GetLogEventsInput{LogGroupName: new(logGroup), LogStreamName: new("web/web/" + id), Limit: new(int32(5))}, &out) != nil {
		return
	}
	for _, e := range out.Events {
		d.show.doing("  %s", wire.Value(e.Message))
	}
}

func shortARN(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

func (d *demo) tasks(ctx context.Context, desired ecs.DesiredStatus) ([]ecs.Task, error) {
	var list ecs.ListTasksOutput
	if err := d.region.do(ctx, ecsAPI, "ListTasks", &ecs.ListTasksInput{Cluster: new(cluster), ServiceName: new(serviceName), DesiredStatus: desired}, &list); err != nil {
		return nil, err
	}
	if len(list.TaskArns) == 0 {
		return nil, nil
	}
	var out ecs.DescribeTasksOutput
	if err := d.region.do(ctx, ecsAPI, "DescribeTasks", &ecs.DescribeTasksInput{Cluster: new(cluster), Tasks: list.TaskArns}, &out); err != nil {
		return nil, err
	}
	return out.Tasks, nil
}

// visit opens every task's page at its public address.
func (d *demo) visit(ctx context.Context) error {
	all, err := d.tasks(ctx, ecs.DesiredStatusRunning)
	if err != nil {
		return err
	}
	visited := 0
	for _, t := range all {
		address, err := d.publicAddress(ctx, t)
		if err != nil {
			return err
		}
		url := "http://" + address + "/"
		text, err := get(ctx, url)
		if err != nil {
			return err
		}
		d.show.done("curl %s\n%s", url, text)
		visited++
	}
	if visited != tasks {
		return fmt.Errorf("%d tasks answer, not %d", visited, tasks)
	}
	return nil
}

// publicAddress is that of the task's network interface.
func (d *demo) publicAddress(ctx context.Context, t ecs.Task) (string, error) {
	for _, a := range t.Attachments {
		for _, kv := range a.Details {
			if wire.Value(kv.Name) != "networkInterfaceId" {
				continue
			}
			var out ec2.DescribeNetworkInterfacesOutput
			if err := d.region.do(ctx, ec2API, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{wire.Value(kv.Value)}}, &out); err != nil {
				return "", err
			}
			if len(out.NetworkInterfaces) == 1 && out.NetworkInterfaces[0].Association != nil {
				return wire.Value(out.NetworkInterfaces[0].Association.PublicIp), nil
			}
		}
	}
	return "", fmt.Errorf("task %s has no public address", shortARN(wire.Value(t.TaskArn)))
}
