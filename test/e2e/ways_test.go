package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/test/lab"
)

// A network is a VPC of a test: a public subnet, perhaps a private one, and a group
// that admits everybody.
type network struct {
	w           *world
	zone        string
	vpc, group  string
	public      string // subnet with a route to an internet gateway
	publicTable string
}

func (w *world) connected(t *testing.T, cidr, public string) *network {
	t.Helper()
	n := &network{w: w, zone: w.Name + "a"}
	n.vpc = *call[ec2.CreateVpcOutput](t, w, lab.EC2, "CreateVpc", &ec2.CreateVpcInput{CidrBlock: &cidr}).Vpc.VpcId
	gateway := call[ec2.CreateInternetGatewayOutput](t, w, lab.EC2, "CreateInternetGateway", &ec2.CreateInternetGatewayInput{}).InternetGateway.InternetGatewayId
	call[ec2.AttachInternetGatewayOutput](t, w, lab.EC2, "AttachInternetGateway", &ec2.AttachInternetGatewayInput{InternetGatewayId: gateway, VpcId: &n.vpc})
	n.public, n.publicTable = n.subnet(t, public)
	n.route(t, n.publicTable, &ec2.CreateRouteInput{GatewayId: gateway})
	n.group = *call[ec2.CreateSecurityGroupOutput](t, w, lab.EC2, "CreateSecurityGroup", &ec2.CreateSecurityGroupInput{GroupName: new("open"), Description: new("everybody"), VpcId: &n.vpc}).GroupId
	w.allow(t, n.group, []ec2.IpPermission{{IpProtocol: new("-1"), IpRanges: []ec2.IpRange{{CidrIp: new("0.0.0.0/0")}}}})
	return n
}

// subnet makes a subnet with a route table of its own.
func (n *network) subnet(t *testing.T, cidr string) (id, table string) {
	t.Helper()
	id = *call[ec2.CreateSubnetOutput](t, n.w, lab.EC2, "CreateSubnet", &ec2.CreateSubnetInput{VpcId: &n.vpc, CidrBlock: &cidr, AvailabilityZone: &n.zone}).Subnet.SubnetId
	table = *call[ec2.CreateRouteTableOutput](t, n.w, lab.EC2, "CreateRouteTable", &ec2.CreateRouteTableInput{VpcId: &n.vpc}).RouteTable.RouteTableId
	call[ec2.AssociateRouteTableOutput](t, n.w, lab.EC2, "AssociateRouteTable", &ec2.AssociateRouteTableInput{RouteTableId: &table, SubnetId: &id})
	return id, table
}

// route adds a default route to a table.
func (n *network) route(t *testing.T, table string, in *ec2.CreateRouteInput) {
	t.Helper()
	in.RouteTableId, in.DestinationCidrBlock = &table, new("0.0.0.0/0")
	call[ec2.CreateRouteOutput](t, n.w, lab.EC2, "CreateRoute", in)
}

// outside is a server on this machine that answers whom it sees, at an address
// that is outside of every VPC.
func (w *world) outside(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = io.WriteString(out, host)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Close(); <-done })
	host, _, _ := strings.Cut(w.inside(t), ":")
	return fmt.Sprintf("%s:%d", host, l.Addr().(*net.TCPAddr).Port)
}

