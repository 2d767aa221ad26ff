package dispatch

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/dispatch/fabric"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// instanceService is the principal that takes the roles of instance profiles.
const instanceService = "ec2.amazonaws.com"

// instanceTables are those that the instances of a node follow from.
var instanceTables = []store.AnyTable{state.Instances, state.NetworkInterfaces, state.MachineImages, state.InstanceProfiles, state.Roles, state.IdentityKeys, state.KeyPairs, state.SecurityGroups, state.VPCs}

// lent are the credentials that an instance has now.
type lent struct {
	profile string
	role    string // ARN
	roleID  string
	creds   *fabric.RoleCredentials // nil: it gets none
	renew   time.Time
}

// A pull is the password with which an instance's root is fetched.
type pull struct {
	root, password string
	renew          time.Time
}

// instanceState is what a stream has told of instances.
type instanceState struct {
	sent   map[string]fabric.Instance
	lent   map[string]lent
	pulls  map[string]pull
	signed map[string]string // signatures by document: they are dear
}

func newInstanceState() instanceState {
	return instanceState{sent: map[string]fabric.Instance{}, lent: map[string]lent{}, pulls: map[string]pull{}, signed: map[string]string{}}
}

const (
	documentPath  = "dynamic/instance-identity/document"
	signaturePath = "dynamic/instance-identity/signature"
)

// sign adds the signature of the identity document that is in paths.
func (s *instanceState) sign(r store.Reader, paths map[string]string) error {
	k, ok := state.IdentityKeys.Get(r, state.IdentityKeyName)
	if !ok {
		return nil
	}
	document := paths[documentPath]
	signature, ok := s.signed[document]
	if !ok {
		var err error
		if signature, err = signDocument(k.Secret, document); err != nil {
			return err
		}
		if len(s.signed) > 4096 {
			clear(s.signed)
		}
		s.signed[document] = signature
	}
	paths[signaturePath] = signature
	return nil
}

// forget drops what an instance that goes has had.
func (s *instanceState) forget(id string) {
	delete(s.sent, id)
	delete(s.lent, id)
	delete(s.pulls, id)
}

// renew is when the next credentials are to be made anew, zero for never.
func (s *instanceState) renew() (at time.Time) {
	for _, l := range s.lent {
		if !l.renew.IsZero() && (at.IsZero() || l.renew.Before(at)) {
			at = l.renew
		}
	}
	for _, p := range s.pulls {
		if at.IsZero() || p.renew.Before(at) {
			at = p.renew
		}
	}
	return at
}

// instances adds to a frame what the node must be told of its instances.
func (s *stream) instances(snap *store.Snapshot, first bool, d *fabric.Desired) {
	region, ok := state.Regions.Get(snap, state.RegionKey)
	if !ok {
		return
	}
	seen := map[string]bool{}
	for i := range state.Instances.By(snap, "node", s.node) {
		if i.Want == "terminated" || i.State == "terminated" {
			// Named even if this stream never told of it: the node answers that nothing is left.
			if _, had := s.inst.sent[i.ID]; had || first && i.ReportedState != fabric.InstanceGone {
				d.GoneInstances = append(d.GoneInstances, i.ID)
			}
			s.inst.forget(i.ID)
			seen[i.ID] = true
			continue
		}
		n, ok := instance(snap, region, i)
		if !ok {
			continue
		}
		if err := s.inst.sign(snap, n.Metadata.Paths); err != nil {
			s.log.Error("identity document", "instance", i.ID, "err", err)
		}
		seen[i.ID] = true
		n.Credentials = s.lend(snap, i)
		n.RootPassword = s.pull(i, n.Root)
		if old, had := s.inst.sent[i.ID]; !had || !reflect.DeepEqual(old, n) {
			s.inst.sent[i.ID] = n
			d.Instances = append(d.Instances, n)
		}
	}
	for id := range s.inst.sent {
		if !seen[id] {
			s.inst.forget(id)
			d.GoneInstances = append(d.GoneInstances, id)
		}
	}
}

// lend gives an instance credentials of its profile's role, the same until it
// is time for others.
func (s *stream) lend(snap *store.Snapshot, i *state.Instance) *fabric.RoleCredentials {
	if i.Profile == "" || i.Want != "running" {
		delete(s.inst.lent, i.ID)
		return nil
	}
	profile, ok := state.InstanceProfiles.Get(snap, state.IAMKey(i.Account, state.ShortARN(i.Profile)))
	if !ok || profile.Role == "" {
		delete(s.inst.lent, i.ID)
		return nil
	}
	role, ok := state.Roles.Get(snap, state.IAMKey(i.Account, profile.Role))
	if !ok {
		delete(s.inst.lent, i.ID)
		return nil
	}
	now := s.Now()
	have, ok := s.inst.lent[i.ID]
	if ok && have.creds != nil && have.profile == i.Profile && have.role == role.ARN() && have.roleID == role.ID && now.Before(have.renew) {
		return have.creds
	}
	next := lent{profile: i.Profile, role: role.ARN(), roleID: role.ID}
	c, err := s.Mint(snap, role.ARN(), instanceService, i.ID, credentialsLife)
	if err != nil {
		// The role may not be for instances; that is seen in it having none.
		s.log.Debug("credentials of an instance", "instance", i.ID, "err", err)
	} else {
		next.creds = &fabric.RoleCredentials{Role: role.Name, Profile: profile.ARN(), ProfileID: profile.ID, Updated: now, Credentials: c}
		next.renew = now.Add(credentialsLife / 2)
	}
	s.inst.lent[i.ID] = next
	return next.creds
}

