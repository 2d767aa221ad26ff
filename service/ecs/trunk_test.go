package ecs

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/control"
	"github.com/berth-run/berth/control/address"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// With awsvpcTrunking on, an instance whose type can have a trunk registers
// with one, an interface of its own; tasks are counted by branches, and what
// the agent says of a trunk counts for nothing.
func TestTrunk(t *testing.T) {
	b := newBench(t)
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	machine := func(kind string) (id string, register func() string) {
		n++
		id = fmt.Sprintf("i-%017d", n)
		b.put(func(tx *store.Tx) {
			state.IdentityKeys.Put(tx, &state.IdentityKey{Secret: x509.MarshalPKCS1PrivateKey(key), Public: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
			state.Instances.Put(tx, &state.Instance{ID: id, Account: account, VPC: "vpc-1", Subnet: "subnet-1", Zone: "us-east-1a", Type: kind, Node: "n1", State: "running", Want: "running"})
			address := netip.AddrFrom4([4]byte{10, 0, 0, byte(200 + n)})
			state.NetworkInterfaces.Put(tx, &state.NetworkInterface{ID: "eni-of-" + id, Account: account, VPC: "vpc-1", Subnet: "subnet-1", Type: "interface", Groups: []string{"sg-1"}, Address: address,
				Attachment: &state.InterfaceAttachment{Instance: id, DeleteOnTermination: true}})
			state.AddressLeases.Put(tx, &state.AddressLease{Scope: "subnet-1", Address: address, ENI: "eni-of-" + id})
		})
		document := fmt.Sprintf(`{"instanceId":%q,"instanceType":%q,"availabilityZone":"us-east-1a"}`, id, kind)
		sum := sha256.Sum256([]byte(document))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		arn := ""
		return id, func() string {
			in := read[api.RegisterContainerInstanceInput](t, `{"cluster":"default","attributes":[{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.17"},{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.18"},
				{"name":"ecs.capability.task-eni"},{"name":"ecs.capability.task-cpu-mem-limit"},{"name":"ecs.vpc-id","value":"vpc-1"},{"name":"ecs.awsvpc-trunk-id","value":"eni-mine"}],
				"totalResources":[{"name":"CPU","type":"INTEGER","integerValue":8192},{"name":"MEMORY","type":"INTEGER","integerValue":8192}]}`)
			in.InstanceIdentityDocument, in.InstanceIdentityDocumentSignature = &document, new(base64.StdEncoding.EncodeToString(signature))
			if arn != "" {
				in.ContainerInstanceArn = &arn
			}
			out := try(b, b.RegisterContainerInstance, in).ContainerInstance
			arn = *out.ContainerInstanceArn
			b.agent(arn, true)
			for _, a := range out.Attributes {
				if *a.Name == "ecs.awsvpc-trunk-id" {
					return *a.Value
				}
			}
			return ""
		}
	}
	trunks := func(id string) (out []*state.NetworkInterface) {
		return slices.DeleteFunc(slices.Collect(state.NetworkInterfaces.By(b.db.Snapshot(), "instance", id)), func(e *state.NetworkInterface) bool { return e.Type != "trunk" })
	}
	without, register := machine("m5.large")
	if got := register(); got != "" || len(trunks(without)) > 0 {
		t.Errorf("trunk %q without the setting", got)
	}
	try(b, b.PutAccountSettingDefault, &api.PutAccountSettingDefaultInput{Name: api.SettingNameAwsvpcTrunking, Value: new("enabled")})
	small, register := machine("t3.medium")
	if got := register(); got != "" || len(trunks(small)) > 0 {
		t.Errorf("trunk %q on a t3", got)
	}
	large, register := machine("m5.large")
	id := register()
	made := trunks(large)
	if len(made) != 1 || made[0].ID != id || made[0].Attachment.Device != 1 || !made[0].Attachment.DeleteOnTermination || !made[0].RequesterManaged || !made[0].Address.IsValid() || made[0].Node != "n1" {
		t.Fatalf("trunk %q: %+v", id, made)
	}
	if l, ok := state.AddressLeases.Get(b.db.Snapshot(), state.LeaseKey("subnet-1", made[0].Address)); !ok || l.ENI != id {
		t.Errorf("the trunk's address is nobody's")
	}
	// It keeps the trunk, and gets no second one.
	try(b, b.PutAccountSettingDefault, &api.PutAccountSettingDefaultInput{Name: api.SettingNameAwsvpcTrunking, Value: new("disabled")})
	if again := register(); again != id || len(trunks(large)) != 1 {
		t.Errorf("trunk %q, was %q", again, id)
	}

	// m5.large: 3 interfaces, so 2 tasks without a trunk and 10 on one. t3.medium: 2.
	b.register(`{"family":"eni","networkMode":"awsvpc","containerDefinitions":[{"name":"a","image":"x","cpu":10,"memory":8}]}`)
	for range 2 {
		if out := b.boxes(`{"taskDefinition":"eni","count":7,"networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"]}}}`); len(out.Failures) > 0 {
			t.Fatalf("%+v", out.Failures)
		}
	}
	if out := b.boxes(`{"taskDefinition":"eni","count":1,"networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"]}}}`); len(out.Tasks) != 0 || *out.Failures[0].Reason != "RESOURCE:ENI" {
		t.Errorf("%s", pretty(out))
	}
	b.apply(func(in control.Input) control.Plan { return address.Plan(in) })
	kinds := map[string]int{}
	for e := range state.NetworkInterfaces.All(b.db.Snapshot()) {
		if e.Task != "" {
			kinds[e.Type]++
		}
	}
	if kinds["branch"] != 10 || kinds["interface"] != 4 {
		t.Errorf("interfaces of tasks: %v", kinds)
	}
}
