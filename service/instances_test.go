package service_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	sdkec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	sdkiam "github.com/aws/aws-sdk-go-v2/service/iam"
	sdkssm "github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/berth-run/berth/auth"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	awsiam "github.com/berth-run/berth/aws/iam"
	awsssm "github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/service/ssm"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// computing is a region with EC2 and SSM and a machine.
func computing(t *testing.T) *testRegion {
	t.Helper()
	newID := func() string {
		b := make([]byte, 16)
		rand.Read(b)
		return hex.EncodeToString(b)
	}
	clock := func() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
	zone := &state.Region{Name: region, Account: account, PublicPool: netip.MustParsePrefix("198.18.0.0/24"), Zones: []state.Zone{{Name: region + "a", ID: "euc1-az1"}}}
	r := startWith(t, func(c *service.Config) {
		ec2API := ec2.New(ec2.Config{DB: c.DB, Region: region, Account: func(ctx context.Context) string { return auth.FromContext(ctx).Account }, Now: clock, NewID: newID})
		ssmAPI := ssm.New(ssm.Config{DB: c.DB, Region: region, Now: clock})
		iamAPI := iam.New(iam.Config{DB: c.DB})
		c.Services = []service.Registration{
			{Service: awsec2.NewService(ec2API), Authorize: ec2API.Authorize()},
			{Service: awsssm.NewService(ssmAPI), Authorize: ssmAPI.Authorize()},
			{Service: awsiam.NewService(iamAPI), Authorize: iamAPI.Authorize()},
		}
	})
	if err := r.db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, zone)
		state.Nodes.Put(tx, &state.Node{Name: "n", CPU: 4096, Memory: 16384})
		ec2.Furnish(tx, zone, account, clock(), newID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return r
}