// pull is the password for the root of an instance that has never run, the
// same until it is time for another.
func (s *stream) pull(i *state.Instance, root string) string {
	account, repository, ok := rootRepository(root)
	if !ok || i.ReportedBoots > 0 || i.Want != "running" || s.PullPassword == nil {
		delete(s.inst.pulls, i.ID)
		return ""
	}
	now := s.Now()
	if have, ok := s.inst.pulls[i.ID]; ok && have.root == root && now.Before(have.renew) {
		return have.password
	}
	password, err := s.PullPassword(account, repository, now.Add(credentialsLife))
	if err != nil {
		s.log.Error("password for the root of an instance", "instance", i.ID, "err", err)
	}
	s.inst.pulls[i.ID] = pull{root: root, password: password, renew: now.Add(credentialsLife / 2)}
	return password
}

// rootRepository is whose repository the reference of a root names (state.RootImage).
func rootRepository(root string) (account, repository string, ok bool) {
	host, rest, _ := strings.Cut(root, "/")
	account, _, _ = strings.Cut(host, ".")
	repository, _, ok = strings.Cut(rest, "@")
	return account, repository, ok && repository != "" && state.IsAccountID(account)
}

// instance is a row as its node is told it. It is not told of one without an
// interface.
func instance(r store.Reader, region *state.Region, i *state.Instance) (fabric.Instance, bool) {
	devices := devicesOf(r, i)
	if len(devices) == 0 || devices[0].Attachment.Device != 0 || devices[0].Deleting {
		return fabric.Instance{}, false
	}
	eni := devices[0]
	m, ok := state.InstanceType(i.Type)
	if !ok {
		return fabric.Instance{}, false
	}
	image, _ := state.ImageOf(r, i.Image)
	n := fabric.Instance{
		ID: i.ID, Interface: eni.ID, Hostname: eni.PrivateDNSName, Address: eni.Address, CPU: m.VCPUs * 1024, Memory: m.Memory, Registered: m.Registered,
		Run: i.Want == "running", Boots: i.Boots, UserData: i.UserData,
		Nameservers: []string{"169.254.169.253"}, Search: []string{searchDomain(region.Name)},
		Metadata: fabric.InstanceMetadata{Enabled: i.Metadata.Enabled, TokenRequired: i.Metadata.TokenRequired, HopLimit: i.Metadata.HopLimit,
			Paths: metadataPaths(r, region, i, devices)},
		Attributes: map[string]string{"ecs.ami-id": i.Image, "ecs.instance-type": i.Type, "ecs.vpc-id": i.VPC, "ecs.subnet-id": i.Subnet, "ecs.availability-zone": i.Zone},
		Tags:       map[string]string{},
	}
	if image != nil {
		n.Root, n.Agent = image.Root, image.ECS
	}
	for _, t := range i.Tags {
		n.Tags[t.Key] = t.Value
	}
	return n, true
}

func searchDomain(region string) string {
	if region == "us-east-1" {
		return "ec2.internal"
	}
	return region + ".compute.internal"
}

// devicesOf are the interfaces of an instance in the order of their devices.
func devicesOf(r store.Reader, i *state.Instance) []*state.NetworkInterface {
	out := slices.Collect(state.NetworkInterfaces.By(r, "instance", i.ID))
	slices.SortFunc(out, func(a, b *state.NetworkInterface) int { return a.Attachment.Device - b.Attachment.Device })
	return out
}

