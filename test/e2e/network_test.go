package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/test/lab"
)

// group makes a security group, which goes with the test.
func (w *world) group(t *testing.T, name string) string {
	t.Helper()
	out := call[ec2.CreateSecurityGroupOutput](t, w, lab.EC2, "CreateSecurityGroup", &ec2.CreateSecurityGroupInput{
		GroupName: new(family(t) + "-" + name), Description: new("of a test")})
	t.Cleanup(func() {
		call[ec2.DeleteSecurityGroupOutput](t, w, lab.EC2, "DeleteSecurityGroup", &ec2.DeleteSecurityGroupInput{GroupId: out.GroupId})
	})
	return *out.GroupId
}

// tcp is a permission for one port, from addresses or from a group.
func tcp(port int32, from string) []ec2.IpPermission {
	p := ec2.IpPermission{IpProtocol: new("tcp"), FromPort: &port, ToPort: &port}
	if strings.HasPrefix(from, "sg-") {
		p.UserIdGroupPairs = []ec2.UserIdGroupPair{{GroupId: &from}}
	} else {
		p.IpRanges = []ec2.IpRange{{CidrIp: &from}}
	}
	return []ec2.IpPermission{p}
}

func (w *world) allow(t *testing.T, group string, p []ec2.IpPermission) {
	t.Helper()
	call[ec2.AuthorizeSecurityGroupIngressOutput](t, w, lab.EC2, "AuthorizeSecurityGroupIngress", &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: p})
}

func (w *world) revoke(t *testing.T, group string, p []ec2.IpPermission) {
	t.Helper()
	call[ec2.RevokeSecurityGroupIngressOutput](t, w, lab.EC2, "RevokeSecurityGroupIngress", &ec2.RevokeSecurityGroupIngressInput{GroupId: &group, IpPermissions: p})
}

// reaches waits until from can connect to an address, misses until it cannot.
// A rule that was changed acts a moment after the call.
func (k *task) reaches(to string) { k.t.Helper(); k.connects(to, true) }
func (k *task) misses(to string)  { k.t.Helper(); k.connects(to, false) }

func (k *task) connects(to string, want bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	last := ""
	err := lab.Until(ctx, func(context.Context) (bool, error) {
		_, err := k.try("/dial", "to", to, "wait", "700ms")
		last = fmt.Sprint(err)
		if !want && err != nil && !strings.Contains(last, "timeout") {
			return false, fmt.Errorf("want silence: %w", err)
		}
		return (err == nil) == want, nil
	})
	if err != nil {
		k.t.Errorf("connecting to %s (wanted: %v): %s: %v", to, want, last, err)
	}
}

// The page of a task opens from this machine by its public address and from
// other tasks by its private one; that is all a task has of the machine.
func TestAddresses(t *testing.T) {
	t.Parallel()
	w := shared
	d := w.define(t, boxes(w.box("app", "serve", "80")))
	a, b := w.start(t, d), w.start(t, d)
	a.wait("RUNNING")
	b.wait("RUNNING")
	if page := b.page("/"); !strings.HasPrefix(page, "page one of ip-") || !strings.Contains(page, " at "+b.private()+":80 ") {
		t.Errorf("page: %q", page)
	}
	var page string
	a.until("a opens the page of b", func(_ ecs.Task) bool {
		var err error
		page, err = a.try("/get", "url", "http://"+b.private()+"/")
		return err == nil
	})
	if !strings.Contains(page, " for "+a.private()+":") {
		t.Errorf("b sees a as %q, want %s", page, a.private())
	}
	// By its public address as well, and then it is seen by its own public one.
	if page := a.page("/get", "url", "http://"+b.public()+"/"); !strings.Contains(page, " for "+a.public()+":") {
		t.Errorf("b sees a as %q, want %s", page, a.public())
	}
	now := a.describe()
	if got := container(now, "app").NetworkInterfaces; len(got) != 1 || *got[0].PrivateIpv4Address != a.private() || *got[0].AttachmentId != *now.Attachments[0].Id {
		t.Errorf("network interfaces of the container: %s", show(got))
	}
	eni := call[ec2.DescribeNetworkInterfacesOutput](t, w, lab.EC2, "DescribeNetworkInterfaces",
		&ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{detail(now, "networkInterfaceId")}}).NetworkInterfaces[0]
	if *eni.MacAddress != detail(now, "macAddress") || *eni.SubnetId != detail(now, "subnetId") || eni.Status != "in-use" {
		t.Errorf("interface: %s", show(eni))
	}
}

