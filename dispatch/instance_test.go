package dispatch_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/dispatch"
	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// machine puts an instance on the node n1, with a profile.
func (w *world) machine(f ...func(*state.Instance)) {
	image := state.AmazonImages("eu-west-1")[slices.IndexFunc(state.AmazonImages("eu-west-1"), func(i *state.MachineImage) bool { return i.ECS })]
	w.put(func(tx *store.Tx) {
		i := &state.Instance{ID: "i-1", Account: account, VPC: "vpc-1", Subnet: "subnet-1", Zone: "eu-west-1a", Type: "t3.small", Image: image.ID, Reservation: "r-1",
			Profile: "arn:aws:iam::" + account + ":instance-profile/machines", Metadata: state.InstanceMetadata{Enabled: true, TokenRequired: true, HopLimit: 2, Tags: true},
			Tags: []state.Tag{{Key: "Name", Value: "one"}, {Key: "a/b", Value: "x"}}, UserData: []byte("#!"), Want: "running", Boots: 1, State: "pending", Node: "n1", LaunchedAt: w.now()}
		for _, f := range f {
			f(i)
		}
		state.Instances.Put(tx, i)
		state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-m", Account: account, VPC: "vpc-1", Subnet: "subnet-1", Zone: "eu-west-1a", Address: netip.MustParseAddr("172.31.0.9"),
			Public: netip.MustParseAddr("198.18.0.5"), MAC: "02:00:00:00:00:09", Groups: []string{"sg-1"}, Type: "interface", Node: "n1", PrivateDNSName: "ip-172-31-0-9.eu-west-1.compute.internal",
			Attachment: &state.InterfaceAttachment{Instance: "i-1", DeleteOnTermination: true}})
		state.InstanceProfiles.Put(tx, &state.InstanceProfile{Account: account, Path: "/", Name: "machines", ID: "AIPA1", Role: "machines"})
		state.Roles.Put(tx, &state.Role{Account: account, Path: "/", Name: "machines", ID: "AROA1"})
	})
}

// toldOf reads frames until one speaks of instances.
func (p *peer) toldOf() fabric.Desired {
	for {
		if d := p.desired(); len(d.Instances)+len(d.GoneInstances) > 0 {
			return d
		}
	}
}

