package service_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/auth"
	awsec2 "github.com/berth-run/berth/aws/ec2"
	awsecr "github.com/berth-run/berth/aws/ecr"
	awsecs "github.com/berth-run/berth/aws/ecs"
	awsiam "github.com/berth-run/berth/aws/iam"
	awslogs "github.com/berth-run/berth/aws/logs"
	awsssm "github.com/berth-run/berth/aws/ssm"
	awssts "github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/service/ec2"
	"github.com/berth-run/berth/service/ecr"
	"github.com/berth-run/berth/service/ecs"
	"github.com/berth-run/berth/service/iam"
	"github.com/berth-run/berth/service/logs"
	"github.com/berth-run/berth/service/logs/journal"
	"github.com/berth-run/berth/service/ssm"
	"github.com/berth-run/berth/service/sts"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// An accountOf is the root user of one of two accounts, and what it has made.
type accountOf struct {
	t       *testing.T
	r       *testRegion
	id      string
	key     iam.RootKey
	subnet  string
	task    string
	private []string // ids that the other must never see
}

func (a *accountOf) try(svc *wire.Service, op string, in, out any) error {
	a.t.Helper()
	signer := auth.Signer{AccessKeyID: a.key.AccessKeyID, Secret: a.key.Secret}
	c := &wire.Client{Endpoint: a.r.url, Sign: func(r *http.Request, body []byte) error {
		signer.Sign(r, body, svc.SigningName, region, time.Now())
		return nil
	}}
	return c.Call(a.t.Context(), svc, op, in, out)
}

func (a *accountOf) do(svc *wire.Service, op string, in, out any) {
	a.t.Helper()
	if err := a.try(svc, op, in, out); err != nil {
		a.t.Fatalf("%s in account %s: %v", op, a.id, err)
	}
}