// metadataPaths is what the metadata service of an instance answers, but for
// its user data and credentials (facts: networking, IMDS). It is a function of
// rows alone, so that the node can answer it without a server.
func metadataPaths(r store.Reader, region *state.Region, i *state.Instance, devices []*state.NetworkInterface) map[string]string {
	p := map[string]string{}
	set := func(path, value string) {
		if value != "" {
			p["meta-data/"+path] = value
		}
	}
	eni := devices[0]
	set("ami-id", i.Image)
	set("ami-launch-index", strconv.Itoa(i.Index))
	set("ami-manifest-path", "(unknown)")
	set("hostname", eni.PrivateDNSName)
	set("local-hostname", eni.PrivateDNSName)
	set("instance-action", "none")
	set("instance-id", i.ID)
	set("instance-life-cycle", map[bool]string{true: "on-demand", false: "spot"}[i.Spot == ""])
	set("instance-type", i.Type)
	set("local-ipv4", eni.Address.String())
	set("mac", eni.MAC)
	set("profile", "default-hvm")
	set("reservation-id", i.Reservation)
	set("block-device-mapping/ami", "/dev/xvda")
	set("block-device-mapping/root", "/dev/xvda")
	set("placement/availability-zone", i.Zone)
	set("placement/region", region.Name)
	for _, z := range region.Zones {
		if z.Name == i.Zone {
			set("placement/availability-zone-id", z.ID)
		}
	}
	set("services/domain", "amazonaws.com")
	set("services/partition", "aws")
	set("events/maintenance/history", "[]")
	set("events/maintenance/scheduled", "[]")
	set("system", "nitro")
	if eni.Public.IsValid() {
		set("public-ipv4", eni.Public.String())
		set("public-hostname", publicName(r, i.VPC, eni.Public, region.Name))
	}
	if len(eni.IPv6) > 0 {
		set("ipv6", eni.IPv6[0].String())
	}
	names := groupNames(r, eni)
	set("security-groups", strings.Join(names, "\n"))
	if i.KeyName != "" {
		if k, ok := state.KeyPairs.Get(r, i.Account+"/"+i.KeyName); ok {
			set("public-keys/0/openssh-key", k.Public)
			p["meta-data/public-keys/"] = "0=" + i.KeyName
		}
	}
	for _, e := range devices {
		interfacePaths(r, region, i, e, set)
	}
	if i.Metadata.Tags {
		for _, t := range i.Tags {
			if t.Key == "" || strings.ContainsAny(t.Key, "/ ") || t.Key == "." || t.Key == ".." || t.Key == "_index" {
				continue // AWS allows no such tags together with this option
			}
			p["meta-data/tags/instance/"+t.Key] = t.Value
		}
	}
	p[documentPath] = identityDocument(region, i, eni.Address)
	return p
}

func groupNames(r store.Reader, e *state.NetworkInterface) (names []string) {
	for _, id := range e.Groups {
		if g, ok := state.SecurityGroups.Get(r, id); ok {
			names = append(names, g.Name)
		}
	}
	return names
}

// interfacePaths is the folder of one interface.
func interfacePaths(r store.Reader, region *state.Region, i *state.Instance, e *state.NetworkInterface, set func(path, value string)) {
	at := "network/interfaces/macs/" + e.MAC + "/"
	set(at+"device-number", strconv.Itoa(e.Attachment.Device))
	set(at+"interface-id", e.ID)
	set(at+"local-hostname", e.PrivateDNSName)
	set(at+"mac", e.MAC)
	set(at+"owner-id", e.Account)
	set(at+"security-group-ids", strings.Join(e.Groups, "\n"))
	set(at+"security-groups", strings.Join(groupNames(r, e), "\n"))
	set(at+"subnet-id", e.Subnet)
	set(at+"vpc-id", e.VPC)
	private := []string{e.Address.String()}
	pairs := []netip.Addr{e.Public}
	for _, s := range e.Secondary {
		private = append(private, s.Address.String())
		pairs = append(pairs, s.Public)
	}
	set(at+"local-ipv4s", strings.Join(private, "\n"))
	var public []string
	for n, x := range pairs {
		if x.IsValid() {
			public = append(public, x.String())
			set(at+"ipv4-associations/"+x.String(), private[n])
		}
	}
	set(at+"public-ipv4s", strings.Join(public, "\n"))
	if e.Public.IsValid() {
		set(at+"public-hostname", publicName(r, e.VPC, e.Public, region.Name))
	}
	var v6 []string
	for _, x := range e.IPv6 {
		v6 = append(v6, x.String())
	}
	set(at+"ipv6s", strings.Join(v6, "\n"))
	if s, ok := state.Subnets.Get(r, e.Subnet); ok {
		set(at+"subnet-ipv4-cidr-block", s.CIDR.String())
	}
	if v, ok := state.VPCs.Get(r, e.VPC); ok {
		var four, six []string
		for _, c := range v.CIDRs {
			if c.Addr().Is4() {
				four = append(four, c.String())
			} else {
				six = append(six, c.String())
			}
		}
		if len(four) > 0 {
			set(at+"vpc-ipv4-cidr-block", four[0])
		}
		set(at+"vpc-ipv4-cidr-blocks", strings.Join(four, "\n"))
		set(at+"vpc-ipv6-cidr-blocks", strings.Join(six, "\n"))
	}
}