// settle says of instances what is wanted of them, as control/boot does when a
// node has done it.
func (r *testRegion) settle() {
	r.t.Helper()
	err := r.db.Update(r.t.Context(), func(tx *store.Tx) error {
		for i := range state.Instances.All(tx) {
			if i.State == i.Want && i.ReportedBoots == i.Boots {
				continue
			}
			next := *i
			next.State, next.Node, next.ReportedState, next.ReportedBoots = i.Want, "n", i.Want, i.Boots
			state.Instances.Put(tx, &next)
			state.Consoles.Put(tx, &state.Console{Instance: i.ID, Account: i.Account, Output: []byte("booted\n"), At: time.Now().UTC()})
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

const soon = 20 * time.Second // bounds waiters; they return as soon as it is so

// The whole life of an instance as the SDK drives it, waiters included.
func TestInstancesOverTheWire(t *testing.T) {
	r := computing(t)
	ctx, c, params := t.Context(), sdkec2.NewFromConfig(r.asRoot()), sdkssm.NewFromConfig(r.asRoot())
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const path = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended"
	p, err := params.GetParameter(ctx, &sdkssm.GetParameterInput{Name: new(path)})
	check(err)
	var doc struct {
		ID    string `json:"image_id"`
		Name  string `json:"image_name"`
		Agent string `json:"ecs_agent_version"`
	}
	check(json.Unmarshal([]byte(*p.Parameter.Value), &doc))
	one, err := params.GetParameter(ctx, &sdkssm.GetParameterInput{Name: new(path + "/image_id")})
	check(err)
	if *one.Parameter.Value != doc.ID || *one.Parameter.DataType != "aws:ec2:image" || *one.Parameter.ARN != "arn:aws:ssm:"+region+"::parameter"+path+"/image_id" {
		t.Errorf("image_id is %+v, want %s", one.Parameter, doc.ID)
	}
	check(sdkec2.NewImageAvailableWaiter(c).Wait(ctx, &sdkec2.DescribeImagesInput{ImageIds: []string{doc.ID}, Owners: []string{"amazon"}}, soon))
	check(sdkec2.NewImageExistsWaiter(c).Wait(ctx, &sdkec2.DescribeImagesInput{ImageIds: []string{doc.ID}}, soon))

	key, err := c.CreateKeyPair(ctx, &sdkec2.CreateKeyPairInput{KeyName: new("k"), KeyType: ec2types.KeyTypeEd25519})
	check(err)
	check(sdkec2.NewKeyPairExistsWaiter(c).Wait(ctx, &sdkec2.DescribeKeyPairsInput{KeyNames: []string{"k"}}, soon))
	if !strings.Contains(*key.KeyMaterial, "OPENSSH PRIVATE KEY") {
		t.Errorf("material %q", *key.KeyMaterial)
	}
	script := base64.StdEncoding.EncodeToString([]byte("#!/bin/bash\necho ECS_CLUSTER=c >> /etc/ecs/ecs.config\n"))
	lt, err := c.CreateLaunchTemplate(ctx, &sdkec2.CreateLaunchTemplateInput{LaunchTemplateName: new("web"), LaunchTemplateData: &ec2types.RequestLaunchTemplateData{
		ImageId: new("resolve:ssm:" + path + "/image_id"), InstanceType: ec2types.InstanceTypeT3Medium, KeyName: new("k"), UserData: &script,
		TagSpecifications: []ec2types.LaunchTemplateTagSpecificationRequest{{ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{{Key: new("a"), Value: new("template")}, {Key: new("b"), Value: new("template")}}}}}})
	check(err)
	run, err := c.RunInstances(ctx, &sdkec2.RunInstancesInput{MinCount: new(int32(2)), MaxCount: new(int32(2)), ClientToken: new("once"),
		LaunchTemplate:    &ec2types.LaunchTemplateSpecification{LaunchTemplateId: lt.LaunchTemplate.LaunchTemplateId, Version: new("$Latest")},
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{{Key: new("b"), Value: new("request")}}}}})
	check(err)
	var ids []string
	for k, i := range run.Instances {
		ids = append(ids, *i.InstanceId)
		if *i.AmiLaunchIndex != int32(k) || *i.ImageId != doc.ID || i.MetadataOptions.HttpTokens != "required" || *i.MetadataOptions.HttpPutResponseHopLimit != 2 {
			t.Errorf("instance %d: %+v", k, i)
		}
		tags := map[string]string{}
		for _, x := range i.Tags {
			tags[*x.Key] = *x.Value
		}
		if tags["a"] != "template" || tags["b"] != "request" || tags["aws:ec2launchtemplate:id"] != *lt.LaunchTemplate.LaunchTemplateId || tags["aws:ec2launchtemplate:version"] != "1" {
			t.Errorf("tags %v", tags)
		}
	}
	about := &sdkec2.DescribeInstancesInput{InstanceIds: ids}
	check(sdkec2.NewInstanceExistsWaiter(c).Wait(ctx, about, soon))
	r.settle()
	check(sdkec2.NewInstanceRunningWaiter(c).Wait(ctx, about, soon))
	check(sdkec2.NewInstanceStatusOkWaiter(c).Wait(ctx, &sdkec2.DescribeInstanceStatusInput{InstanceIds: ids}, soon))
	check(sdkec2.NewSystemStatusOkWaiter(c).Wait(ctx, &sdkec2.DescribeInstanceStatusInput{InstanceIds: ids}, soon))
	console, err := c.GetConsoleOutput(ctx, &sdkec2.GetConsoleOutputInput{InstanceId: &ids[0]})
	check(err)
	if text, _ := base64.StdEncoding.DecodeString(*console.Output); string(text) != "booted\n" {
		t.Errorf("console %q", text)
	}
	volumes, err := c.DescribeVolumes(ctx, &sdkec2.DescribeVolumesInput{Filters: []ec2types.Filter{{Name: new("attachment.instance-id"), Values: ids}}})
	check(err)
	if len(volumes.Volumes) != 2 || *volumes.Volumes[0].Size != 30 || *volumes.Volumes[0].Encrypted {
		t.Errorf("volumes %+v", volumes.Volumes)
	}

	// The same token is the same launch; with other words it is refused.
	if _, err = c.RunInstances(ctx, &sdkec2.RunInstancesInput{MinCount: new(int32(1)), MaxCount: new(int32(1)), ClientToken: new("once"), ImageId: &doc.ID, InstanceType: "t3.micro"}); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("another launch with the token: %v", err)
	}
	before := public(t, r, ids[0])
	if before == "" {
		t.Error("no public address from a subnet that maps them")
	}
	stop, err := c.StopInstances(ctx, &sdkec2.StopInstancesInput{InstanceIds: ids})
	check(err)
	if x := stop.StoppingInstances[0]; x.PreviousState.Name != "running" || x.CurrentState.Name != "stopping" || *x.CurrentState.Code != 64 {
		t.Errorf("stop answers %+v", x)
	}
	r.settle()
	check(sdkec2.NewInstanceStoppedWaiter(c).Wait(ctx, about, soon))
	if after := public(t, r, ids[0]); after != "" {
		t.Errorf("a stopped instance has the public address %s", after)
	}
	_, err = c.StartInstances(ctx, &sdkec2.StartInstancesInput{InstanceIds: ids})
	check(err)
	r.settle()
	check(sdkec2.NewInstanceRunningWaiter(c).Wait(ctx, about, soon))
	if after := public(t, r, ids[0]); after == "" {
		t.Error("a start gave no public address")
	}

	// Pages: one instance at a time, both are seen once.
	var seen []string
	pages := sdkec2.NewDescribeInstancesPaginator(c, &sdkec2.DescribeInstancesInput{MaxResults: new(int32(1))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		check(err)
		for _, x := range page.Reservations {
			for _, i := range x.Instances {
				seen = append(seen, *i.InstanceId)
			}
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(seen)), slices.Sorted(slices.Values(ids))) {
		t.Errorf("pages show %v of %v", seen, ids)
	}
	end, err := c.TerminateInstances(ctx, &sdkec2.TerminateInstancesInput{InstanceIds: ids})
	check(err)
	if x := end.TerminatingInstances[1]; x.CurrentState.Name != "shutting-down" || *x.CurrentState.Code != 32 {
		t.Errorf("terminate answers %+v", x)
	}
	r.settle()
	check(sdkec2.NewInstanceTerminatedWaiter(c).Wait(ctx, about, soon))
	again, err := c.TerminateInstances(ctx, &sdkec2.TerminateInstancesInput{InstanceIds: ids})
	check(err)
	if x := again.TerminatingInstances[0]; x.PreviousState.Name != "terminated" || x.CurrentState.Name != "terminated" {
		t.Errorf("terminating again answers %+v", x)
	}
}

func public(t *testing.T, r *testRegion, instance string) string {
	t.Helper()
	for n := range state.NetworkInterfaces.By(r.db.Snapshot(), "instance", instance) {
		if n.Public.IsValid() {
			if l, ok := state.AddressLeases.Get(r.db.Snapshot(), state.LeaseKey(state.PublicScope, n.Public)); !ok || l.ENI != n.ID {
				t.Errorf("%s is not leased to %s", n.Public, n.ID)
			}
			return n.Public.String()
		}
	}
	return ""
}

// Who may launch must be let pass the profile's role, and launch the type.
func TestLaunchIsAuthorized(t *testing.T) {
	r := computing(t)
	ctx, people := t.Context(), sdkiam.NewFromConfig(r.asRoot())
	if _, err := people.CreateRole(ctx, &sdkiam.CreateRoleInput{RoleName: new("machine"), AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := people.CreateInstanceProfile(ctx, &sdkiam.CreateInstanceProfileInput{InstanceProfileName: new("p")}); err != nil {
		t.Fatal(err)
	}
	if _, err := people.AddRoleToInstanceProfile(ctx, &sdkiam.AddRoleToInstanceProfileInput{InstanceProfileName: new("p"), RoleName: new("machine")}); err != nil {
		t.Fatal(err)
	}
	image := ""
	for _, i := range state.AmazonImages(region) {
		if i.Architecture == "x86_64" {
			image = i.ID
		}
	}
	launch := func(who, policy string, kind ec2types.InstanceType) error {
		c := sdkec2.NewFromConfig(r.user(who, policy))
		_, err := c.RunInstances(ctx, &sdkec2.RunInstancesInput{MinCount: new(int32(1)), MaxCount: new(int32(1)), ImageId: &image, InstanceType: kind,
			IamInstanceProfile: &ec2types.IamInstanceProfileSpecification{Name: new("p")}})
		return err
	}
	const run = `{"Effect":"Allow","Action":"ec2:RunInstances","Resource":"*"}`
	const pass = `{"Effect":"Allow","Action":"iam:PassRole","Resource":"*","Condition":{"StringEquals":{"iam:PassedToService":"ec2.amazonaws.com"}}}`
	const small = `{"Effect":"Deny","Action":"ec2:RunInstances","Resource":"arn:aws:ec2:*:*:instance/*","Condition":{"StringNotEquals":{"ec2:InstanceType":"t3.micro"}}}`
	policy := func(s ...string) string {
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(s, ",") + `]}`
	}
	if err := launch("no-pass", policy(run), "t3.micro"); code(err) != "UnauthorizedOperation" || !strings.Contains(err.Error(), "iam:PassRole") {
		t.Errorf("without PassRole: %v", err)
	}
	if err := launch("too-big", policy(run, pass, small), "t3.large"); code(err) != "UnauthorizedOperation" {
		t.Errorf("a type that is denied: %v", err)
	}
	if err := launch("may", policy(run, pass, small), "t3.micro"); err != nil {
		t.Error(err)
	}
}

// The Parameter Store as the SDK drives it.
func TestParametersOverTheWire(t *testing.T) {
	r := computing(t)
	ctx, c := t.Context(), sdkssm.NewFromConfig(r.asRoot())
	for _, name := range []string{"/a/b/1", "/a/b/2", "/a/c", "/a/b/3/deep", "plain"} {
		if _, err := c.PutParameter(ctx, &sdkssm.PutParameterInput{Name: &name, Type: ssmtypes.ParameterTypeString, Value: new("v" + name)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		path      string
		recursive bool
		want      []string
	}{
		{"/a/b", false, []string{"/a/b/1", "/a/b/2"}},
		{"/a", true, []string{"/a/b/1", "/a/b/2", "/a/b/3/deep", "/a/c"}},
		{"/", false, []string{"plain"}},
		{"/none", true, nil},
	} {
		var got []string
		pages := sdkssm.NewGetParametersByPathPaginator(c, &sdkssm.GetParametersByPathInput{Path: &x.path, Recursive: &x.recursive, MaxResults: new(int32(1))})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range page.Parameters {
				got = append(got, *p.Name)
			}
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s %v: %v, want %v", x.path, x.recursive, got, x.want)
		}
	}
	public := 0
	pages := sdkssm.NewGetParametersByPathPaginator(c, &sdkssm.GetParametersByPathInput{Path: new("/aws/service/ecs/optimized-ami/amazon-linux-2"), Recursive: new(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		public += len(page.Parameters)
	}
	if public != 6*2*8 {
		t.Errorf("%d public parameters of Amazon Linux 2, want %d", public, 6*2*8)
	}
	if _, err := c.PutParameter(ctx, &sdkssm.PutParameterInput{Name: new("/a/c"), Type: ssmtypes.ParameterTypeString, Value: new("x")}); code(err) != "ParameterAlreadyExists" {
		t.Errorf("put again: %v", err)
	}
	if _, err := c.GetParameter(ctx, &sdkssm.GetParameterInput{Name: new("/a/none")}); code(err) != "ParameterNotFound" {
		t.Errorf("get nothing: %v", err)
	}
	bob := sdkssm.NewFromConfig(r.user("bob", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:GetParameter","Resource":"arn:aws:ssm:`+region+`:`+account+`:parameter/a/*"}]}`))
	if _, err := bob.GetParameter(ctx, &sdkssm.GetParameterInput{Name: new("/a/c")}); err != nil {
		t.Error(err)
	}
	if _, err := bob.GetParameter(ctx, &sdkssm.GetParameterInput{Name: new("plain")}); code(err) != "AccessDeniedException" {
		t.Errorf("bob reads what he may not: %v", err)
	}
}
