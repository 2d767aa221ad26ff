package ec2

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Limits of facts: networking, security groups.
const (
	maxGroupsPerInterface = 5
	maxRulesPerInterface  = 1000 // the groups of an interface times the rules of one direction
)

var groupText = regexp.MustCompile(`^[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}$`)

func noGroup(id string) error {
	return bad("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
}

// CreateSecurityGroup makes a group that lets everything out and nothing in.
func (e *EC2) CreateSecurityGroup(ctx context.Context, in *api.CreateSecurityGroupInput) (*api.CreateSecurityGroupOutput, error) {
	name, account := wire.Value(in.GroupName), e.Account(ctx)
	switch {
	case name == "":
		return nil, bad("MissingParameter", "The request must contain the parameter GroupName")
	case wire.Value(in.Description) == "":
		return nil, bad("MissingParameter", "The request must contain the parameter GroupDescription")
	case name == "default":
		return nil, bad("InvalidParameterValue", "Cannot use reserved security group name: default")
	case strings.HasPrefix(name, "sg-"):
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Group names may not be in the format sg-*", name)
	case !groupText.MatchString(name):
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Character sets beyond ASCII are not supported.", name)
	case !groupText.MatchString(*in.Description):
		return nil, bad("InvalidParameterValue", "Value (%s) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.", *in.Description)
	}
	tags, err := tagsFor("security-group", in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	g := &state.SecurityGroup{ID: e.id("sg"), Account: account, Name: name, Description: *in.Description, Tags: tags, CreatedAt: e.Now()}
	g.Rules = []state.SecurityGroupRule{{ID: e.id("sgr"), Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: netip.MustParsePrefix("0.0.0.0/0")}}
	six := e.id("sgr")
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		vpc := wire.Value(in.VpcId)
		if vpc == "" {
			for v := range state.VPCs.By(tx, "account", account) {
				if v.Default {
					vpc = v.ID
				}
			}
			if vpc == "" {
				return bad("VPCIdNotSpecified", "No default VPC for this user")
			}
		}
		if v, ok := state.VPCs.Get(tx, vpc); !ok || v.Account != account {
			return noVPC(vpc)
		}
		n := 0
		for range state.SecurityGroups.By(tx, "account", account) {
			n++
		}
		if n >= state.Limit(tx, account, "vpc/security-groups") {
			return bad("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
		}
		// The name's own row makes it unique against a caller at the same moment.
		key := vpc + "/" + name
		if _, taken := state.GroupNames.Get(tx, key); taken {
			return bad("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, vpc)
		}
		next := *g
		next.VPC = vpc
		if v, _ := state.VPCs.Get(tx, vpc); len(v.IPv6) > 0 {
			next.Rules = append(slices.Clone(g.Rules), state.SecurityGroupRule{ID: six, Egress: true, Protocol: "-1", From: -1, To: -1, CIDR: netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
		}
		state.SecurityGroups.Put(tx, &next)
		state.GroupNames.Put(tx, &state.GroupName{VPC: vpc, Name: name, Group: g.ID})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateSecurityGroupOutput{GroupId: new(g.ID), Tags: tagsView(tags), SecurityGroupArn: e.arn(account, "security-group", g.ID)}, nil
}

// group finds a group by id, or by name in the default VPC.
func group(r store.Reader, account string, id, name *string) (*state.SecurityGroup, error) {
	if wire.Value(id) != "" {
		g, ok := state.SecurityGroups.Get(r, *id)
		if !ok || g.Account != account {
			if !strings.HasPrefix(*id, "sg-") {
				return nil, bad("InvalidGroupId.Malformed", "Invalid id: \"%s\" (expecting \"sg-...\")", *id)
			}
			return nil, noGroup(*id)
		}
		return g, nil
	}
	if wire.Value(name) == "" {
		return nil, bad("MissingParameter", "The request must contain the parameter groupName or groupId")
	}
	for g := range state.SecurityGroups.By(r, "account", account) {
		if v, ok := state.VPCs.Get(r, g.VPC); g.Name == *name && ok && v.Default {
			return g, nil
		}
	}
	return nil, bad("InvalidGroup.NotFound", "The security group '%s' does not exist in default VPC", *name)
}

// DeleteSecurityGroup removes a group that nothing uses.
func (e *EC2) DeleteSecurityGroup(ctx context.Context, in *api.DeleteSecurityGroupInput) (*api.DeleteSecurityGroupOutput, error) {
	id := ""
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		g, err := group(tx, e.Account(ctx), in.GroupId, in.GroupName)
		if err != nil {
			return err
		}
		if g.Name == "default" {
			return bad("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.ID)
		}
		// An interface that comes to carry the group, or a rule to name it, makes this look again.
		state.NetworkInterfaces.Guard(tx, "")
		state.SecurityGroups.Guard(tx, "")
		inUse := bad("DependencyViolation", "resource %s has a dependent object", g.ID)
		for range state.NetworkInterfaces.By(tx, "group", g.ID) {
			return inUse
		}
		for x := range state.SecurityGroups.By(tx, "references", g.ID) {
			if x.VPC == g.VPC { // a rule of a peered VPC becomes stale
				return inUse
			}
		}
		id = g.ID
		state.SecurityGroups.Delete(tx, g.ID)
		state.GroupNames.Delete(tx, g.VPC+"/"+g.Name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteSecurityGroupOutput{Return: new(true), GroupId: new(id)}, nil
}

// groupFilters are those of DescribeSecurityGroups.
var groupFilters = func() filters[*state.SecurityGroup] {
	fs := filters[*state.SecurityGroup]{
		"group-id":    func(g *state.SecurityGroup) []string { return one(g.ID) },
		"group-name":  func(g *state.SecurityGroup) []string { return one(g.Name) },
		"vpc-id":      func(g *state.SecurityGroup) []string { return one(g.VPC) },
		"description": func(g *state.SecurityGroup) []string { return one(g.Description) },
		"owner-id":    func(g *state.SecurityGroup) []string { return one(g.Account) },
	}
	for name, of := range map[string]func(*state.SecurityGroup, state.SecurityGroupRule) []string{
		"cidr": func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string {
			if !r.CIDR.IsValid() || r.CIDR.Addr().Is6() {
				return nil
			}
			return one(r.CIDR.String())
		},
		"ipv6-cidr": func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string {
			if !r.CIDR.IsValid() || r.CIDR.Addr().Is4() {
				return nil
			}
			return one(r.CIDR.String())
		},
		"from-port":      func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string { return number(r.From) },
		"to-port":        func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string { return number(r.To) },
		"protocol":       func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string { return one(r.Protocol) },
		"group-id":       func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string { return one(r.Group) },
		"prefix-list-id": func(_ *state.SecurityGroup, r state.SecurityGroupRule) []string { return one(r.PrefixList) },
		"user-id": func(g *state.SecurityGroup, r state.SecurityGroupRule) []string {
			if r.Group == "" {
				return nil
			}
			return one(cmp.Or(r.GroupOwner, g.Account))
		},
	} {
		for prefix, egress := range map[string]bool{"ip-permission.": false, "egress.ip-permission.": true} {
			fs[prefix+name] = func(g *state.SecurityGroup) (out []string) {
				for _, r := range g.Rules {
					if r.Egress == egress {
						out = append(out, of(g, r)...)
					}
				}
				return out
			}
		}
	}
	return fs
}()

// DescribeSecurityGroups lists groups with their rules.
func (e *EC2) DescribeSecurityGroups(ctx context.Context, in *api.DescribeSecurityGroupsInput) (*api.DescribeSecurityGroupsOutput, error) {
	snap, account := e.DB.Snapshot(), e.Account(ctx)
	q := request{in.GroupIds, in.Filters, in.MaxResults, in.NextToken}
	for _, name := range in.GroupNames {
		g, err := group(snap, account, nil, &name)
		if err != nil {
			return nil, err
		}
		q.ids = append(slices.Clone(q.ids), g.ID)
	}
	out, next, err := list(q, kind[*state.SecurityGroup, api.SecurityGroup]{
		name: "sgs", rows: state.SecurityGroups.By(snap, "account", account),
		id:      func(g *state.SecurityGroup) string { return g.ID },
		missing: noGroup,
		tags:    func(g *state.SecurityGroup) []state.Tag { return g.Tags },
		filters: groupFilters,
		view: func(g *state.SecurityGroup) api.SecurityGroup {
			return api.SecurityGroup{GroupId: new(g.ID), VpcId: new(g.VPC), OwnerId: new(g.Account), GroupName: new(g.Name), Description: new(g.Description),
				SecurityGroupArn: e.arn(g.Account, "security-group", g.ID), Tags: tagsView(g.Tags),
				IpPermissions: permissions(snap, g, false), IpPermissionsEgress: permissions(snap, g, true)}
		},
	})
	return &api.DescribeSecurityGroupsOutput{SecurityGroups: out, NextToken: next}, err
}

// permissions groups rules by protocol and ports, as the API shows them.
func permissions(r store.Reader, g *state.SecurityGroup, egress bool) []api.IpPermission {
	out := []api.IpPermission{}
	at := map[string]int{}
	for _, x := range g.Rules {
		if x.Egress != egress {
			continue
		}
		key := fmt.Sprint(x.Protocol, x.From, x.To)
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			p := api.IpPermission{IpProtocol: new(x.Protocol), UserIdGroupPairs: []api.UserIdGroupPair{}, IpRanges: []api.IpRange{}, Ipv6Ranges: []api.Ipv6Range{}, PrefixListIds: []api.PrefixListId{}}
			if x.Protocol != "-1" {
				p.FromPort, p.ToPort = new(int32(x.From)), new(int32(x.To))
			}
			out = append(out, p)
		}
		p := &out[i]
		description := optional(x.Description)
		switch {
		case x.Group != "":
			p.UserIdGroupPairs = append(p.UserIdGroupPairs, pairOf(r, g, x))
		case x.PrefixList != "":
			p.PrefixListIds = append(p.PrefixListIds, api.PrefixListId{PrefixListId: new(x.PrefixList), Description: description})
		case x.CIDR.Addr().Is6():
			p.Ipv6Ranges = append(p.Ipv6Ranges, api.Ipv6Range{CidrIpv6: new(x.CIDR.String()), Description: description})
		default:
			p.IpRanges = append(p.IpRanges, api.IpRange{CidrIp: new(x.CIDR.String()), Description: description})
		}
	}
	return out
}

// pairOf shows the group that a rule refers to. Of one in a peered VPC it says
// over which connection.
func pairOf(r store.Reader, g *state.SecurityGroup, x state.SecurityGroupRule) api.UserIdGroupPair {
	out := api.UserIdGroupPair{GroupId: new(x.Group), UserId: new(cmp.Or(x.GroupOwner, g.Account)), Description: optional(x.Description)}
	if s, ok := state.SecurityGroups.Get(r, x.Group); ok && s.VPC != g.VPC {
		out.VpcId = new(s.VPC)
		if p, ok := peered(r, g.VPC, s.VPC); ok {
			out.VpcPeeringConnectionId, out.PeeringStatus = new(p.ID), new(p.Status)
		}
	}
	return out
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func checkRuleDescription(d *string) error {
	if wire.Value(d) != "" && !groupText.MatchString(*d) {
		return bad("InvalidParameterValue", "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*")
	}
	return nil
}

// grant is what Authorize and Revoke calls name, in either of their two forms.
type grant struct {
	permissions       []api.IpPermission
	cidr, protocol    *string
	from, to          *int32
	sourceName, owner *string
	gone              bool // may name groups that are gone, if a rule does
}

// rules reads a grant. Each source becomes one rule, without an id.
func (e *EC2) rules(r store.Reader, g *state.SecurityGroup, q grant, egress bool) ([]state.SecurityGroupRule, error) {
	ps := q.permissions
	if q.cidr != nil || q.protocol != nil || q.sourceName != nil {
		if len(ps) > 0 {
			return nil, bad("InvalidParameterCombination", "The parameter 'ipPermissions' may not be used in combination with 'ipProtocol'")
		}
		p := api.IpPermission{IpProtocol: q.protocol, FromPort: q.from, ToPort: q.to}
		if q.cidr != nil {
			p.IpRanges = []api.IpRange{{CidrIp: q.cidr}}
		}
		if q.sourceName != nil {
			if p.IpProtocol == nil {
				p.IpProtocol = new("-1")
			}
			p.UserIdGroupPairs = []api.UserIdGroupPair{{GroupName: q.sourceName, UserId: q.owner}}
		}
		ps = []api.IpPermission{p}
	}
	if len(ps) == 0 {
		return nil, bad("MissingParameter", "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.")
	}
	var out []state.SecurityGroupRule
	for _, p := range ps {
		base, err := ports(p)
		if err != nil {
			return nil, err
		}
		base.Egress = egress
		before := len(out)
		add := func(change func(*state.SecurityGroupRule), description *string) error {
			if err := checkRuleDescription(description); err != nil {
				return err
			}
			n := base
			n.Description = wire.Value(description)
			change(&n)
			out = append(out, n)
			return nil
		}
		for _, x := range p.IpRanges {
			c, err := netip.ParsePrefix(wire.Value(x.CidrIp))
			if err != nil || !c.Addr().Is4() {
				return nil, bad("InvalidParameterValue", "CIDR block %s is malformed", wire.Value(x.CidrIp))
			}
			if err := add(func(n *state.SecurityGroupRule) { n.CIDR = c.Masked() }, x.Description); err != nil {
				return nil, err
			}
		}
		for _, x := range p.Ipv6Ranges {
			c, err := netip.ParsePrefix(wire.Value(x.CidrIpv6))
			if err != nil || !c.Addr().Is6() {
				return nil, bad("InvalidParameterValue", "CIDR block %s is malformed", wire.Value(x.CidrIpv6))
			}
			if err := add(func(n *state.SecurityGroupRule) { n.CIDR = c.Masked() }, x.Description); err != nil {
				return nil, err
			}
		}
		for _, x := range p.UserIdGroupPairs {
			source, err := e.source(r, g, x, q.gone)
			if err != nil {
				return nil, err
			}
			if err := add(func(n *state.SecurityGroupRule) {
				if n.Group = source.ID; source.Account != g.Account {
					n.GroupOwner = source.Account
				}
			}, x.Description); err != nil {
				return nil, err
			}
		}
		for _, x := range p.PrefixListIds {
			pl, err := prefixListOf(r, g.Account, wire.Value(x.PrefixListId))
			if err != nil {
				return nil, err
			}
			if err := add(func(n *state.SecurityGroupRule) { n.PrefixList = pl.ID }, x.Description); err != nil {
				return nil, err
			}
		}
		if len(out) == before {
			return nil, bad("MissingParameter", "The request must contain at least one of CidrIp, CidrIpv6, PrefixListId or a source security group for each permission")
		}
	}
	return out, nil
}

// source is the group a rule refers to. It lies in the same VPC, or in one that
// is peered with it.
func (e *EC2) source(r store.Reader, g *state.SecurityGroup, x api.UserIdGroupPair, gone bool) (*state.SecurityGroup, error) {
	if id := wire.Value(x.GroupId); id != "" {
		if gone {
			for _, have := range g.Rules {
				if have.Group == id {
					return &state.SecurityGroup{ID: id, Account: cmp.Or(have.GroupOwner, g.Account)}, nil
				}
			}
		}
		s, ok := state.SecurityGroups.Get(r, id)
		if !ok || wire.Value(x.UserId) != "" && *x.UserId != s.Account {
			return nil, noGroup(id)
		}
		if s.Account == g.Account && s.VPC == g.VPC {
			return s, nil
		}
		if _, ok := peered(r, g.VPC, s.VPC); ok {
			return s, nil
		}
		return nil, noGroup(id)
	}
	// By its name's row and its own: an index would not be compared at commit.
	if n, ok := state.GroupNames.Get(r, g.VPC+"/"+wire.Value(x.GroupName)); ok {
		if s, ok := state.SecurityGroups.Get(r, n.Group); ok {
			return s, nil
		}
	}
	return nil, bad("InvalidGroup.NotFound", "The security group '%s' does not exist", wire.Value(x.GroupName))
}

// ports reads protocol and ports of a permission.
func ports(p api.IpPermission) (r state.SecurityGroupRule, err error) {
	proto := strings.ToLower(wire.Value(p.IpProtocol))
	if proto == "" {
		return r, bad("MissingParameter", "The request must contain the parameter ipProtocol")
	}
	switch proto {
	case "6":
		proto = "tcp"
	case "17":
		proto = "udp"
	case "1":
		proto = "icmp"
	case "58":
		proto = "icmpv6"
	case "all":
		proto = "-1"
	}
	r.Protocol, r.From, r.To = proto, -1, -1
	switch proto {
	case "tcp", "udp":
		if p.FromPort == nil || p.ToPort == nil {
			return r, bad("InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
		}
		r.From, r.To = int(*p.FromPort), int(*p.ToPort)
		if r.From == -1 && r.To == -1 {
			r.From, r.To = 0, 65535
		}
		for _, port := range []int{r.From, r.To} {
			if port < 0 || port > 65535 {
				return r, bad("InvalidParameterValue", "TCP/UDP port (%d) out of range", port)
			}
		}
		if r.From > r.To {
			return r, bad("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", r.From, r.To)
		}
	case "icmp", "icmpv6":
		if p.FromPort != nil {
			r.From = int(*p.FromPort)
		}
		if p.ToPort != nil {
			r.To = int(*p.ToPort)
		}
		if r.From < -1 || r.From > 255 || r.To < -1 || r.To > 255 {
			return r, bad("InvalidParameterValue", "ICMP type (%d) out of range", r.From)
		}
		if r.From == -1 && r.To != -1 {
			return r, bad("InvalidParameterValue", "ICMP code (%d) must be -1 if the type is -1", r.To)
		}
	case "-1":
	default:
		n, err := strconv.Atoi(proto)
		if err != nil || n < 0 || n > 255 {
			return r, bad("InvalidPermission.Malformed", "Unsupported IP protocol \"%s\"  - supported: [tcp, udp, icmp, icmpv6, -1 or a number]", proto)
		}
	}
	return r, nil
}

func same(a, b state.SecurityGroupRule) bool {
	return a.Egress == b.Egress && a.Protocol == b.Protocol && a.From == b.From && a.To == b.To &&
		a.CIDR == b.CIDR && a.Group == b.Group && a.PrefixList == b.PrefixList
}

// peer writes a rule as AWS's duplicate message does.
func peer(r state.SecurityGroupRule) string {
	who := r.Group + r.PrefixList
	if r.CIDR.IsValid() {
		who = r.CIDR.String()
	}
	if r.Protocol == "-1" {
		return fmt.Sprintf("peer: %s, ALL, ALLOW", who)
	}
	return fmt.Sprintf("peer: %s, %s, from port: %d, to port: %d, ALLOW", who, strings.ToUpper(r.Protocol), r.From, r.To)
}

func (e *EC2) authorize(ctx context.Context, id, name *string, q grant, specs []api.TagSpecification, egress bool) ([]api.SecurityGroupRule, error) {
	tags, err := tagsFor("security-group-rule", specs)
	if err != nil {
		return nil, err
	}
	var out []api.SecurityGroupRule
	err = e.DB.Update(ctx, func(tx *store.Tx) error {
		out = nil
		g, err := group(tx, e.Account(ctx), id, name)
		if err != nil {
			return err
		}
		added, err := e.rules(tx, g, q, egress)
		if err != nil {
			return err
		}
		next := *g
		next.Rules = slices.Clone(g.Rules)
		for i, r := range added {
			if slices.ContainsFunc(added[:i], func(have state.SecurityGroupRule) bool { return same(have, r) }) {
				return bad("InvalidParameterValue", "The same permission must not appear multiple times")
			}
			if slices.ContainsFunc(next.Rules, func(have state.SecurityGroupRule) bool { return same(have, r) }) {
				return bad("InvalidPermission.Duplicate", "the specified rule \"%s\" already exists", peer(r))
			}
			r.ID, r.Tags = e.id("sgr"), tags
			next.Rules = append(next.Rules, r)
			out = append(out, e.ruleView(tx, &next, r))
		}
		if err := withinLimit(tx, &next); err != nil {
			return err
		}
		state.SecurityGroups.Put(tx, &next)
		return nil
	})
	return out, err
}

func (e *EC2) ruleView(rd store.Reader, g *state.SecurityGroup, r state.SecurityGroupRule) api.SecurityGroupRule {
	out := api.SecurityGroupRule{SecurityGroupRuleId: new(r.ID), GroupId: new(g.ID), GroupOwnerId: new(g.Account), IsEgress: new(r.Egress),
		IpProtocol: new(r.Protocol), FromPort: new(int32(r.From)), ToPort: new(int32(r.To)), Description: optional(r.Description),
		Tags: tagsView(r.Tags), SecurityGroupRuleArn: e.arn(g.Account, "security-group-rule", r.ID)}
	switch {
	case r.Group != "":
		p := pairOf(rd, g, r)
		out.ReferencedGroupInfo = &api.ReferencedSecurityGroup{GroupId: p.GroupId, UserId: p.UserId, VpcId: p.VpcId, VpcPeeringConnectionId: p.VpcPeeringConnectionId, PeeringStatus: p.PeeringStatus}
	case r.PrefixList != "":
		out.PrefixListId = new(r.PrefixList)
	case r.CIDR.Addr().Is6():
		out.CidrIpv6 = new(r.CIDR.String())
	default:
		out.CidrIpv4 = new(r.CIDR.String())
	}
	return out
}

// AuthorizeSecurityGroupIngress lets more in.
func (e *EC2) AuthorizeSecurityGroupIngress(ctx context.Context, in *api.AuthorizeSecurityGroupIngressInput) (*api.AuthorizeSecurityGroupIngressOutput, error) {
	rules, err := e.authorize(ctx, in.GroupId, in.GroupName, grant{in.IpPermissions, in.CidrIp, in.IpProtocol, in.FromPort, in.ToPort, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, false}, in.TagSpecifications, false)
	if err != nil {
		return nil, err
	}
	return &api.AuthorizeSecurityGroupIngressOutput{Return: new(true), SecurityGroupRules: rules}, nil
}

// AuthorizeSecurityGroupEgress lets more out.
func (e *EC2) AuthorizeSecurityGroupEgress(ctx context.Context, in *api.AuthorizeSecurityGroupEgressInput) (*api.AuthorizeSecurityGroupEgressOutput, error) {
	rules, err := e.authorize(ctx, in.GroupId, nil, grant{in.IpPermissions, in.CidrIp, in.IpProtocol, in.FromPort, in.ToPort, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, false}, in.TagSpecifications, true)
	if err != nil {
		return nil, err
	}
	return &api.AuthorizeSecurityGroupEgressOutput{Return: new(true), SecurityGroupRules: rules}, nil
}

func (e *EC2) revoke(ctx context.Context, id, name *string, q grant, ids []string, egress bool) ([]api.RevokedSecurityGroupRule, error) {
	var out []api.RevokedSecurityGroupRule
	err := e.DB.Update(ctx, func(tx *store.Tx) error {
		out = nil
		g, err := group(tx, e.Account(ctx), id, name)
		if err != nil {
			return err
		}
		var gone []int
		if len(ids) > 0 {
			for _, id := range ids {
				i := slices.IndexFunc(g.Rules, func(r state.SecurityGroupRule) bool { return r.ID == id && r.Egress == egress })
				if i < 0 {
					return noRule(id)
				}
				gone = append(gone, i)
			}
		} else {
			q.gone = true
			rules, err := e.rules(tx, g, q, egress)
			if err != nil {
				return err
			}
			for _, r := range rules {
				i := slices.IndexFunc(g.Rules, func(have state.SecurityGroupRule) bool { return same(have, r) })
				if i < 0 {
					return bad("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
				}
				gone = append(gone, i)
			}
		}
		next := *g
		next.Rules = nil
		for i, r := range g.Rules {
			if !slices.Contains(gone, i) {
				next.Rules = append(next.Rules, r)
				continue
			}
			v := e.ruleView(tx, g, r)
			x := api.RevokedSecurityGroupRule{SecurityGroupRuleId: v.SecurityGroupRuleId, GroupId: v.GroupId, IsEgress: v.IsEgress, IpProtocol: v.IpProtocol,
				FromPort: v.FromPort, ToPort: v.ToPort, CidrIpv4: v.CidrIpv4, CidrIpv6: v.CidrIpv6, PrefixListId: v.PrefixListId, Description: v.Description}
			if v.ReferencedGroupInfo != nil {
				x.ReferencedGroupId = v.ReferencedGroupInfo.GroupId
			}
			out = append(out, x)
		}
		state.SecurityGroups.Put(tx, &next)
		return nil
	})
	return out, err
}

// RevokeSecurityGroupIngress takes rules back. Connections that are open stay open.
func (e *EC2) RevokeSecurityGroupIngress(ctx context.Context, in *api.RevokeSecurityGroupIngressInput) (*api.RevokeSecurityGroupIngressOutput, error) {
	out, err := e.revoke(ctx, in.GroupId, in.GroupName, grant{in.IpPermissions, in.CidrIp, in.IpProtocol, in.FromPort, in.ToPort, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, false}, in.SecurityGroupRuleIds, false)
	if err != nil {
		return nil, err
	}
	return &api.RevokeSecurityGroupIngressOutput{Return: new(true), RevokedSecurityGroupRules: out}, nil
}

// RevokeSecurityGroupEgress takes rules back.
func (e *EC2) RevokeSecurityGroupEgress(ctx context.Context, in *api.RevokeSecurityGroupEgressInput) (*api.RevokeSecurityGroupEgressOutput, error) {
	out, err := e.revoke(ctx, in.GroupId, nil, grant{in.IpPermissions, in.CidrIp, in.IpProtocol, in.FromPort, in.ToPort, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, false}, in.SecurityGroupRuleIds, true)
	if err != nil {
		return nil, err
	}
	return &api.RevokeSecurityGroupEgressOutput{Return: new(true), RevokedSecurityGroupRules: out}, nil
}

// DescribeSecurityGroupRules lists rules one by one.
func (e *EC2) DescribeSecurityGroupRules(ctx context.Context, in *api.DescribeSecurityGroupRulesInput) (*api.DescribeSecurityGroupRulesOutput, error) {
	snap := e.DB.Snapshot()
	type row struct {
		g *state.SecurityGroup
		r state.SecurityGroupRule
	}
	var rows []row
	for g := range state.SecurityGroups.By(snap, "account", e.Account(ctx)) {
		for _, r := range g.Rules {
			rows = append(rows, row{g, r})
		}
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.r.ID, b.r.ID) })
	out, next, err := list(request{in.SecurityGroupRuleIds, in.Filters, in.MaxResults, in.NextToken}, kind[row, api.SecurityGroupRule]{
		name: "sgrs", rows: slices.Values(rows), id: func(x row) string { return x.r.ID }, missing: noRule,
		tags: func(x row) []state.Tag { return x.r.Tags },
		filters: filters[row]{
			"group-id":               func(x row) []string { return one(x.g.ID) },
			"security-group-rule-id": func(x row) []string { return one(x.r.ID) },
		},
		view: func(x row) api.SecurityGroupRule { return e.ruleView(snap, x.g, x.r) },
	})
	return &api.DescribeSecurityGroupRulesOutput{SecurityGroupRules: out, NextToken: next}, err
}