// publicName is the public DNS name of an address, where the VPC has names.
func publicName(r store.Reader, vpc string, a netip.Addr, region string) string {
	if v, ok := state.VPCs.Get(r, vpc); !ok || !v.DNSHostnames {
		return ""
	}
	name := "ec2-" + strings.ReplaceAll(a.String(), ".", "-")
	if region == "us-east-1" {
		return name + ".compute-1.amazonaws.com"
	}
	return name + "." + region + ".compute.amazonaws.com"
}

// identityDocument is an instance's identity document, field by field as AWS has it.
func identityDocument(region *state.Region, i *state.Instance, address netip.Addr) string {
	m, _ := state.InstanceType(i.Type)
	b, err := json.MarshalIndent(struct {
		AccountID    string   `json:"accountId"`
		Architecture string   `json:"architecture"`
		Zone         string   `json:"availabilityZone"`
		Billing      []string `json:"billingProducts"`
		Devpay       []string `json:"devpayProductCodes"`
		Marketplace  []string `json:"marketplaceProductCodes"`
		ImageID      string   `json:"imageId"`
		InstanceID   string   `json:"instanceId"`
		Type         string   `json:"instanceType"`
		Kernel       *string  `json:"kernelId"`
		Pending      string   `json:"pendingTime"`
		PrivateIP    string   `json:"privateIp"`
		Ramdisk      *string  `json:"ramdiskId"`
		Region       string   `json:"region"`
		Version      string   `json:"version"`
	}{AccountID: i.Account, Architecture: m.Arch, Zone: i.Zone, ImageID: i.Image, InstanceID: i.ID, Type: i.Type,
		Pending: i.LaunchedAt.UTC().Format(time.RFC3339), PrivateIP: address.String(), Region: region.Name, Version: "2017-09-30"}, "", "  ")
	if err != nil {
		return "" // texts always marshal
	}
	return string(b)
}

// signDocument signs an identity document with the region's key. The same
// document gets the same signature.
func signDocument(key []byte, document string) (string, error) {
	parsed, err := x509.ParsePKCS1PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("key of identity documents: %w", err)
	}
	sum := sha256.Sum256([]byte(document))
	signature, err := rsa.SignPKCS1v15(rand.Reader, parsed, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign identity document: %w", err)
	}
	return base64.StdEncoding.EncodeToString(signature), nil
}

// IdentityKey makes the key that signs identity documents, if there is none yet.
func IdentityKey(ctx context.Context, db *store.DB) error {
	if state.IdentityKeys.Has(db.Snapshot(), state.IdentityKeyName) {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("key of identity documents: %w", err)
	}
	return db.Update(ctx, func(tx *store.Tx) error {
		if !state.IdentityKeys.Has(tx, state.IdentityKeyName) {
			state.IdentityKeys.Put(tx, &state.IdentityKey{Secret: x509.MarshalPKCS1PrivateKey(key), Public: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
		}
		return nil
	})
}

// instanceReports writes down what a node says of its instances.
func (s *stream) instanceReports(tx *store.Tx, reports []fabric.InstanceStatus) {
	for _, st := range reports {
		i, ok := state.Instances.Get(tx, st.ID)
		if !ok || i.Node != s.node {
			continue
		}
		n := *i
		n.ReportedState, n.ReportedBoots, n.ReportedEnd, n.Failure = st.State, st.Boots, st.Ended, st.Error
		// Only what was asked to go may be gone for good.
		if st.State == fabric.InstanceGone && i.Want != "terminated" {
			n.ReportedState = fabric.InstanceStopped
		}
		if n.ReportedState != i.ReportedState || n.ReportedBoots != i.ReportedBoots || n.ReportedEnd != i.ReportedEnd || n.Failure != i.Failure {
			state.Instances.Put(tx, &n)
		}
		if st.Console == "" {
			continue
		}
		if have, ok := state.Consoles.Get(tx, st.ID); !ok || string(have.Output) != st.Console {
			state.Consoles.Put(tx, &state.Console{Instance: i.ID, Account: i.Account, Output: []byte(st.Console), At: st.ConsoleAt})
		}
	}
}

// HostStopped says of the instances of a node that they have ended with it. It
// is called when nothing of them can be left running. Those that are to run are
// booted again as soon as the node is there.
func HostStopped(ctx context.Context, db *store.DB, node string) error {
	err := db.Update(ctx, func(tx *store.Tx) error {
		for _, i := range slices.Collect(state.Instances.By(tx, "node", node)) {
			if i.ReportedState != fabric.InstanceRunning {
				continue
			}
			n := *i
			n.ReportedState, n.ReportedEnd = fabric.InstanceStopped, ""
			if n.State == "running" {
				n.State = "stopped" // until it is being started
			}
			state.Instances.Put(tx, &n)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("instances of node %s, which was stopped: %w", node, err)
	}
	return nil
}