// TestWays: what is in a public subnet goes out by its public address and not
// without one, what is in a private one by the NAT gateway and not without it;
// and two VPCs with the same addresses have nothing to do with each other.
func TestWays(t *testing.T) {
	w := fresh(t)
	w.profile(t, "machines", containerInstanceRole)
	outside := w.outside(t)
	two, three := w.connected(t, "10.0.0.0/16", "10.0.0.0/24"), w.connected(t, "10.0.0.0/16", "10.0.1.0/24")
	private, table := two.subnet(t, "10.0.1.0/24")
	address := call[ec2.AllocateAddressOutput](t, w, lab.EC2, "AllocateAddress", &ec2.AllocateAddressInput{Domain: "vpc"})
	nat := call[ec2.CreateNatGatewayOutput](t, w, lab.EC2, "CreateNatGateway", &ec2.CreateNatGatewayInput{SubnetId: &two.public, AllocationId: address.AllocationId}).NatGateway.NatGatewayId
	w.until(t, "available", "ec2", "describe-nat-gateways", "--nat-gateway-ids", *nat, "--query", "NatGateways[0].State")
	byNAT := &ec2.CreateRouteInput{NatGatewayId: nat}
	two.route(t, table, byNAT)
	hidden := w.machine(t, "t3.small", private, two.group, "", false)
	open := w.machine(t, "t3.small", three.public, three.group, "", true)
	hidden.ready(t)
	open.ready(t)
	if hidden.public != "" {
		t.Errorf("the instance in the private subnet has the address %s", hidden.public)
	}

	// A Fargate task in the public subnet, through which the others are asked.
	d := w.define(t, boxes(w.page("prober")))
	network := w.network(two.group)
	network.AwsvpcConfiguration.Subnets = []string{two.public}
	prober := w.startWith(t, &ecs.RunTaskInput{TaskDefinition: &d, NetworkConfiguration: network})
	prober.wait("RUNNING")
	ask := &peer{at: prober.public() + ":80"}
	sees := func(p *peer, want string) {
		t.Helper()
		got, last := "", error(nil)
		err := lab.Until(deadline(t), func(ctx context.Context) (bool, error) {
			got, last = p.ask(ctx, "/get", "url", "http://"+outside+"/")
			return got == want, nil
		})
		if err != nil {
			t.Errorf("outside %s is seen as %q (%v), want %s", p.at, got, last, want)
		}
	}
	sees(ask, prober.public())

	v := w.defineFor(t, ecs.NetworkModeAwsvpc, w.page("two"))
	inner := w.place(t, hidden.in(v, private, two.group))[0]
	edge := w.place(t, hidden.in(v, two.public, two.group))[0]
	b := w.defineFor(t, ecs.NetworkModeBridge, publish(w.page("bridged"), 80, 0))
	bridged := w.place(t, hidden.on(b))[0]
	natted := []*peer{{inner.private() + ":80", ask}, {hidden.private + ":" + port(bound(t, bridged.describe(), "web")[80]), ask}}
	for _, p := range natted {
		sees(p, *address.PublicIp)
	}
	without := &peer{edge.private() + ":80", ask}
	without.says(t, "/")
	without.misses(t, outside)
	// The gateway lets nobody in.
	(*peer)(nil).misses(t, *address.PublicIp+":80")
	// Without the route there is no way, and the task is where it was.
	call[ec2.DeleteRouteOutput](t, w, lab.EC2, "DeleteRoute", &ec2.DeleteRouteInput{RouteTableId: &table, DestinationCidrBlock: new("0.0.0.0/0")})
	for _, p := range natted {
		p.misses(t, outside)
	}
	two.route(t, table, byNAT)
	for _, p := range natted {
		p.reaches(t, outside)
	}

	// The same address in another VPC is another task, and goes out by itself
	// as little.
	other := w.place(t, open.in(w.defineFor(t, ecs.NetworkModeAwsvpc, w.page("three")), three.public, three.group))[0]
	if inner.private() != other.private() {
		t.Fatalf("addresses %s and %s are to be the same", inner.private(), other.private())
	}
	client := w.place(t, open.on(b))[0]
	local := &peer{at: open.public + ":" + port(bound(t, client.describe(), "web")[80])}
	sees(local, open.public)
	for p, page := range map[*peer]string{ask: "two", local: "three"} {
		if got := p.says(t, "/get", "url", "http://"+inner.private()+"/"); !strings.HasPrefix(got, "page "+page+" of") {
			t.Errorf("page %q, want %s", got, page)
		}
	}
	(&peer{other.private() + ":80", local}).misses(t, outside)

	for _, k := range []*task{inner, edge, bridged, other, client, prober} {
		k.stop("")
	}
	w.leave(t, hidden, open)
	call[ec2.DeleteNatGatewayOutput](t, w, lab.EC2, "DeleteNatGateway", &ec2.DeleteNatGatewayInput{NatGatewayId: nat})
	if err := w.empty(deadline(t)); err != nil {
		t.Error(err)
	}
}
