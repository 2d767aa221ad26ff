package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/test/lab"
)

// account makes another account in the world's region, with what tests need.
func (w *world) account(t *testing.T, args ...string) *world {
	t.Helper()
	ctx := deadline(t)
	line, err := w.Berth(ctx, append([]string{"account", "create"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(line)
	if len(words) != 3 || strings.Count(line, "\n") != 1 {
		t.Fatalf("account create prints %q", line)
	}
	r := *w.Region
	other := &world{Region: &r}
	other.Account = words[2]
	other.Root = lab.Identity{Region: &r, AccessKeyID: words[0], Secret: words[1]}
	if err := other.furnish(ctx); err != nil {
		t.Fatal(err)
	}
	return other
}

// vpcs are the networks that the kernel has of the region.
func (w *world) vpcs(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(w.RunDir(), "netns", "vpc-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Two accounts of a region have the same names, the same addresses and the
// same images, see nothing of each other, and when one is deleted nothing of
// it is left and nothing of the other is missing.
func TestAccounts(t *testing.T) {
	t.Parallel()
	a := fresh(t)
	ctx := deadline(t)
	netns := len(a.vpcs(t))
	events := func() []string {
		files, err := filepath.Glob(filepath.Join(a.Dir, "events", "??", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	keep := a.detached(t, a.page("a"))
	keep.wait("RUNNING")

	b := a.account(t, "--id", "123456789012")
	if who := call[sts.GetCallerIdentityOutput](t, b, lab.STS, "GetCallerIdentity", &sts.GetCallerIdentityInput{}); *who.Arn != "arn:aws:iam::123456789012:root" {
		t.Errorf("the new account's key is of %s", *who.Arn)
	}
	s := b.serve2(t, "web", b.page("b"))
	s.stable()
	var stopped []string
	for _, now := range s.tasks() {
		k := &task{t: t, w: b, arn: *now.TaskArn, family: family(t)}
		stopped = append(stopped, k.id())
		if !strings.Contains(k.arn, ":123456789012:") || !strings.Contains(*now.Containers[0].ContainerArn, ":123456789012:") {
			t.Errorf("task %s with container %s", k.arn, *now.Containers[0].ContainerArn)
		}
		if page := k.page("/"); !strings.Contains(page, "b") {
			t.Errorf("a task of the account serves %q", page)
		}
		// Its log goes to the group of its own account, which has the same name.
		k.page("/print", "line", "from b")
		if lines := k.printed("web", 1); lines[0] != "from b" {
			t.Errorf("the log of the task is %q", lines)
		}
	}
	// From the other side there is nothing.
	listed := call[ecs.ListTasksOutput](t, a, lab.ECS, "ListTasks", &ecs.ListTasksInput{})
	if !slices.Equal(listed.TaskArns, []string{keep.arn}) {
		t.Errorf("account a lists %q", listed.TaskArns)
	}
	seen := call[ec2.DescribeNetworkInterfacesOutput](t, a, lab.EC2, "DescribeNetworkInterfaces", &ec2.DescribeNetworkInterfacesInput{})
	if len(seen.NetworkInterfaces) != 1 {
		t.Errorf("account a sees %d interfaces, want its one", len(seen.NetworkInterfaces))
	}
	refused(t, a.Root, lab.IAM, "GetRole", &iam.GetRoleInput{RoleName: new("nobody")}, "NoSuchEntity", "The role with name nobody cannot be found.")
	session, err := lab.Do[sts.GetSessionTokenOutput](ctx, b.Root, lab.STS, "GetSessionToken", &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	before := len(events())
	if list, err := a.Berth(ctx, "account", "list"); err != nil || !strings.Contains(list, "123456789012") {
		t.Errorf("account list: %s %v", list, err)
	}

	if _, err := a.Berth(ctx, "account", "delete", "123456789012"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []lab.Identity{b.Root, {Region: b.Region, AccessKeyID: *session.Credentials.AccessKeyId, Secret: *session.Credentials.SecretAccessKey, Token: *session.Credentials.SessionToken}} {
		refused(t, id, lab.ECS, "ListClusters", &ecs.ListClustersInput{}, "UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	for _, id := range stopped {
		if inits, err := a.Inits(id); err != nil || len(inits) > 0 {
			t.Errorf("of task %s there still run %v %v", id, inits, err)
		}
	}
	if after := len(events()); before < 2 || after > before-2 {
		t.Errorf("%d files of log events before, %d after", before, after)
	}
	if list, err := a.Berth(ctx, "account", "list"); err != nil || strings.Contains(list, "123456789012") {
		t.Errorf("account list: %s %v", list, err)
	}
	if err := lab.Until(ctx, func(context.Context) (bool, error) { return len(a.vpcs(t)) <= netns+2, nil }); err != nil {
		t.Errorf("networks in the kernel: %q, before there were %d and account a has started one", a.vpcs(t), netns)
	}
	if page := keep.page("/"); !strings.Contains(page, "a") {
		t.Errorf("the task of the other account serves %q", page)
	}
	// The id is free again, and has nothing of what was there.
	again := a.account(t, "--id", "123456789012")
	if out := call[ecs.ListServicesOutput](t, again, lab.ECS, "ListServices", &ecs.ListServicesInput{}); len(out.ServiceArns) > 0 {
		t.Errorf("the account made again has %q", out.ServiceArns)
	}
	refused(t, b.Root, lab.ECS, "ListClusters", &ecs.ListClustersInput{}, "UnrecognizedClientException", "The security token included in the request is invalid.")
	if _, err := a.Berth(ctx, "account", "delete", lab.Account); err == nil || !strings.Contains(err.Error(), "is the region's own") {
		t.Errorf("delete the first account: %v", err)
	}
}

// A server that is killed while it deletes an account goes on when it is back.
func TestAccountDeletionOutlivesServer(t *testing.T) {
	t.Parallel()
	a := fresh(t)
	ctx := deadline(t)
	b := a.account(t)
	k := b.detached(t, b.page("b"))
	k.wait("RUNNING")
	done := make(chan error, 1)
	go func() {
		_, err := a.Berth(ctx, "account", "delete", b.Account)
		done <- err
	}()
	err := lab.Until(ctx, func(ctx context.Context) (bool, error) {
		return codeOf(b.Root.Call(ctx, lab.STS, "GetCallerIdentity", &sts.GetCallerIdentityInput{}, nil)) == "InvalidClientTokenId", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	running, err := a.Processes()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := os.FindProcess(running["server"]); err != nil || p.Kill() != nil {
		t.Fatalf("kill the server: %v", err)
	}
	<-done // with success or not, by when the server was killed
	err = lab.Until(ctx, func(ctx context.Context) (bool, error) {
		list, err := a.Berth(ctx, "account", "list")
		return err == nil && !strings.Contains(list, b.Account), nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("the account is still there: %w", err))
	}
	if inits, err := a.Inits(k.id()); err != nil || len(inits) > 0 {
		t.Errorf("there still run %v %v", inits, err)
	}
}
