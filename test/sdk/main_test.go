// Package sdk proves that what is built upon AWS's SDK for Go finds here what
// it finds at AWS: every paginator walks all that there is, every waiter ends
// as its model says, and what Terraform writes reads back as it was sent.
//
// It drives one real region by the SDK's typed clients. What is new in a later
// version of the SDK fails a test until it is decided on: see operations_test.go.
package sdk

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-run/berth/test/lab"
)

// patience is how long anything may take. Nothing is measured with it.
const patience = 90 * time.Second

// A world is the region of the tests and the SDK's clients of it.
type world struct {
	*lab.Region
	config aws.Config
	ecs    *ecs.Client
	ecr    *ecr.Client
	ec2    *ec2.Client
	iam    *iam.Client
	logs   *cloudwatchlogs.Client
	ssm    *ssm.Client

	image    string   // in the region's registry
	password string   // of the registry
	vpc      string   // the default one
	subnets  []string // of it
	group    string   // its default security group
	machine  string   // AMI of the image
	exec     string   // ARN of the tasks' execution role
}

var (
	w   *world
	box v1.Image
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		tmp, err := os.MkdirTemp("", "berth-sdk-")
		if err != nil {
			return fail(err)
		}
		defer os.RemoveAll(tmp)
		binary, err := lab.Build(ctx, "", tmp, "berth")
		if err != nil {
			return fail(err)
		}
		if box, err = lab.Box(ctx); err != nil {
			return fail(err)
		}
		r, err := lab.Up(ctx, lab.Options{Binary: binary, Dir: filepath.Join(tmp, "region")})
		if err != nil {
			if r != nil {
				err = errors.Join(err, end(r))
			}
			return fail(err)
		}
		w = &world{Region: r}
		code := 1
		if err = w.furnish(ctx); err == nil {
			code = m.Run()
		}
		if code != 0 {
			fmt.Fprintln(os.Stderr, r.Logs())
		}
		if err := errors.Join(err, end(r)); err != nil {
			return fail(err)
		}
		return code
	}())
}

// end ends the region, with tasks that still run, and looks for what is left.
func end(r *lab.Region) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Down(ctx, true); err != nil {
		return err
	}
	return r.Gone(ctx)
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "sdk:", err)
	return 1
}

const trustTasks = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// furnish makes the clients and what tests need.
func (w *world) furnish(ctx context.Context) error {
	w.config = aws.Config{Region: w.Name, BaseEndpoint: &w.Endpoint, HTTPClient: lab.Plain{Client: http.DefaultClient}, Credentials: credentials.NewStaticCredentialsProvider(w.Root.AccessKeyID, w.Root.Secret, "")}
	w.ecs, w.ecr, w.ec2 = ecs.NewFromConfig(w.config), ecr.NewFromConfig(w.config), ec2.NewFromConfig(w.config)
	w.iam, w.logs, w.ssm = iam.NewFromConfig(w.config), cloudwatchlogs.NewFromConfig(w.config), ssm.NewFromConfig(w.config)

	// Three pages are more than AWS gives a new account of these.
	for _, name := range []string{"vpc/vpcs", "vpc/internet-gateways", "vpc/egress-only-gateways", "vpc/nat-gateways-per-zone", "vpc/elastic-ips"} {
		if _, err := w.Berth(ctx, "quota", "set", name, "100"); err != nil {
			return err
		}
	}

	subnets, err := w.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
	if err != nil {
		return err
	}
	for _, s := range subnets.Subnets {
		w.subnets = append(w.subnets, *s.SubnetId)
	}
	groups, err := w.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupNames: []string{"default"}})
	if err != nil {
		return err
	}
	w.group, w.vpc = *groups.SecurityGroups[0].GroupId, *groups.SecurityGroups[0].VpcId
	role, err := w.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("exec"), AssumeRolePolicyDocument: new(trustTasks)})
	if err != nil {
		return err
	}
	w.exec = *role.Role.Arn
	_, err = w.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("exec"),
		PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")})
	if err != nil {
		return err
	}
	if _, err := w.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("default")}); err != nil {
		return err
	}
	token, err := w.ecr.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return err
	}
	text, err := base64.StdEncoding.DecodeString(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		return err
	}
	_, w.password, _ = strings.Cut(string(text), ":")
	repo, err := w.ecr.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("box")})
	if err != nil {
		return err
	}
	w.image = *repo.Repository.RepositoryUri + ":1"
	if err := w.Push(ctx, "box:1", w.password, box); err != nil {
		return err
	}
	machine, err := w.ec2.RegisterImage(ctx, &ec2.RegisterImageInput{Name: new("machine"), ImageLocation: &w.image})
	if err != nil {
		return err
	}
	w.machine = *machine.ImageId
	return nil
}

// must answers what a call returned and ends the test if it failed.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// codeOf is the code of an API error, "" if it is another one or none.
func codeOf(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// done ends the test if a call failed.
func done(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}
