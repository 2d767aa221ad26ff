package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/lab"
)

// region is the region under measurement, with what a task needs in it.
type region struct {
	*lab.Region
	run ecs.RunTaskInput
	// reported is what the region itself says that each single task took.
	reported []time.Duration
}

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

func newRegion(ctx context.Context, r *lab.Region, img v1.Image) (*region, error) {
	var (
		repo    ecr.CreateRepositoryOutput
		subnets ec2.DescribeSubnetsOutput
		role    iam.CreateRoleOutput
		token   ecr.GetAuthorizationTokenOutput
	)
	for _, c := range []struct {
		svc     *wire.Service
		op      string
		in, out any
	}{
		{lab.ECR, "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("bench")}, &repo},
		{lab.ECR, "GetAuthorizationToken", &ecr.GetAuthorizationTokenInput{}, &token},
		{lab.EC2, "DescribeSubnets", &ec2.DescribeSubnetsInput{}, &subnets},
		{lab.IAM, "CreateRole", &iam.CreateRoleInput{RoleName: new("bench"), AssumeRolePolicyDocument: new(trust)}, &role},
		{lab.IAM, "AttachRolePolicy", &iam.AttachRolePolicyInput{RoleName: new("bench"),
			PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")}, nil},
	} {
		if err := r.Root.Call(ctx, c.svc, c.op, c.in, c.out); err != nil {
			return nil, fmt.Errorf("%s: %w", c.op, err)
		}
	}
	login, err := base64.StdEncoding.DecodeString(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		return nil, err
	}
	_, password, _ := strings.Cut(string(login), ":")
	if err := r.Push(ctx, "bench:1", password, img); err != nil {
		return nil, err
	}
	_, err = lab.Do[ecs.RegisterTaskDefinitionOutput](ctx, r.Root, lab.ECS, "RegisterTaskDefinition", &ecs.RegisterTaskDefinitionInput{
		Family: new("bench"), Cpu: new("256"), Memory: new("512"), NetworkMode: ecs.NetworkModeAwsvpc,
		RequiresCompatibilities: []ecs.Compatibility{ecs.CompatibilityFargate}, ExecutionRoleArn: role.Role.Arn,
		ContainerDefinitions: []ecs.ContainerDefinition{{Name: new("app"), Image: new(*repo.Repository.RepositoryUri + ":1"), Command: command}},
	})
	if err != nil {
		return nil, err
	}
	return &region{Region: r, run: ecs.RunTaskInput{
		TaskDefinition: new("bench"), LaunchType: ecs.LaunchTypeFargate,
		NetworkConfiguration: &ecs.NetworkConfiguration{AwsvpcConfiguration: &ecs.AwsVpcConfiguration{
			Subnets: []string{*subnets.Subnets[0].SubnetId}, AssignPublicIp: ecs.AssignPublicIpEnabled}},
	}}, nil
}

// one runs a task and asks for its status until it is RUNNING.
func (r *region) one(ctx context.Context, _ string) (time.Duration, func() error, error) {
	took, tasks, err := r.start(ctx, 1)
	if err == nil {
		r.reported = append(r.reported, tasks[0].StartedAt.Sub(*tasks[0].CreatedAt))
	}
	return took, func() error { return r.stop(ctx, tasks) }, err
}

func (r *region) many(ctx context.Context, _ string, n int) (time.Duration, func() error, error) {
	took, tasks, err := r.start(ctx, n)
	return took, func() error { return r.stop(ctx, tasks) }, err
}

// perCall is as many as RunTask starts, perDescribe as many as DescribeTasks tells of.
const perCall, perDescribe = 10, 100

// start runs n tasks and returns when all have been seen RUNNING.
func (r *region) start(ctx context.Context, n int) (time.Duration, []ecs.Task, error) {
	calls := (n + perCall - 1) / perCall
	outs, errs := make([]*ecs.RunTaskOutput, calls), make([]error, calls)
	t0 := time.Now()
	var wg sync.WaitGroup
	for i := range calls {
		in := r.run
		in.Count = new(int32(min(perCall, n-i*perCall)))
		wg.Go(func() { outs[i], errs[i] = lab.Do[ecs.RunTaskOutput](ctx, r.Root, lab.ECS, "RunTask", &in) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, nil, err
	}
	var arns []string
	for _, o := range outs {
		if len(o.Failures) > 0 {
			return 0, nil, fmt.Errorf("RunTask: %s", *o.Failures[0].Reason)
		}
		for _, t := range o.Tasks {
			arns = append(arns, *t.TaskArn)
		}
	}
	tasks, err := r.until(ctx, arns, "RUNNING")
	return time.Since(t0), tasks, err
}

func (r *region) stop(ctx context.Context, tasks []ecs.Task) error {
	var arns []string
	for _, t := range tasks {
		arns = append(arns, *t.TaskArn)
		if _, err := lab.Do[ecs.StopTaskOutput](ctx, r.Root, lab.ECS, "StopTask", &ecs.StopTaskInput{Task: t.TaskArn}); err != nil {
			return err
		}
	}
	_, err := r.until(ctx, arns, "STOPPED")
	return err
}

// ask is how often the state of tasks is asked for, as seldom as the machine's
// two cores deserve and as often as the result shall be exact.
const ask = 8 * time.Millisecond

// until asks for tasks until all have the status.
func (r *region) until(ctx context.Context, arns []string, status string) ([]ecs.Task, error) {
	tick := time.NewTicker(min(ask*time.Duration(len(arns)), 10*ask))
	defer tick.Stop()
	var done []ecs.Task
	for {
		out, err := lab.Do[ecs.DescribeTasksOutput](ctx, r.Root, lab.ECS, "DescribeTasks", &ecs.DescribeTasksInput{Tasks: arns[:min(len(arns), perDescribe)]})
		if err != nil {
			return done, err
		}
		var left []string
		for _, t := range out.Tasks {
			switch {
			case *t.LastStatus == status:
				done = append(done, t)
			case *t.LastStatus == "STOPPED":
				return done, fmt.Errorf("task stopped: %s", wire.Value(t.StoppedReason))
			default:
				left = append(left, *t.TaskArn)
			}
		}
		if arns = append(left, arns[min(len(arns), perDescribe):]...); len(arns) == 0 {
			return done, nil
		}
		select {
		case <-ctx.Done():
			return done, ctx.Err()
		case <-tick.C:
		}
	}
}
