// Package e2e proves what a user sees: on real regions, started with the real
// binary, driven with the aws CLI, OCI clients and the SDK, and read in the
// kernel afterwards.
//
// The journeys are transcripts in testdata/*.txtar. What a transcript says
// badly, because it loops or waits for a moment, is a test in Go beside it.
// Nearly all share one region: its tests run at the same time and so disturb
// each other as users do. At its end nothing may be left.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/lab"
)

// patience is how long anything may take. Nothing is measured with it.
const patience = 90 * time.Second

var (
	shared *world // the region of most tests
	binary string // bin/berth
	image  v1.Image
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		tmp, err := os.MkdirTemp("", "berth-e2e-")
		if err != nil {
			return fail(err)
		}
		defer os.RemoveAll(tmp)
		if binary, err = lab.Build(ctx, "", tmp, "berth"); err != nil {
			return fail(err)
		}
		if image, err = lab.Box(ctx, "PAGE=one"); err != nil {
			return fail(err)
		}
		if shared, err = newWorld(ctx, lab.Options{Binary: binary, Dir: filepath.Join(tmp, "region")}); err != nil {
			if shared != nil {
				_ = shared.Down(context.Background(), true)
			}
			return fail(err)
		}
		code := m.Run()
		if code != 0 {
			fmt.Fprintln(os.Stderr, shared.Logs())
		}
		if err := shared.end(); err != nil {
			fmt.Fprintln(os.Stderr, shared.Logs())
			return fail(err)
		}
		return code
	}())
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// A world is a region with what tests need in it: an image, roles, a log
// group, and a security group that admits everybody.
type world struct {
	*lab.Region
	image   string   // in the region's registry
	subnets []string // of the default VPC, one per zone
	vpc     string
	open    string // security group
	role    string // ARN of a role that tasks may have, which may list clusters and nothing else
	exec    string // ARN of the tasks' execution role
}

const trustTasks = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

func newWorld(ctx context.Context, o lab.Options) (*world, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before := &lab.Region{Options: o}
	if left, err := before.Leftovers(); err != nil || len(left) > 0 {
		return nil, fmt.Errorf("before the first start there is %v: %w", left, err)
	}
	r, err := lab.Up(ctx, o)
	w := &world{Region: r}
	if err != nil {
		return w, err
	}
	return w, w.furnish(ctx)
}

// furnish makes what tests need in the account of the world's identity.
func (w *world) furnish(ctx context.Context) error {
	r := w.Region
	var repo ecr.CreateRepositoryOutput
	var group ec2.CreateSecurityGroupOutput
	var role, exec iam.CreateRoleOutput
	var subnets ec2.DescribeSubnetsOutput
	for _, c := range []struct {
		svc     *wire.Service
		op      string
		in, out any
	}{
		{lab.ECR, "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("box")}, &repo},
		{lab.EC2, "DescribeSubnets", &ec2.DescribeSubnetsInput{}, &subnets},
		{lab.EC2, "CreateSecurityGroup", &ec2.CreateSecurityGroupInput{GroupName: new("open"), Description: new("everybody")}, &group},
		{lab.IAM, "CreateRole", &iam.CreateRoleInput{RoleName: new("task"), AssumeRolePolicyDocument: new(trustTasks)}, &role},
		{lab.IAM, "PutRolePolicy", &iam.PutRolePolicyInput{RoleName: new("task"), PolicyName: new("look"),
			PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecs:ListClusters","Resource":"*"}]}`)}, nil},
		{lab.IAM, "CreateRole", &iam.CreateRoleInput{RoleName: new("exec"), AssumeRolePolicyDocument: new(trustTasks)}, &exec},
		{lab.IAM, "AttachRolePolicy", &iam.AttachRolePolicyInput{RoleName: new("exec"),
			PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")}, nil},
		{lab.Logs, "CreateLogGroup", &logs.CreateLogGroupInput{LogGroupName: new("/e2e")}, nil},
		{lab.ECS, "CreateCluster", &ecs.CreateClusterInput{ClusterName: new("default")}, nil},
	} {
		if err := r.Root.Call(ctx, c.svc, c.op, c.in, c.out); err != nil {
			return err
		}
	}
	w.open, w.role, w.exec = *group.GroupId, *role.Role.Arn, *exec.Role.Arn
	slices.SortFunc(subnets.Subnets, func(a, b ec2.Subnet) int { return strings.Compare(*a.AvailabilityZone, *b.AvailabilityZone) })
	for _, s := range subnets.Subnets {
		w.subnets, w.vpc = append(w.subnets, *s.SubnetId), *s.VpcId
	}
	_, err := lab.Do[ec2.AuthorizeSecurityGroupIngressOutput](ctx, r.Root, lab.EC2, "AuthorizeSecurityGroupIngress",
		&ec2.AuthorizeSecurityGroupIngressInput{GroupId: &w.open, IpPermissions: []ec2.IpPermission{{IpProtocol: new("-1"), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}}}})
	if err != nil {
		return err
	}
	w.image = *repo.Repository.RepositoryUri + ":1"
	return w.push(ctx, "box:1", image)
}

func (w *world) push(ctx context.Context, ref string, img v1.Image) error {
	token, err := lab.Do[ecr.GetAuthorizationTokenOutput](ctx, w.Root, lab.ECR, "GetAuthorizationToken", &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return err
	}
	password, err := passwordOf(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		return err
	}
	return w.Push(ctx, ref, password, img)
}

// end ends the region. What tests have started they have stopped, so that
// first the region itself, then the machine can be asked what is left.
func (w *world) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	empty := w.empty(ctx)
	if err := w.Down(ctx, true); err != nil {
		return err
	}
	if empty != nil {
		return empty
	}
	return w.Gone(ctx)
}

// empty waits until no task runs any more and no address is in use.
func (w *world) empty(ctx context.Context) error {
	var arns []string
	var enis []ec2.NetworkInterface
	err := lab.Until(ctx, func(ctx context.Context) (bool, error) {
		arns = nil
		clusters, err := lab.Do[ecs.ListClustersOutput](ctx, w.Root, lab.ECS, "ListClusters", &ecs.ListClustersInput{})
		if err != nil {
			return false, err
		}
		for _, c := range clusters.ClusterArns {
			tasks, err := lab.Do[ecs.ListTasksOutput](ctx, w.Root, lab.ECS, "ListTasks", &ecs.ListTasksInput{Cluster: &c})
			if err != nil {
				return false, err
			}
			arns = append(arns, tasks.TaskArns...)
		}
		out, err := lab.Do[ec2.DescribeNetworkInterfacesOutput](ctx, w.Root, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{})
		if err != nil {
			return false, err
		}
		enis = out.NetworkInterfaces
		return len(arns) == 0 && len(enis) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("tasks %v and %d interfaces are left: %w", arns, len(enis), err)
	}
	return nil
}