// Nothing of one account is seen from another, and the same names are free in each.
func TestAccountsAreIsolated(t *testing.T) {
	var services []service.Registration
	var ecsAPI *ecs.ECS
	zone := &state.Region{Name: region, Account: account, PublicPool: netip.MustParsePrefix("198.18.0.0/24"), Zones: []state.Zone{{Name: region + "a", ID: "euc1-az1"}}}
	newID := func() string {
		b := make([]byte, 16)
		rand.Read(b)
		return hex.EncodeToString(b)
	}
	r := startWith(t, func(c *service.Config) {
		reg, err := registry.New(t.Context(), registry.Config{Dir: t.TempDir(), DB: c.DB, Region: region, Authorizer: c.Authorizer, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		events, err := journal.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		ecsAPI = ecs.New(ecs.Config{DB: c.DB, Region: region, Account: account, PassRole: c.Authorizer.PassRole, PollEndpoint: func(context.Context) string { return "" }})
		ec2API := ec2.New(ec2.Config{DB: c.DB, Region: region, Account: func(ctx context.Context) string { return auth.FromContext(ctx).Account }, Now: time.Now, NewID: newID})
		ecrAPI, err := ecr.New(ecr.Config{DB: c.DB, Registry: reg, Endpoint: func(_ context.Context, account string) string { return "http://" + account + ".dkr.ecr" }})
		if err != nil {
			t.Fatal(err)
		}
		logsAPI := logs.New(logs.Config{DB: c.DB, Journal: events, Region: region, Now: time.Now, NewID: newID})
		iamAPI := iam.New(iam.Config{DB: c.DB})
		ssmAPI := ssm.New(ssm.Config{DB: c.DB, Region: region, Now: time.Now})
		stsAPI := sts.New(sts.Config{DB: c.DB, Sessions: c.Verifier.Sessions, Authorizer: c.Authorizer})
		services = []service.Registration{
			{Service: awsecs.NewService(ecsAPI), Authorize: ecsAPI.Authorize()},
			{Service: awsec2.NewService(ec2API), Authorize: ec2API.Authorize()},
			{Service: awsecr.NewService(ecrAPI), Authorize: ecrAPI.Authorize()},
			{Service: awslogs.NewService(logsAPI), Authorize: logsAPI.Authorize()},
			{Service: awsiam.NewService(iamAPI), Authorize: iamAPI.Authorize()},
			{Service: awsssm.NewService(ssmAPI), Authorize: ssmAPI.Authorize()},
			{Service: awssts.NewService(stsAPI), Authorize: stsAPI.Authorize()},
		}
		c.Services = services
	})
	named := map[string]*wire.Service{}
	for _, s := range services {
		named[s.Name] = s.Service
	}
	if err := r.db.Update(t.Context(), func(tx *store.Tx) error {
		state.Regions.Put(tx, zone)
		state.Nodes.Put(tx, &state.Node{Name: "n", CPU: 4096, Memory: 8192})
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	furnish := func(id string) *accountOf {
		a := &accountOf{t: t, r: r, id: id}
		err := r.db.Update(t.Context(), func(tx *store.Tx) error {
			a.key = iam.Furnish(tx, id, time.Now())
			ec2.Furnish(tx, zone, id, time.Now(), newID)
			ecsAPI.Furnish(tx, id, time.Now())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
		const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
		var subnets awsec2.DescribeSubnetsOutput
		a.do(named["ec2"], "DescribeSubnets", &awsec2.DescribeSubnetsInput{}, &subnets)
		if len(subnets.Subnets) != 1 {
			t.Fatalf("account %s has %d subnets", id, len(subnets.Subnets))
		}
		a.subnet = *subnets.Subnets[0].SubnetId
		a.private = append(a.private, id, a.subnet, *subnets.Subnets[0].VpcId)
		network := &awsecs.NetworkConfiguration{AwsvpcConfiguration: &awsecs.AwsVpcConfiguration{Subnets: []string{a.subnet}}}
		var group awsec2.CreateSecurityGroupOutput
		var run awsecs.RunTaskOutput
		var launched awsec2.RunInstancesOutput
		var key awsec2.CreateKeyPairOutput
		var template awsec2.CreateLaunchTemplateOutput
		var image awsec2.CopyImageOutput
		amazon := state.AmazonImages(region)[0]
		machine := awsec2.InstanceType("t3.micro")
		if amazon.Architecture == "arm64" {
			machine = "t4g.micro"
		}
		for _, x := range []struct {
			service, op string
			in, out     any
		}{
			{"ec2", "CreateSecurityGroup", &awsec2.CreateSecurityGroupInput{GroupName: new("same"), Description: new("d")}, &group},
			{"iam", "CreateInstanceProfile", &awsiam.CreateInstanceProfileInput{InstanceProfileName: new("same")}, nil},
			{"ec2", "CreateKeyPair", &awsec2.CreateKeyPairInput{KeyName: new("same"), KeyType: "ed25519"}, &key},
			{"ec2", "CreateLaunchTemplate", &awsec2.CreateLaunchTemplateInput{LaunchTemplateName: new("same"), LaunchTemplateData: &awsec2.RequestLaunchTemplateData{ImageId: &amazon.ID, KeyName: new("same")}}, &template},
			{"ec2", "CopyImage", &awsec2.CopyImageInput{Name: new("same"), SourceImageId: &amazon.ID, SourceRegion: new(region)}, &image},
			{"ec2", "RunInstances", &awsec2.RunInstancesInput{MinCount: new(int32(1)), MaxCount: new(int32(1)), InstanceType: machine, InstanceMarketOptions: &awsec2.InstanceMarketOptionsRequest{MarketType: "spot"},
				IamInstanceProfile: &awsec2.IamInstanceProfileSpecification{Name: new("same")}, LaunchTemplate: &awsec2.LaunchTemplateSpecification{LaunchTemplateName: new("same")}}, &launched},
			{"ssm", "PutParameter", &awsssm.PutParameterInput{Name: new("/same"), Type: "SecureString", Value: new("secret of " + id)}, nil},
			{"ecr", "CreateRepository", &awsecr.CreateRepositoryInput{RepositoryName: new("same")}, nil},
			{"logs", "CreateLogGroup", &awslogs.CreateLogGroupInput{LogGroupName: new("/same")}, nil},
			{"logs", "CreateLogStream", &awslogs.CreateLogStreamInput{LogGroupName: new("/same"), LogStreamName: new("s")}, nil},
			{"iam", "CreateUser", &awsiam.CreateUserInput{UserName: new("same")}, nil},
			{"iam", "CreateGroup", &awsiam.CreateGroupInput{GroupName: new("same")}, nil},
			{"iam", "CreateRole", &awsiam.CreateRoleInput{RoleName: new("same"), AssumeRolePolicyDocument: new(trust)}, nil},
			{"iam", "CreatePolicy", &awsiam.CreatePolicyInput{PolicyName: new("same"), PolicyDocument: new(policy)}, nil},
			{"ecs", "CreateCluster", &awsecs.CreateClusterInput{ClusterName: new("same")}, nil},
			{"ecs", "RegisterTaskDefinition", &awsecs.RegisterTaskDefinitionInput{Family: new("same"), Cpu: new("256"), Memory: new("512"), NetworkMode: awsecs.NetworkModeAwsvpc,
				RequiresCompatibilities: []awsecs.Compatibility{awsecs.CompatibilityFargate}, ContainerDefinitions: []awsecs.ContainerDefinition{{Name: new("c"), Image: new("i")}}}, nil},
			{"ecs", "CreateService", &awsecs.CreateServiceInput{ServiceName: new("same"), TaskDefinition: new("same"), DesiredCount: new(int32(1)), LaunchType: awsecs.LaunchTypeFargate, NetworkConfiguration: network}, nil},
			{"ecs", "RunTask", &awsecs.RunTaskInput{TaskDefinition: new("same"), LaunchType: awsecs.LaunchTypeFargate, NetworkConfiguration: network}, &run},
		} {
			a.do(named[x.service], x.op, x.in, x.out)
		}
		a.private = append(a.private, *group.GroupId, *launched.Instances[0].InstanceId, *template.LaunchTemplate.LaunchTemplateId, *key.KeyPairId, *image.ImageId, *launched.Instances[0].SpotInstanceRequestId)
		a.task = *run.Tasks[0].TaskArn
		return a
	}
	a, b := furnish("111111111111"), furnish("222222222222")

	// Whatever can be asked for without naming anything.
	asked := 0
	for _, s := range services {
		for _, name := range slices.Sorted(maps.Keys(s.Operations)) {
			op := s.Operations[name]
			in := op.New()
			if op.Streams || !strings.HasPrefix(name, "List") && !strings.HasPrefix(name, "Describe") && !strings.HasPrefix(name, "Get") || wire.Validate(op, in) != nil {
				continue
			}
			for _, x := range [][2]*accountOf{{a, b}, {b, a}} {
				out := op.NewOutput()
				if err := x[0].try(s.Service, name, in, out); err != nil {
					continue // needs a name after all
				}
				asked++
				text, err := json.Marshal(out)
				if err != nil {
					t.Fatal(err)
				}
				for _, secret := range x[1].private {
					if strings.Contains(string(text), secret) {
						t.Errorf("%s of %s in account %s shows %s of the other: %s", name, s.Name, x[0].id, secret, text)
					}
				}
			}
		}
	}
	if asked < 40 {
		t.Errorf("only %d questions were answered", asked)
	}

	// What belongs to the other is, by its full name, as good as not there.
	arn := func(service, rest string) *string {
		return new("arn:aws:" + service + ":" + region + ":" + a.id + ":" + rest)
	}
	for _, x := range []struct {
		service, op string
		in          any
		want        string // code of the error, or its words
	}{
		{"ecs", "DescribeClusters", &awsecs.DescribeClustersInput{Clusters: []string{*arn("ecs", "cluster/same")}}, "Identifier is for 111111111111. Your accountId is 222222222222"},
		{"ecs", "DescribeServices", &awsecs.DescribeServicesInput{Cluster: arn("ecs", "cluster/same"), Services: []string{"same"}}, "Identifier is for 111111111111. Your accountId is 222222222222"},
		{"ecs", "DescribeTasks", &awsecs.DescribeTasksInput{Tasks: []string{a.task}}, "Identifier is for 111111111111. Your accountId is 222222222222"},
		{"ecs", "StopTask", &awsecs.StopTaskInput{Task: &a.task}, "InvalidParameterException"},
		{"ecs", "RunTask", &awsecs.RunTaskInput{Cluster: arn("ecs", "cluster/same"), TaskDefinition: new("same")}, "Identifier is for 111111111111. Your accountId is 222222222222"},
		{"ecs", "DescribeTaskDefinition", &awsecs.DescribeTaskDefinitionInput{TaskDefinition: arn("ecs", "task-definition/same:1")}, "Identifier is for 111111111111. Your accountId is 222222222222"},
		{"ecs", "DeleteCluster", &awsecs.DeleteClusterInput{Cluster: arn("ecs", "cluster/same")}, "Identifier is for 111111111111. Your accountId is 222222222222"},
		{"ecs", "ListTagsForResource", &awsecs.ListTagsForResourceInput{ResourceArn: arn("ecs", "cluster/same")}, "AccessDeniedException"},
		{"ecs", "RunTask", &awsecs.RunTaskInput{TaskDefinition: new("same"), LaunchType: awsecs.LaunchTypeFargate,
			NetworkConfiguration: &awsecs.NetworkConfiguration{AwsvpcConfiguration: &awsecs.AwsVpcConfiguration{Subnets: []string{a.subnet}}}}, "InvalidParameterException"},
		{"ec2", "DescribeSubnets", &awsec2.DescribeSubnetsInput{SubnetIds: []string{a.subnet}}, "InvalidSubnetID.NotFound"},
		{"ec2", "DescribeVpcs", &awsec2.DescribeVpcsInput{VpcIds: []string{a.private[2]}}, "InvalidVpcID.NotFound"},
		{"ec2", "DescribeSecurityGroups", &awsec2.DescribeSecurityGroupsInput{GroupIds: []string{a.private[3]}}, "InvalidGroup.NotFound"},
		{"ec2", "DeleteSecurityGroup", &awsec2.DeleteSecurityGroupInput{GroupId: &a.private[3]}, "InvalidGroup.NotFound"},
		{"ec2", "DescribeInstances", &awsec2.DescribeInstancesInput{InstanceIds: []string{a.private[4]}}, "InvalidInstanceID.NotFound"},
		{"ec2", "TerminateInstances", &awsec2.TerminateInstancesInput{InstanceIds: []string{a.private[4]}}, "InvalidInstanceID.NotFound"},
		{"ec2", "GetConsoleOutput", &awsec2.GetConsoleOutputInput{InstanceId: &a.private[4]}, "InvalidInstanceID.NotFound"},
		{"ec2", "DescribeLaunchTemplateVersions", &awsec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: &a.private[5]}, "InvalidLaunchTemplateId.NotFound"},
		{"ec2", "DescribeKeyPairs", &awsec2.DescribeKeyPairsInput{KeyPairIds: []string{a.private[6]}}, "InvalidKeyPair.NotFound"},
		{"ec2", "DescribeImages", &awsec2.DescribeImagesInput{ImageIds: []string{a.private[7]}}, "InvalidAMIID.NotFound"},
		{"ec2", "DeregisterImage", &awsec2.DeregisterImageInput{ImageId: &a.private[7]}, "InvalidAMIID.NotFound"},
		{"ec2", "CancelSpotInstanceRequests", &awsec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{a.private[8]}}, "InvalidSpotInstanceRequestID.NotFound"},
		{"ssm", "GetParameter", &awsssm.GetParameterInput{Name: arn("ssm", "parameter/same")}, "ParameterNotFound"},
		{"ecr", "DescribeRepositories", &awsecr.DescribeRepositoriesInput{RegistryId: &a.id, RepositoryNames: []string{"same"}}, "AccessDeniedException"},
		{"ecr", "DeleteRepository", &awsecr.DeleteRepositoryInput{RegistryId: &a.id, RepositoryName: new("same")}, "AccessDeniedException"},
		{"logs", "ListTagsForResource", &awslogs.ListTagsForResourceInput{ResourceArn: arn("logs", "log-group:/same")}, "AccessDeniedException"},
		{"iam", "GetPolicy", &awsiam.GetPolicyInput{PolicyArn: new("arn:aws:iam::" + a.id + ":policy/same")}, "AccessDenied"},
		{"sts", "AssumeRole", &awssts.AssumeRoleInput{RoleArn: new("arn:aws:iam::" + a.id + ":role/same"), RoleSessionName: new("s1")}, "AccessDenied"},
	} {
		err := b.try(named[x.service], x.op, x.in, nil)
		if err == nil || wire.Code(err) != x.want && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s of what is account %s's: %v, want %s", x.op, a.id, err, x.want)
		}
	}
	a.do(named["ecr"], "DescribeRepositories", &awsecr.DescribeRepositoriesInput{RepositoryNames: []string{"same"}}, nil)
	a.do(named["ecs"], "DescribeServices", &awsecs.DescribeServicesInput{Services: []string{"same"}}, nil)
}

// closing is an ECS of which one call closes its caller's account before it writes.
type closing struct {
	awsecs.Unimplemented
	db  *store.DB
	now func() time.Time
}

func (c *closing) CreateCluster(ctx context.Context, in *awsecs.CreateClusterInput) (*awsecs.CreateClusterOutput, error) {
	who := auth.FromContext(ctx).Account
	// The owner's transaction, not the caller's.
	err := c.db.Update(context.Background(), func(tx *store.Tx) error {
		a, _ := state.Accounts.Get(tx, who)
		n := *a
		n.ClosingAt = c.now()
		state.Accounts.Put(tx, &n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nil, c.db.Update(ctx, func(tx *store.Tx) error {
		state.Clusters.Put(tx, &state.Cluster{ARN: "late", Account: who})
		return nil
	})
}

// A call that is under way when its account is closed leaves nothing behind,
// and sessions of an account are of no use in the one that follows it.
func TestClosedAccount(t *testing.T) {
	var db *store.DB
	r := startWith(t, func(c *service.Config) {
		db = c.DB
		for i := range c.Services {
			if c.Services[i].Name == "ecs" {
				c.Services[i] = service.Registration{Service: awsecs.NewService(&closing{db: c.DB, now: time.Now})}
			}
		}
	})
	session, err := r.sessions.Mint(auth.Session{Kind: auth.RootUser, Account: account, ARN: "arn:aws:iam::" + account + ":root", PrincipalID: account}, r.now.Add(-time.Minute), r.now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	res, body := r.signed("ecs", "application/x-amz-json-1.1", "AmazonEC2ContainerServiceV20141113.CreateCluster", "{}")
	if res.StatusCode != http.StatusBadRequest || !strings.Contains(body, `"__type":"UnrecognizedClientException"`) {
		t.Errorf("%s %s", res.Status, body)
	}
	if state.Clusters.Has(db.Snapshot(), "late") {
		t.Error("the call has written into the closed account")
	}
	if res, body = r.signed("iam", "application/x-www-form-urlencoded", "", "Action=ListUsers&Version=2010-05-08"); res.StatusCode != http.StatusForbidden || !strings.Contains(body, "InvalidClientTokenId") {
		t.Errorf("root of a closed account: %s %s", res.Status, body)
	}
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		state.Accounts.Delete(tx, account)
		iam.Furnish(tx, account, r.now.Add(2*time.Second))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url, strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	(&auth.Signer{AccessKeyID: session.AccessKeyID, Secret: session.Secret, Token: session.Token}).Sign(req, []byte("Action=GetCallerIdentity&Version=2011-06-15"), "sts", region, time.Now())
	late, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Body.Close()
	if late.StatusCode != http.StatusForbidden {
		t.Errorf("a session of the account before: %s", late.Status)
	}
}