// A security group admits what its rules say and nothing else, within a subnet
// too; a change acts on every new connection.
func TestSecurityGroups(t *testing.T) {
	t.Parallel()
	w := shared
	d := w.define(t, boxes(w.box("app", "serve", "80"), w.box("other", "serve", "81")))
	web := w.group(t, "web")
	clients := w.group(t, "clients")
	server, client, stranger := w.start(t, d, web), w.start(t, d, w.open, clients), w.start(t, d)
	for _, k := range []*task{server, client, stranger} {
		k.wait("RUNNING")
	}
	client.page("/")
	stranger.page("/")
	at, other := server.private()+":80", server.private()+":81"

	// No rule admits anybody, this machine neither.
	client.misses(at)
	if c, err := net.DialTimeout("tcp4", server.public()+":80", lab.Impatience); err == nil {
		c.Close()
		t.Error("this machine reaches a task whose group admits nobody")
	}

	// One port from an address.
	w.allow(t, web, tcp(80, client.private()+"/32"))
	client.reaches(at)
	client.misses(other)
	stranger.misses(at)
	w.revoke(t, web, tcp(80, client.private()+"/32"))
	client.misses(at)

	// One port from the members of a group, whoever they are.
	w.allow(t, web, tcp(80, clients))
	client.reaches(at)
	stranger.misses(at)
	late := w.start(t, d, w.open, clients)
	late.wait("RUNNING")
	late.page("/")
	late.reaches(at)
	w.revoke(t, web, tcp(80, clients))
	client.misses(at)

	// What is asked to be revoked and is not there, as in AWS.
	err := w.Root.Call(t.Context(), lab.EC2, "RevokeSecurityGroupIngress", &ec2.RevokeSecurityGroupIngressInput{GroupId: &web, IpPermissions: tcp(80, clients)}, nil)
	if codeOf(err) != "InvalidPermission.NotFound" {
		t.Errorf("revoking what is not there: %v", err)
	}
	// A group in use stays.
	err = w.Root.Call(t.Context(), lab.EC2, "DeleteSecurityGroup", &ec2.DeleteSecurityGroupInput{GroupId: &web}, nil)
	if codeOf(err) != "DependencyViolation" {
		t.Errorf("deleting a group in use: %v", err)
	}
}

// Egress is decided on its own: without a rule nothing leaves, whatever the
// other side admits.
func TestEgress(t *testing.T) {
	t.Parallel()
	w := shared
	d := w.define(t, boxes(w.box("app", "serve", "80")))
	closed := w.group(t, "closed")
	w.allow(t, closed, tcp(80, "0.0.0.0/0"))
	all := []ec2.IpPermission{{IpProtocol: new("-1"), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}}}
	call[ec2.RevokeSecurityGroupEgressOutput](t, w, lab.EC2, "RevokeSecurityGroupEgress", &ec2.RevokeSecurityGroupEgressInput{GroupId: &closed, IpPermissions: all})
	inside, outside := w.start(t, d, closed), w.start(t, d)
	inside.wait("RUNNING")
	outside.wait("RUNNING")
	outside.page("/")
	inside.page("/") // what is answered is not egress
	inside.misses(outside.private() + ":80")
	inside.misses(outside.public() + ":80")
	call[ec2.AuthorizeSecurityGroupEgressOutput](t, w, lab.EC2, "AuthorizeSecurityGroupEgress", &ec2.AuthorizeSecurityGroupEgressInput{GroupId: &closed, IpPermissions: tcp(80, outside.private()+"/32")})
	inside.reaches(outside.private() + ":80")
	inside.misses(outside.public() + ":80")
}

// The default group admits its own members and nobody else.
func TestDefaultGroup(t *testing.T) {
	t.Parallel()
	w := shared
	groups := call[ec2.DescribeSecurityGroupsOutput](t, w, lab.EC2, "DescribeSecurityGroups", &ec2.DescribeSecurityGroupsInput{
		Filters: []ec2.Filter{{Name: new("group-name"), Values: []string{"default"}}, {Name: new("vpc-id"), Values: []string{w.vpc}}}})
	if len(groups.SecurityGroups) != 1 {
		t.Fatalf("default groups: %s", show(groups))
	}
	own := *groups.SecurityGroups[0].GroupId
	d := w.define(t, boxes(w.box("app", "serve", "80")))
	server, member, stranger := w.start(t, d, own), w.start(t, d, own, w.open), w.start(t, d)
	for _, k := range []*task{server, member, stranger} {
		k.wait("RUNNING")
	}
	member.page("/")
	stranger.page("/")
	member.reaches(server.private() + ":80")
	stranger.misses(server.private() + ":80")
	if _, err := net.DialTimeout("tcp4", server.public()+":80", lab.Impatience); err == nil {
		t.Error("this machine reaches a task of the default group")
	}
}

// Names: private ones in the VPC, the resolver at base+2, everything else as
// this machine resolves it.
func TestNames(t *testing.T) {
	t.Parallel()
	w := shared
	k := w.run(t, w.box("app", "serve", "80"))
	now := k.wait("RUNNING")
	private, name := k.private(), detail(now, "privateDnsName")
	if want := "ip-" + strings.ReplaceAll(private, ".", "-") + ".ec2.internal"; name != want {
		t.Errorf("private name is %q, want %q", name, want)
	}
	if got := k.page("/cat", "path", "/etc/resolv.conf"); !strings.Contains(got, "nameserver 172.31.0.2\n") || !strings.Contains(got, "search ec2.internal\n") {
		t.Errorf("resolv.conf: %q", got)
	}
	if got := k.page("/lookup", "name", name); got != private {
		t.Errorf("%s is %q, want %s", name, got, private)
	}
	if got := k.page("/lookup", "name", strings.TrimSuffix(name, ".ec2.internal")); got != private { // by the search domain
		t.Errorf("the short name is %q, want %s", got, private)
	}
	if got := k.page("/reverse", "address", private); !strings.HasPrefix(got, name+".") {
		t.Errorf("%s is named %q, want %s", private, got, name)
	}
	if _, err := k.try("/lookup", "name", "ip-172-31-99-99.ec2.internal"); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("the name of an address that nobody has: %v", err)
	}
	// Outside: as this machine resolves it, whether it does or does not.
	outside := "example.com"
	_, wantErr := net.DefaultResolver.LookupHost(t.Context(), outside)
	if _, err := k.try("/lookup", "name", outside); (err == nil) != (wantErr == nil) {
		t.Errorf("%s: inside %v, outside %v", outside, err, wantErr)
	}
}