// A node is told of its instances, what their metadata service answers, and
// the credentials of their roles, which are made anew before they end; what it
// says of them is written down.
func TestInstanceStream(t *testing.T) {
	w := newWorld(t)
	if err := dispatch.IdentityKey(t.Context(), w.db); err != nil {
		t.Fatal(err)
	}
	w.machine()
	p := w.dial(fabric.Path)
	p.json(fabric.Hello{Name: "n1", CPU: 4096, Memory: 8192})
	d := p.toldOf()
	i := d.Instances[0]
	if i.ID != "i-1" || i.Interface != "eni-m" || i.CPU != 2048 || i.Memory != 2048 || !i.Run || i.Boots != 1 || !i.Agent || i.Attributes["ecs.instance-type"] != "t3.small" || i.Tags["Name"] != "one" {
		t.Errorf("told %+v", i)
	}
	for path, want := range map[string]string{
		"meta-data/instance-id": "i-1", "meta-data/local-ipv4": "172.31.0.9", "meta-data/public-ipv4": "198.18.0.5", "meta-data/hostname": "ip-172-31-0-9.eu-west-1.compute.internal",
		"meta-data/placement/region": "eu-west-1", "meta-data/placement/availability-zone": "eu-west-1a", "meta-data/mac": "02:00:00:00:00:09", "meta-data/reservation-id": "r-1",
		"meta-data/network/interfaces/macs/02:00:00:00:00:09/vpc-id": "vpc-1", "meta-data/network/interfaces/macs/02:00:00:00:00:09/device-number": "0",
		"meta-data/network/interfaces/macs/02:00:00:00:00:09/subnet-ipv4-cidr-block": "172.31.0.0/20", "meta-data/network/interfaces/macs/02:00:00:00:00:09/ipv4-associations/198.18.0.5": "172.31.0.9",
		"meta-data/tags/instance/Name": "one", "meta-data/services/domain": "amazonaws.com", "meta-data/instance-life-cycle": "on-demand",
	} {
		if got := i.Metadata.Paths[path]; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if _, ok := i.Metadata.Paths["meta-data/tags/instance/a/b"]; ok {
		t.Error("a tag makes a folder")
	}
	var document map[string]any
	text := i.Metadata.Paths["dynamic/instance-identity/document"]
	if err := json.Unmarshal([]byte(text), &document); err != nil || document["instanceId"] != "i-1" || document["accountId"] != account || document["region"] != "eu-west-1" || document["privateIp"] != "172.31.0.9" || document["architecture"] != "x86_64" {
		t.Errorf("document %s, %v", text, err)
	}
	key, _ := state.IdentityKeys.Get(w.db.Snapshot(), state.IdentityKeyName)
	signature := i.Metadata.Paths["dynamic/instance-identity/signature"]
	if !key.Signed(text, signature) || key.Signed(text+" ", signature) || key.Signed(text, "x") {
		t.Errorf("signature %q", signature)
	}
	first := i.Credentials
	if first == nil || first.Role != "machines" || first.Token != "i-1 by ec2.amazonaws.com" {
		t.Fatalf("credentials %+v", first)
	}

	// The same while nothing concerns them.
	w.put(func(tx *store.Tx) {
		n, _ := state.Instances.Get(tx, "i-1")
		c := *n
		c.Boots = 2
		state.Instances.Put(tx, &c)
	})
	if i = p.toldOf().Instances[0]; i.Boots != 2 || i.Credentials.AccessKeyID != first.AccessKeyID {
		t.Errorf("told %+v", i)
	}
	w.pass(3 * time.Hour)
	for i.Credentials.AccessKeyID == first.AccessKeyID {
		i = p.toldOf().Instances[0]
	}

	p.json(fabric.Report{Instances: []fabric.InstanceStatus{{ID: "i-1", State: "running", Boots: 2, Console: "hello", ConsoleAt: w.now()}, {ID: "i-none", State: "running"}}})
	w.until("the report", func(s *store.Snapshot) bool {
		i, _ := state.Instances.Get(s, "i-1")
		c, ok := state.Consoles.Get(s, "i-1")
		return i.ReportedState == "running" && i.ReportedBoots == 2 && ok && string(c.Output) == "hello"
	})
	// One that is to stay is not gone because a node says so.
	p.json(fabric.Report{Instances: []fabric.InstanceStatus{{ID: "i-1", State: "gone", Boots: 2}}})
	w.until("the report", func(s *store.Snapshot) bool {
		i, _ := state.Instances.Get(s, "i-1")
		return i.ReportedState == "stopped"
	})
	w.put(func(tx *store.Tx) {
		n, _ := state.Instances.Get(tx, "i-1")
		c := *n
		c.Want = "terminated"
		state.Instances.Put(tx, &c)
	})
	if d := p.toldOf(); len(d.GoneInstances) != 1 || d.GoneInstances[0] != "i-1" {
		t.Errorf("told %+v", d)
	}
	// Another stream names it until the node has said that nothing is left.
	again := w.dial(fabric.Path)
	again.json(fabric.Hello{Name: "n1", CPU: 4096, Memory: 8192})
	if d := again.toldOf(); !d.Full || len(d.GoneInstances) != 1 {
		t.Errorf("told %+v", d)
	}
	again.json(fabric.Report{Instances: []fabric.InstanceStatus{{ID: "i-1", State: "gone", Boots: 2}}})
	w.until("the report", func(s *store.Snapshot) bool {
		i, _ := state.Instances.Get(s, "i-1")
		return i.ReportedState == "gone"
	})
}

// An instance whose role is not for instances gets no credentials.
func TestInstanceWithoutARole(t *testing.T) {
	w := newWorld(t)
	w.bad = "arn:aws:iam::" + account + ":role/machines"
	w.machine()
	p := w.dial(fabric.Path)
	p.json(fabric.Hello{Name: "n1", CPU: 4096, Memory: 8192})
	if i := p.toldOf().Instances[0]; i.Credentials != nil {
		t.Errorf("credentials %+v", i.Credentials)
	}
}

// The node has a password for the root of an instance until that has booted for
// the first time, renewed before it ends, and for nobody else's.
func TestPullPassword(t *testing.T) {
	w := newWorld(t)
	const ami, other = "ami-1", "000000000007" // shared by another account
	w.machine(func(i *state.Instance) { i.Image = ami })
	w.put(func(tx *store.Tx) {
		state.MachineImages.Put(tx, &state.MachineImage{ID: ami, Account: other, Name: "m", Architecture: "x86_64", Public: true, Root: state.RootImage(other, "eu-west-1", "a/b", "sha256:1")})
	})
	p := w.dial(fabric.Path)
	p.json(fabric.Hello{Name: "n1", CPU: 4096, Memory: 8192})
	i := p.toldOf().Instances[0]
	first := i.RootPassword
	if i.Root != other+".dkr.ecr.eu-west-1.amazonaws.com/a/b@sha256:1" || !strings.HasPrefix(first, other+"/a/b until ") {
		t.Fatalf("root %q with %q", i.Root, first)
	}
	w.pass(4 * time.Hour)
	for i.RootPassword == first {
		i = p.toldOf().Instances[0]
	}
	p.json(fabric.Report{Instances: []fabric.InstanceStatus{{ID: "i-1", State: "running", Boots: 1}}})
	for i.RootPassword != "" {
		i = p.toldOf().Instances[0]
	}
}
