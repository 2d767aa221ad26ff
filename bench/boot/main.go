// Command boot measures how long an EC2 instance takes on a real region: from
// RunInstances to the state running, and to an ECS agent that is connected. In
// the same run it times what is beside it, a bare container of the same root
// made by runc alone, so that a slow machine shows as one.
//
//	go run ./bench/boot [-n 15] [-berth F]
//
// Instances are launched one after the other and terminated afterwards. The
// first one, for which the root is made, is told apart.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store/state"
	"github.com/berth-run/berth/test/lab"
)

// look is how often a state is asked for.
const look = 5 * time.Millisecond

func main() {
	n := flag.Int("n", 15, "how many instances")
	binary := flag.String("berth", "", "binary to measure; built if empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *n, *binary); err != nil {
		fmt.Fprintln(os.Stderr, "boot:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, n int, binary string) (err error) {
	dir, err := os.MkdirTemp("", "bench-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if binary == "" {
		if binary, err = lab.Build(ctx, "", dir, "berth"); err != nil {
			return err
		}
	}
	r, err := lab.Up(ctx, lab.Options{Binary: binary, Dir: filepath.Join(dir, "region")})
	if r != nil {
		defer func() { err = errors.Join(err, r.Down(context.WithoutCancel(ctx), true)) }()
	}
	if err != nil {
		return err
	}
	b := &bench{Region: r}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	first, err := b.boot(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("first instance, with its root:  running %4d ms, agent connected %4d ms\n", first.running.Milliseconds(), first.connected.Milliseconds())
	var running, connected []time.Duration
	for range n {
		t, err := b.boot(ctx)
		if err != nil {
			return err
		}
		running, connected = append(running, t.running), append(connected, t.connected)
	}
	for _, m := range []struct {
		what  string
		times []time.Duration
	}{{"RunInstances to running", running}, {"RunInstances to agent connected", connected}} {
		slices.Sort(m.times)
		fmt.Printf("%-32s median %4d ms, least %4d ms, most %4d ms of %d\n", m.what, m.times[len(m.times)/2].Milliseconds(), m.times[0].Milliseconds(), m.times[len(m.times)-1].Milliseconds(), n)
	}
	return b.bare(ctx, filepath.Join(dir, "bare"))
}

type bench struct {
	*lab.Region
	image string
}

// prepare makes the role of container instances.
func (b *bench) prepare(ctx context.Context) error {
	for _, i := range state.AmazonImages("us-east-1") {
		if i.ECS && i.Architecture == "x86_64" && strings.HasPrefix(i.Name, "al2023-ami-ecs-hvm") {
			b.image = i.ID
		}
	}
	const name = "machines"
	for _, c := range []struct {
		op string
		in any
	}{
		{"CreateRole", &iam.CreateRoleInput{RoleName: new(name), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}},
		{"AttachRolePolicy", &iam.AttachRolePolicyInput{RoleName: new(name), PolicyArn: new("arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role")}},
		{"CreateInstanceProfile", &iam.CreateInstanceProfileInput{InstanceProfileName: new(name)}},
		{"AddRoleToInstanceProfile", &iam.AddRoleToInstanceProfileInput{InstanceProfileName: new(name), RoleName: new(name)}},
	} {
		if err := b.Root.Call(ctx, lab.IAM, c.op, c.in, nil); err != nil {
			return fmt.Errorf("%s: %w", c.op, err)
		}
	}
	return nil
}

type times struct{ running, connected time.Duration }

// boot launches one instance, times it, and terminates it.
func (b *bench) boot(ctx context.Context) (t times, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	data := base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\necho ECS_CLUSTER=default >> /etc/ecs/ecs.config\n"))
	begin := time.Now()
	out, err := lab.Do[ec2.RunInstancesOutput](ctx, b.Root, lab.EC2, "RunInstances", &ec2.RunInstancesInput{
		ImageId: &b.image, InstanceType: "t3.small", MinCount: new(int32(1)), MaxCount: new(int32(1)), UserData: &data,
		IamInstanceProfile: &ec2.IamInstanceProfileSpecification{Name: new("machines")}})
	if err != nil {
		return t, err
	}
	ids := []string{*out.Instances[0].InstanceId}
	if err := b.state(ctx, ids, "running"); err != nil {
		return t, err
	}
	t.running = time.Since(begin)
	err = every(ctx, func() (bool, error) {
		list, err := lab.Do[ecs.ListContainerInstancesOutput](ctx, b.Root, lab.ECS, "ListContainerInstances", &ecs.ListContainerInstancesInput{})
		if err != nil || len(list.ContainerInstanceArns) == 0 {
			return false, err
		}
		got, err := lab.Do[ecs.DescribeContainerInstancesOutput](ctx, b.Root, lab.ECS, "DescribeContainerInstances", &ecs.DescribeContainerInstancesInput{ContainerInstances: list.ContainerInstanceArns})
		if err != nil {
			return false, err
		}
		return slices.ContainsFunc(got.ContainerInstances, func(c ecs.ContainerInstance) bool {
			return *c.Ec2InstanceId == ids[0] && c.AgentConnected != nil && *c.AgentConnected
		}), nil
	})
	if err != nil {
		return t, fmt.Errorf("agent of %s: %w", ids[0], err)
	}
	t.connected = time.Since(begin)
	if err := b.Root.Call(ctx, lab.EC2, "TerminateInstances", &ec2.TerminateInstancesInput{InstanceIds: ids}, nil); err != nil {
		return t, err
	}
	return t, b.state(ctx, ids, "terminated")
}

func (b *bench) state(ctx context.Context, ids []string, want string) error {
	return every(ctx, func() (bool, error) {
		out, err := lab.Do[ec2.DescribeInstancesOutput](ctx, b.Root, lab.EC2, "DescribeInstances", &ec2.DescribeInstancesInput{InstanceIds: ids})
		return err == nil && string(out.Reservations[0].Instances[0].State.Name) == want, err
	})
}

// every asks until it is so.
func every(ctx context.Context, so func() (bool, error)) error {
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		if ok, err := so(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// bare times runc with a root of its own that has nothing but a shell.
func (b *bench) bare(ctx context.Context, dir string) error {
	root := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	self, err := lab.Build(ctx, "/test/programs/box", dir, "box")
	if err != nil {
		return err
	}
	if err := os.Rename(self, filepath.Join(root, "box")); err != nil {
		return err
	}
	spec := exec.CommandContext(ctx, "runc", "spec", "--bundle", dir)
	if out, err := spec.CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return err
	}
	text := strings.NewReplacer(`"terminal": true`, `"terminal": false`, `"sh"`, `"/box"`).Replace(string(config))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		return err
	}
	var took []time.Duration
	for i := range 5 {
		begin := time.Now()
		c := exec.CommandContext(ctx, "runc", "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, fmt.Sprintf("bench-boot-%d", i))
		if out, err := c.CombinedOutput(); c.ProcessState == nil || !c.ProcessState.Exited() {
			return fmt.Errorf("runc run: %w: %s", err, out)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	fmt.Printf("%-32s median %4d ms\n", "a bare container by runc", took[len(took)/2].Milliseconds())
	return nil
}
