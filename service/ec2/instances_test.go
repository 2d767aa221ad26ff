package ec2

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// computing is a bench with a machine and an image for it.
func computing(t *testing.T) (*bench, string) {
	b := newBench(t)
	b.put(func(tx *store.Tx) {
		region, _ := state.Regions.Get(tx, state.RegionKey)
		next := *region
		next.PublicPool = netip.MustParsePrefix("198.18.0.0/24")
		state.Regions.Put(tx, &next)
		state.Nodes.Put(tx, &state.Node{Name: "n", CPU: 4096, Memory: 8192})
	})
	for _, i := range state.AmazonImages("eu-west-1") {
		if i.Architecture == "x86_64" && i.IMDS == "" && i.ECS {
			return b, i.ID
		}
	}
	t.Fatal("no image")
	return nil, ""
}

func (b *bench) set(id string, f func(*state.Instance)) {
	b.Helper()
	b.put(func(tx *store.Tx) {
		i, ok := state.Instances.Get(tx, id)
		if !ok {
			b.Fatalf("no instance %s", id)
		}
		n := *i
		f(&n)
		state.Instances.Put(tx, &n)
	})
}

func TestWhatALaunchRefuses(t *testing.T) {
	b, ami := computing(t)
	subnet := *try(b, b.DescribeSubnets, `{}`).Subnets[0].SubnetId
	try(b, b.CreateLaunchTemplate, `{"LaunchTemplateName":"web","LaunchTemplateData":{"NetworkInterfaces":[{"DeviceIndex":0,"AssociatePublicIpAddress":true}]}}`)
	arm := ""
	for _, i := range state.AmazonImages("eu-west-1") {
		if i.Architecture == "arm64" {
			arm = i.ID
		}
	}
	many := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("x"), 16<<10+1))
	for _, x := range []struct{ body, want string }{
		{`"InstanceType":"t3.micro"`, `MissingParameter: The request must contain the parameter ImageId`},
		{`"ImageId":"ami-0123","InstanceType":"t3.micro"`, `InvalidAMIID.NotFound: The image id '[ami-0123]' does not exist`},
		{`"ImageId":"x","InstanceType":"t3.micro"`, `InvalidAMIID.Malformed: Invalid id: "x" (expecting "ami-...")`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.huge"`, `InvalidParameterValue: Invalid value 't3.huge' for InstanceType.`},
		{`"ImageId":"` + ami + `","InstanceType":"m5.24xlarge"`, `InsufficientInstanceCapacity: We currently do not have sufficient m5.24xlarge capacity in the Availability Zone you requested (eu-west-1a). Our system will be working on provisioning additional capacity. No machine of this region has the architecture x86_64 and 386924 MiB of memory.`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","KeyName":"none"`, `InvalidKeyPair.NotFound: The key pair 'none' does not exist`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","SubnetId":"subnet-1"`, `InvalidSubnetID.NotFound: The subnet ID 'subnet-1' does not exist`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","SecurityGroupIds":["sg-1"]`, `InvalidGroup.NotFound: The security group 'sg-1' does not exist in VPC '` + b.vpc() + `'`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","UserData":"!"`, `InvalidUserData.Malformed: Invalid BASE64 encoding of user data.`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","UserData":"` + many + `"`, `InvalidParameterValue: User data is limited to 16384 bytes`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","IamInstanceProfile":{"Name":"none"}`, `InvalidParameterValue: Value (none) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","PrivateIpAddress":"10.0.0.1"`, `InvalidParameterValue: Address does not fall within the subnet's address range`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","PrivateIpAddress":"172.31.0.1"`, `InvalidParameterValue: Address does not fall within the subnet's address range`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","SubnetId":"` + subnet + `","LaunchTemplate":{"LaunchTemplateName":"web"}`, `InvalidParameterCombination: Network interfaces and an instance-level subnet ID may not be specified on the same request`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","NetworkInterfaces":[{"DeviceIndex":0},{"DeviceIndex":1},{"DeviceIndex":2}]`, `AttachmentLimitExceeded: Interface count 3 exceeds the limit for t3.micro`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","NetworkInterfaces":[{"DeviceIndex":1}]`, `InvalidParameterValue: A network interface with device index 0 is required.`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","NetworkInterfaces":[{"DeviceIndex":0,"AssociatePublicIpAddress":true},{"DeviceIndex":1}]`, `InvalidParameterCombination: The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.`},
		{`"ImageId":"` + ami + `","InstanceType":"m5.large","CreditSpecification":{"CpuCredits":"standard"}`, `InvalidParameterCombination: The instance type 'm5.large' does not support CreditSpecification.`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","HibernationOptions":{"Configured":true}`, `UnsupportedOperation: Hibernation is not supported here.`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","LaunchTemplate":{"LaunchTemplateName":"none"}`, `InvalidLaunchTemplateName.NotFoundException: The specified launch template, with template name none, does not exist.`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","LaunchTemplate":{"LaunchTemplateName":"web","Version":"9"}`, `InvalidLaunchTemplateId.VersionNotFound: Could not find launch template version 9`},
		{`"ImageId":"` + ami + `","InstanceType":"t3.micro","TagSpecifications":[{"ResourceType":"vpc","Tags":[{"Key":"a","Value":"b"}]}]`, `InvalidParameterValue: 'vpc' is not a valid taggable resource type for this operation.`},
	} {
		refuse(b, b.RunInstances, `{"MinCount":1,"MaxCount":1,`+x.body+`}`, x.want)
	}
	refuse(b, b.RunInstances, `{"MinCount":2,"MaxCount":1,"ImageId":"`+ami+`","InstanceType":"t3.micro"}`, `InvalidParameterValue: Value (1) for parameter maxCount is invalid. It must be at least minCount.`)
	_, err := b.RunInstances(t.Context(), read[api.RunInstancesInput](b, `{"MinCount":1,"MaxCount":1,"ImageId":"`+arm+`","InstanceType":"t3.micro"}`))
	if err == nil || !strings.Contains(err.Error(), "does not match the architecture 'arm64'") {
		t.Errorf("an image of another architecture: %v", err)
	}
	// Nothing was left behind by all that.
	snap := b.db.Snapshot()
	for range state.Instances.All(snap) {
		t.Error("an instance came of a refusal")
	}
	for range state.AddressLeases.All(snap) {
		t.Error("an address was taken by a refusal")
	}
}

func TestLaunchWithInterfaces(t *testing.T) {
	b, ami := computing(t)
	group := b.create("web")
	out := try(b, b.RunInstances, `{"MinCount":1,"MaxCount":1,"ImageId":"`+ami+`","InstanceType":"t3.medium","UserData":"aGk=","DisableApiTermination":true,
		"MetadataOptions":{"HttpTokens":"required","HttpPutResponseHopLimit":3},"Placement":{"AvailabilityZone":"eu-west-1a","Tenancy":"dedicated"},
		"BlockDeviceMappings":[{"DeviceName":"/dev/xvda","Ebs":{"VolumeSize":50,"VolumeType":"gp2"}}],
		"NetworkInterfaces":[{"DeviceIndex":1,"Description":"second","DeleteOnTermination":false,"SecondaryPrivateIpAddressCount":2},
			{"DeviceIndex":0,"Groups":["`+group+`"],"PrivateIpAddress":"172.31.0.77","AssociatePublicIpAddress":false}],
		"TagSpecifications":[{"ResourceType":"instance","Tags":[{"Key":"Name","Value":"a"}]},{"ResourceType":"volume","Tags":[{"Key":"v","Value":"1"}]},{"ResourceType":"network-interface","Tags":[{"Key":"n","Value":"1"}]}]}`)
	i := out.Instances[0]
	if *i.PrivateIpAddress != "172.31.0.77" || i.PublicIpAddress != nil || i.State.Name != "pending" || *i.State.Code != 0 || i.Placement.Tenancy != "dedicated" ||
		*i.SecurityGroups[0].GroupId != group || *i.PrivateDnsName != "ip-172-31-0-77.eu-west-1.compute.internal" || len(i.NetworkInterfaces) != 2 {
		t.Fatalf("%+v", i)
	}
	second := i.NetworkInterfaces[1]
	if *second.Attachment.DeviceIndex != 1 || *second.Attachment.DeleteOnTermination || *second.Description != "second" || len(second.PrivateIpAddresses) != 3 || second.Attachment.Status != "attaching" {
		t.Errorf("%+v", second)
	}
	id := *i.InstanceId
	for filter, want := range map[string]int{
		`{"Name":"network-interface.description","Values":["second"]}`: 1, `{"Name":"private-ip-address","Values":["172.31.0.77"]}`: 1, `{"Name":"tag:Name","Values":["a","b"]}`: 1,
		`{"Name":"instance-state-name","Values":["running"]}`: 0, `{"Name":"instance.group-id","Values":["` + group + `"]}`: 1, `{"Name":"instance-type","Values":["t3.*"]}`: 1,
		`{"Name":"metadata-options.http-tokens","Values":["optional"]}`: 0, `{"Name":"reservation-id","Values":["` + *out.ReservationId + `"]}`: 1,
		`{"Name":"iam-instance-profile.arn","Values":["*"]}`: 0, `{"Name":"network-interface.tag-key","Values":["n"]}`: 1, `{"Name":"network-interface.addresses.private-ip-address","Values":["172.31.0.77"]}`: 1,
	} {
		if got := try(b, b.DescribeInstances, `{"Filters":[`+filter+`]}`).Reservations; len(got) != want {
			t.Errorf("%s finds %d", filter, len(got))
		}
	}
	refuse(b, b.DescribeInstances, `{"Filters":[{"Name":"colour","Values":["red"]}]}`, `InvalidParameterValue: The filter 'colour' is invalid`)
	v := try(b, b.DescribeVolumes, `{}`).Volumes
	if len(v) != 1 || *v[0].Size != 50 || v[0].VolumeType != "gp2" || *v[0].Tags[0].Key != "v" || *v[0].VolumeId != *i.BlockDeviceMappings[0].Ebs.VolumeId {
		t.Errorf("volumes %+v", v)
	}
	refuse(b, b.RunInstances, `{"MinCount":1,"MaxCount":1,"ImageId":"`+ami+`","InstanceType":"t3.micro","PrivateIpAddress":"172.31.0.77"}`, `InvalidIPAddress.InUse: Address [172.31.0.77] is in use.`)

	// States and what they refuse.
	refuse(b, b.TerminateInstances, `{"InstanceIds":["`+id+`"]}`, `OperationNotPermitted: The instance '`+id+`' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.`)
	refuse(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","InstanceType":{"Value":"t3.large"}}`, `IncorrectInstanceState: The instance '`+id+`' is not in the 'stopped' state.`)
	refuse(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","Groups":["`+group+`"]}`, `InvalidInstanceID: There are multiple interfaces attached to instance '`+id+`'. Please specify an interface ID for the operation instead.`)
	refuse(b, b.DescribeInstances, `{"InstanceIds":["i-0123","i-0124"]}`, `InvalidInstanceID.NotFound: The instance IDs 'i-0123, i-0124' do not exist`)
	refuse(b, b.StopInstances, `{"InstanceIds":["x"]}`, `InvalidInstanceID.Malformed: Invalid id: "x"`)
	if s := try(b, b.DescribeInstanceStatus, `{}`).InstanceStatuses; len(s) != 0 {
		t.Errorf("a pending instance has a status: %+v", s)
	}
	b.set(id, func(i *state.Instance) {
		i.State, i.Node, i.ReportedState, i.ReportedBoots = "running", "n", "running", 1
	})
	status := func() string {
		s := try(b, b.DescribeInstanceStatus, `{"InstanceIds":["`+id+`"]}`).InstanceStatuses[0]
		return fmt.Sprint(s.InstanceStatus.Status, " ", s.SystemStatus.Status)
	}
	if got := status(); got != "ok ok" {
		t.Errorf("running is %s", got)
	}
	try(b, b.RebootInstances, `{"InstanceIds":["`+id+`"]}`)
	if got := status(); got != "initializing ok" {
		t.Errorf("rebooting is %s", got)
	}
	b.set(id, func(i *state.Instance) { i.Failure = "no root" })
	if got := status(); got != "impaired ok" {
		t.Errorf("failed is %s", got)
	}
	try(b, b.StopInstances, `{"InstanceIds":["`+id+`"]}`)
	refuse(b, b.StartInstances, `{"InstanceIds":["`+id+`"]}`, `IncorrectInstanceState: The instance '`+id+`' is not in a state from which it can be started.`)
	b.set(id, func(i *state.Instance) { i.State = "stopped" })
	refuse(b, b.RebootInstances, `{"InstanceIds":["`+id+`"]}`, `IncorrectInstanceState: The instance '`+id+`' is not in the 'running' state.`)
	refuse(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","InstanceType":{"Value":"t4g.large"}}`, `InvalidInstanceAttributeValue: The architecture 'arm64' of the specified instance type does not match the architecture 'x86_64' of the instance.`)
	refuse(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","InstanceType":{"Value":"t3.nano"}}`, `InvalidInstanceAttributeValue: Number of private addresses of `+*second.NetworkInterfaceId+` exceeds the limit for t3.nano`)
	try(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","InstanceType":{"Value":"t3.large"}}`)
	try(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","Attribute":"userData","Value":"Ynll"}`)
	try(b, b.ModifyInstanceAttribute, `{"InstanceId":"`+id+`","DisableApiTermination":{"Value":false}}`)
	if a := try(b, b.DescribeInstanceAttribute, `{"InstanceId":"`+id+`","Attribute":"userData"}`); *a.UserData.Value != "Ynll" {
		t.Errorf("user data %+v", a.UserData)
	}
	d := try(b, b.GetLaunchTemplateData, `{"InstanceId":"`+id+`"}`).LaunchTemplateData
	if d.InstanceType != "t3.large" || *d.UserData != "Ynll" || d.MetadataOptions.HttpTokens != "required" || len(d.NetworkInterfaces) != 2 {
		t.Errorf("template %+v", d)
	}
	try(b, b.TerminateInstances, `{"InstanceIds":["`+id+`"]}`)
	b.set(id, func(i *state.Instance) { i.State = "terminated" })
	gone := try(b, b.DescribeInstances, `{"InstanceIds":["`+id+`"]}`).Reservations[0].Instances[0]
	if gone.VpcId != nil || len(gone.NetworkInterfaces) != 0 || *gone.StateReason.Code != "Client.UserInitiatedShutdown" || !strings.HasPrefix(*gone.StateTransitionReason, "User initiated (2026-11-22 12:00:00 GMT)") {
		t.Errorf("%+v", gone)
	}
	if v := try(b, b.DescribeVolumes, `{}`).Volumes; len(v) != 0 {
		t.Errorf("volumes of a terminated instance: %+v", v)
	}
}

func TestFewerInstancesWhereAddressesEnd(t *testing.T) {
	b, ami := computing(t)
	subnet := *try(b, b.CreateSubnet, `{"VpcId":"`+b.vpc()+`","CidrBlock":"172.31.200.0/28","AvailabilityZone":"eu-west-1a"}`).Subnet.SubnetId
	out := try(b, b.RunInstances, `{"MinCount":5,"MaxCount":20,"ImageId":"`+ami+`","InstanceType":"t3.micro","SubnetId":"`+subnet+`"}`)
	if len(out.Instances) != 11 {
		t.Errorf("%d instances in a subnet of 11 addresses", len(out.Instances))
	}
	refuse(b, b.RunInstances, `{"MinCount":1,"MaxCount":1,"ImageId":"`+ami+`","InstanceType":"t3.micro","SubnetId":"`+subnet+`"}`, `InsufficientFreeAddressesInSubnet: There are not enough free addresses in subnet '`+subnet+`' to satisfy the requested number of instances.`)
}

func TestLaunchTemplates(t *testing.T) {
	b, ami := computing(t)
	lt := try(b, b.CreateLaunchTemplate, `{"LaunchTemplateName":"web","VersionDescription":"one","LaunchTemplateData":{"ImageId":"`+ami+`","InstanceType":"t3.micro","EbsOptimized":true}}`).LaunchTemplate
	refuse(b, b.CreateLaunchTemplate, `{"LaunchTemplateName":"web","LaunchTemplateData":{}}`, `InvalidLaunchTemplateName.AlreadyExistsException: Launch template name already in use.`)
	refuse(b, b.CreateLaunchTemplate, `{"LaunchTemplateName":"bad","LaunchTemplateData":{"SecurityGroupIds":["sg-1"],"NetworkInterfaces":[{"DeviceIndex":0}]}}`, `InvalidParameterCombination: Network interfaces and an instance-level security groups may not be specified on the same request`)
	v2 := try(b, b.CreateLaunchTemplateVersion, `{"LaunchTemplateName":"web","SourceVersion":"$Latest","LaunchTemplateData":{"InstanceType":"t3.small","ImageId":"resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2/recommended/image_id"}}`).LaunchTemplateVersion
	if *v2.VersionNumber != 2 || v2.LaunchTemplateData.InstanceType != "t3.small" || !*v2.LaunchTemplateData.EbsOptimized || *v2.DefaultVersion {
		t.Errorf("%+v", v2)
	}
	versions := try(b, b.DescribeLaunchTemplateVersions, `{"LaunchTemplateId":"`+*lt.LaunchTemplateId+`","ResolveAlias":true}`).LaunchTemplateVersions
	if len(versions) != 2 || *versions[0].VersionNumber != 2 || !strings.HasPrefix(*versions[0].LaunchTemplateData.ImageId, "ami-") || *versions[1].VersionDescription != "one" {
		t.Errorf("%+v", versions)
	}
	try(b, b.ModifyLaunchTemplate, `{"LaunchTemplateName":"web","DefaultVersion":"2"}`)
	out := try(b, b.DeleteLaunchTemplateVersions, `{"LaunchTemplateName":"web","Versions":["1","2","7"]}`)
	if len(out.SuccessfullyDeletedLaunchTemplateVersions) != 1 || len(out.UnsuccessfullyDeletedLaunchTemplateVersions) != 2 || out.UnsuccessfullyDeletedLaunchTemplateVersions[1].ResponseError.Code != "launchTemplateVersionDoesNotExist" {
		t.Errorf("%+v", out)
	}
	// The request counts over the template.
	i := try(b, b.RunInstances, `{"MinCount":1,"MaxCount":1,"InstanceType":"t3.medium","LaunchTemplate":{"LaunchTemplateName":"web"}}`).Instances[0]
	if i.InstanceType != "t3.medium" || !*i.EbsOptimized {
		t.Errorf("%+v", i)
	}
	try(b, b.DeleteLaunchTemplate, `{"LaunchTemplateName":"web"}`)
	refuse(b, b.DescribeLaunchTemplates, `{"LaunchTemplateIds":["`+*lt.LaunchTemplateId+`"]}`, `InvalidLaunchTemplateId.NotFound: The specified launch template, with template ID `+*lt.LaunchTemplateId+`, does not exist.`)
	for range state.LaunchTemplateVersions.All(b.db.Snapshot()) {
		t.Error("a version is left of a template that is gone")
	}
}

// Every member of a template's data comes back as it was sent.
func TestTemplatesRoundTrip(t *testing.T) {
	b, ami := computing(t)
	data := `{"ImageId":"` + ami + `","InstanceType":"t3.micro","KeyName":"k","EbsOptimized":true,"Monitoring":{"Enabled":true},"DisableApiTermination":true,"DisableApiStop":true,
		"InstanceInitiatedShutdownBehavior":"terminate","IamInstanceProfile":{"Name":"p"},"CreditSpecification":{"CpuCredits":"standard"},"CpuOptions":{"CoreCount":1,"ThreadsPerCore":1},
		"BlockDeviceMappings":[{"DeviceName":"/dev/xvda","Ebs":{"VolumeSize":20,"VolumeType":"gp3","Encrypted":true,"DeleteOnTermination":true}}],
		"NetworkInterfaces":[{"DeviceIndex":0,"AssociatePublicIpAddress":true,"DeleteOnTermination":true,"Groups":["sg-1"],"SubnetId":"subnet-1","Ipv6Addresses":[{"Ipv6Address":"fd00::1"}]}],
		"Placement":{"AvailabilityZone":"eu-west-1a","Tenancy":"default"},"MetadataOptions":{"HttpTokens":"required","HttpPutResponseHopLimit":2,"HttpEndpoint":"enabled","InstanceMetadataTags":"enabled"},
		"InstanceMarketOptions":{"MarketType":"spot","SpotOptions":{"MaxPrice":"0.1","SpotInstanceType":"one-time"}},"TagSpecifications":[{"ResourceType":"instance","Tags":[{"Key":"a","Value":"b"}]}],
		"UserData":"aGk=","HibernationOptions":{"Configured":false},"EnclaveOptions":{"Enabled":false},"MaintenanceOptions":{"AutoRecovery":"disabled"},"PrivateDnsNameOptions":{"HostnameType":"ip-name"},
		"LicenseSpecifications":[{"LicenseConfigurationArn":"arn:l"}],"CapacityReservationSpecification":{"CapacityReservationPreference":"none"}}`
	try(b, b.CreateLaunchTemplate, `{"LaunchTemplateName":"all","LaunchTemplateData":`+data+`}`)
	got, err := json.Marshal(try(b, b.DescribeLaunchTemplateVersions, `{"LaunchTemplateName":"all"}`).LaunchTemplateVersions[0].LaunchTemplateData)
	if err != nil {
		t.Fatal(err)
	}
	var sent, back map[string]any
	if json.Unmarshal([]byte(data), &sent) != nil || json.Unmarshal(got, &back) != nil {
		t.Fatal("no JSON")
	}
	for name, v := range sent {
		if fmt.Sprint(back[name]) != fmt.Sprint(v) {
			t.Errorf("%s: sent %v, shown %v", name, v, back[name])
		}
	}
}

func TestKeyPairs(t *testing.T) {
	b := newBench(t)
	for _, kind := range []string{"rsa", "ed25519"} {
		k := try(b, b.CreateKeyPair, `{"KeyName":"`+kind+`","KeyType":"`+kind+`"}`)
		private, err := ssh.ParseRawPrivateKey([]byte(*k.KeyMaterial))
		if err != nil {
			t.Fatal(err)
		}
		shown := try(b, b.DescribeKeyPairs, `{"KeyNames":["`+kind+`"],"IncludePublicKey":true}`).KeyPairs[0]
		public, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(*shown.PublicKey))
		if err != nil || comment != kind {
			t.Fatalf("%q: %v", *shown.PublicKey, err)
		}
		signer, err := ssh.NewSignerFromKey(private)
		if err != nil || !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
			t.Errorf("%s: the two keys are no pair: %v", kind, err)
		}
		want := ""
		if kind == "rsa" {
			der, _ := x509.MarshalPKCS8PrivateKey(private)
			sum := sha1.Sum(der)
			want = colons(sum[:])
		} else {
			sum := sha256.Sum256(public.Marshal())
			want = base64.StdEncoding.EncodeToString(sum[:])
		}
		if *k.KeyFingerprint != want || *shown.KeyFingerprint != want {
			t.Errorf("%s fingerprint %s, want %s", kind, *k.KeyFingerprint, want)
		}
		refuse(b, b.CreateKeyPair, `{"KeyName":"`+kind+`"}`, `InvalidKeyPair.Duplicate: The keypair already exists: '`+kind+`'`)
	}
	ppk := *try(b, b.CreateKeyPair, `{"KeyName":"p","KeyType":"ed25519","KeyFormat":"ppk"}`).KeyMaterial
	if !strings.HasPrefix(ppk, "PuTTY-User-Key-File-2: ssh-ed25519\r\nEncryption: none\r\nComment: p\r\nPublic-Lines: 2\r\n") || !strings.Contains(ppk, "Private-MAC: ") {
		t.Errorf("%q", ppk)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	sum := md5.Sum(der)
	rfc := pem.EncodeToMemory(&pem.Block{Type: "SSH2 PUBLIC KEY", Bytes: public.Marshal()})
	for i, material := range [][]byte{ssh.MarshalAuthorizedKey(public), []byte(base64.StdEncoding.EncodeToString(der)),
		bytes.ReplaceAll(bytes.ReplaceAll(rfc, []byte("-----BEGIN"), []byte("---- BEGIN")), []byte("-----"), []byte(" ----"))} {
		in := &api.ImportKeyPairInput{KeyName: new(fmt.Sprint("import", i)), PublicKeyMaterial: material}
		out, err := b.ImportKeyPair(t.Context(), in)
		if err != nil || *out.KeyFingerprint != colons(sum[:]) {
			t.Errorf("import %s: %+v %v", material, out, err)
		}
	}
	refuse(b, b.ImportKeyPair, `{"KeyName":"x","PublicKeyMaterial":"eHh4"}`, `InvalidKey.Format: Key is not in valid OpenSSH public key format`)
	refuse(b, b.DescribeKeyPairs, `{"KeyNames":["none"]}`, `InvalidKeyPair.NotFound: The key pair 'none' does not exist`)
	try(b, b.DeleteKeyPair, `{"KeyName":"rsa"}`)
	if out := try(b, b.DeleteKeyPair, `{"KeyName":"rsa"}`); !*out.Return || out.KeyPairId != nil {
		t.Errorf("deleting again: %+v", out)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Yz3s8b3c5jz0mJ0n0k1q6p3w2e4r5t6y7u8i9o0pA a@b"))
	f.Add([]byte("---- BEGIN SSH2 PUBLIC KEY ----\nComment: x\nAAAA\n---- END SSH2 PUBLIC KEY ----"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKey(b)
		if err == nil && (k.kind == "" || k.fingerprint == "" || k.public == "") {
			t.Errorf("%q: %+v", b, k)
		}
	})
}

func FuzzParseLocation(f *testing.F) {
	f.Add("123456789012.dkr.ecr.eu-west-1.amazonaws.com/a/b:tag@sha256:1")
	f.Fuzz(func(t *testing.T, s string) {
		if l, ok := parseLocation(s); ok && (l.repository == "" || l.tag == "" || !state.IsAccountID(l.account)) {
			t.Errorf("%q: %+v", s, l)
		}
	})
}

func TestImages(t *testing.T) {
	b, ami := computing(t)
	if got := try(b, b.DescribeImages, `{"Owners":["amazon"],"Filters":[{"Name":"name","Values":["al2023-ami-ecs-hvm-*"]},{"Name":"architecture","Values":["x86_64"]}]}`).Images; len(got) != 1 || *got[0].ImageOwnerAlias != "amazon" || got[0].ImdsSupport != "v2.0" {
		t.Errorf("%+v", got)
	}
	other := "210987654321"
	repository := state.RepositoryKey(account, "os")
	b.put(func(tx *store.Tx) {
		state.Images.Put(tx, &state.Image{Repository: repository, Digest: "sha256:aa"})
		state.ImageTags.Put(tx, &state.ImageTag{Repository: repository, Tag: "v1", Digest: "sha256:aa"})
	})
	where := account + ".dkr.ecr.eu-west-1.amazonaws.com/os"
	refuse(b, b.RegisterImage, `{"Name":"mine","ImageLocation":"`+where+`:none"}`, `InvalidManifest: There is no image '`+where+`:none' in the registry of account `+account+` in eu-west-1.`)
	refuse(b, b.RegisterImage, `{"Name":"mine","ImageLocation":"docker.io/library/debian"}`, `InvalidAMIAttributeItemValue: Invalid attribute item value "docker.io/library/debian" for imageLocation: it must be an image in this region's registry, <account>.dkr.ecr.eu-west-1.amazonaws.com/repository:tag.`)
	id := *try(b, b.RegisterImage, `{"Name":"mine","ImageLocation":"`+where+`:v1","TagSpecifications":[{"ResourceType":"image","Tags":[{"Key":"berth:ecs-agent","Value":"true"}]}]}`).ImageId
	row, _ := state.MachineImages.Get(b.db.Snapshot(), id)
	if row.Root != where+"@sha256:aa" || !row.ECS {
		t.Errorf("%+v", row)
	}
	refuse(b, b.RegisterImage, `{"Name":"mine","ImageLocation":"`+where+`:v1"}`, `InvalidAMIName.Duplicate: AMI name mine is already in use by AMI `+id)
	see := func(as string) int {
		b.account = as
		defer func() { b.account = account }()
		return len(try(b, b.DescribeImages, `{"Filters":[{"Name":"image-id","Values":["`+id+`"]}]}`).Images)
	}
	if see(account) != 1 || see(other) != 0 {
		t.Error("a new image is not its owner's alone")
	}
	try(b, b.ModifyImageAttribute, `{"ImageId":"`+id+`","LaunchPermission":{"Add":[{"UserId":"`+other+`"}]}}`)
	if see(other) != 1 {
		t.Error("a shared image is not seen")
	}
	if p := try(b, b.DescribeImageAttribute, `{"ImageId":"`+id+`","Attribute":"launchPermission"}`).LaunchPermissions; len(p) != 1 || *p[0].UserId != other {
		t.Errorf("%+v", p)
	}
	b.account = other
	refuse(b, b.DeregisterImage, `{"ImageId":"`+id+`"}`, `AuthFailure: Not authorized for image:`+id)
	b.account = account
	try(b, b.ResetImageAttribute, `{"ImageId":"`+id+`","Attribute":"launchPermission"}`)
	if see(other) != 0 {
		t.Error("a permission is left")
	}
	copied := *try(b, b.CopyImage, `{"Name":"copy","SourceImageId":"`+ami+`","SourceRegion":"eu-west-1"}`).ImageId
	if i := try(b, b.DescribeImages, `{"Owners":["self"],"ImageIds":["`+copied+`"]}`).Images; len(i) != 1 || *i[0].SourceImageId != ami || *i[0].OwnerId != account || *i[0].Public {
		t.Errorf("%+v", i)
	}
	try(b, b.DeregisterImage, `{"ImageId":"`+id+`"}`)
	refuse(b, b.DescribeImages, `{"ImageIds":["`+id+`"]}`, `InvalidAMIID.NotFound: The image id '[`+id+`]' does not exist`)
	refuse(b, b.CreateImage, `{"InstanceId":"i-1","Name":"abc"}`, `UnsupportedOperation: Images are not made of instances here. Build an OCI image, push it to this region's registry, and register it with RegisterImage.`)
}

func TestProfilesOfInstances(t *testing.T) {
	b, ami := computing(t)
	b.put(func(tx *store.Tx) {
		for _, name := range []string{"p", "q"} {
			state.InstanceProfiles.Put(tx, &state.InstanceProfile{Account: account, Path: "/", Name: name, ID: "AIPA" + name})
		}
	})
	id := *try(b, b.RunInstances, `{"MinCount":1,"MaxCount":1,"ImageId":"`+ami+`","InstanceType":"t3.micro"}`).Instances[0].InstanceId
	a := try(b, b.AssociateIamInstanceProfile, `{"InstanceId":"`+id+`","IamInstanceProfile":{"Name":"p"}}`).IamInstanceProfileAssociation
	if a.State != "associating" || *a.IamInstanceProfile.Id != "AIPAp" {
		t.Errorf("%+v", a)
	}
	refuse(b, b.AssociateIamInstanceProfile, `{"InstanceId":"`+id+`","IamInstanceProfile":{"Name":"q"}}`, `IncorrectState: There is an existing association for instance `+id)
	n := try(b, b.ReplaceIamInstanceProfileAssociation, `{"AssociationId":"`+*a.AssociationId+`","IamInstanceProfile":{"Name":"q"}}`).IamInstanceProfileAssociation
	if l := try(b, b.DescribeIamInstanceProfileAssociations, `{}`).IamInstanceProfileAssociations; len(l) != 1 || *l[0].AssociationId != *n.AssociationId || l[0].State != "associated" {
		t.Errorf("%+v", l)
	}
	try(b, b.DisassociateIamInstanceProfile, `{"AssociationId":"`+*n.AssociationId+`"}`)
	refuse(b, b.DisassociateIamInstanceProfile, `{"AssociationId":"`+*n.AssociationId+`"}`, `InvalidAssociationID.NotFound: An invalid association-id of '`+*n.AssociationId+`' was given`)
}

func TestTypesAndOffers(t *testing.T) {
	b := newBench(t)
	out := try(b, b.DescribeInstanceTypes, `{"InstanceTypes":["t3.medium","m5.large"]}`).InstanceTypes
	if len(out) != 2 || *out[1].NetworkInfo.MaximumNetworkInterfaces != 3 || *out[1].VCpuInfo.DefaultVCpus != 2 || *out[1].MemoryInfo.SizeInMiB != 4096 {
		t.Errorf("%+v", out)
	}
	refuse(b, b.DescribeInstanceTypes, `{"InstanceTypes":["t3.huge"]}`, `InvalidInstanceType: The following supplied instance types do not exist: [t3.huge]`)
	offers := try(b, b.DescribeInstanceTypeOfferings, `{"LocationType":"availability-zone","Filters":[{"Name":"instance-type","Values":["t3.micro"]}]}`).InstanceTypeOfferings
	var places []string
	for _, o := range offers {
		places = append(places, *o.Location)
	}
	if !slices.Equal(places, []string{"eu-west-1a", "eu-west-1b", "eu-west-1c"}) {
		t.Errorf("%v", places)
	}
}

func TestSpot(t *testing.T) {
	b, ami := computing(t)
	s := try(b, b.RequestSpotInstances, `{"SpotPrice":"0.05","LaunchSpecification":{"ImageId":"`+ami+`","InstanceType":"t3.micro"},"TagSpecifications":[{"ResourceType":"spot-instances-request","Tags":[{"Key":"a","Value":"b"}]}]}`).SpotInstanceRequests[0]
	if s.State != "active" || *s.Status.Code != "fulfilled" || *s.SpotPrice != "0.05" || *s.Tags[0].Key != "a" {
		t.Errorf("%+v", s)
	}
	i := try(b, b.DescribeInstances, `{"InstanceIds":["`+*s.InstanceId+`"]}`).Reservations[0].Instances[0]
	if i.InstanceLifecycle != "spot" || *i.SpotInstanceRequestId != *s.SpotInstanceRequestId {
		t.Errorf("%+v", i)
	}
	_, err := b.StopInstances(t.Context(), &api.StopInstancesInput{InstanceIds: []string{*s.InstanceId}})
	if err == nil || !strings.Contains(err.Error(), "one-time Spot Instance request") {
		t.Errorf("stop: %v", err)
	}
	try(b, b.TerminateInstances, `{"InstanceIds":["`+*s.InstanceId+`"]}`)
	if l := try(b, b.DescribeSpotInstanceRequests, `{}`).SpotInstanceRequests; l[0].State != "closed" || *l[0].Status.Code != "instance-terminated-by-user" {
		t.Errorf("%+v", l)
	}
}
