package iam

import (
	"context"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth/managed"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// CreateAccountAlias names the account; a name it had is gone. No two accounts
// have one name.
func (s *Service) CreateAccountAlias(ctx context.Context, in *api.CreateAccountAliasInput) (*api.CreateAccountAliasOutput, error) {
	acct, alias := account(ctx), *in.AccountAlias
	return &api.CreateAccountAliasOutput{}, s.update(ctx, func(tx *store.Tx) error {
		for a := range state.Accounts.All(tx) {
			if a.Alias == alias {
				return exists("The account alias %s already exists.", alias)
			}
		}
		return setAlias(tx, acct, alias)
	})
}

func setAlias(tx *store.Tx, account, alias string) error {
	old, ok := state.Accounts.Get(tx, account)
	if !ok {
		return noSuch("The account with id %s cannot be found.", account)
	}
	next := *old
	next.Alias = alias
	state.Accounts.Put(tx, &next)
	return nil
}

// DeleteAccountAlias takes the account's name away.
func (s *Service) DeleteAccountAlias(ctx context.Context, in *api.DeleteAccountAliasInput) (*api.DeleteAccountAliasOutput, error) {
	acct := account(ctx)
	return &api.DeleteAccountAliasOutput{}, s.update(ctx, func(tx *store.Tx) error {
		if a, ok := state.Accounts.Get(tx, acct); !ok || a.Alias != *in.AccountAlias {
			return noSuch("The account alias %s cannot be found.", *in.AccountAlias)
		}
		return setAlias(tx, acct, "")
	})
}

// ListAccountAliases shows the account's name: there is one at most.
func (s *Service) ListAccountAliases(ctx context.Context, in *api.ListAccountAliasesInput) (*api.ListAccountAliasesOutput, error) {
	all := []string{}
	if a, ok := state.Accounts.Get(s.db.Snapshot(), account(ctx)); ok && a.Alias != "" {
		all = append(all, a.Alias)
	}
	all, more, marker, err := cut(ctx, s, in, all, func(a string) string { return a })
	if err != nil {
		return nil, err
	}
	return &api.ListAccountAliasesOutput{AccountAliases: all, IsTruncated: more, Marker: marker}, nil
}

// SetSecurityTokenServicePreferences sets the version of the global endpoint's
// tokens. Every token here is good in the region that made it: the choice is
// shown by GetAccountSummary, and changes nothing else.
func (s *Service) SetSecurityTokenServicePreferences(ctx context.Context, in *api.SetSecurityTokenServicePreferencesInput) (*api.SetSecurityTokenServicePreferencesOutput, error) {
	return &api.SetSecurityTokenServicePreferencesOutput{}, s.setAccount(ctx, func(a *state.IAMSettings) error {
		a.TokenVersion = 1
		if in.GlobalEndpointTokenVersion == api.GlobalEndpointTokenVersionV2Token {
			a.TokenVersion = 2
		}
		return nil
	})
}

// GetAccountSummary counts what the account has, and how much it may have.
func (s *Service) GetAccountSummary(ctx context.Context, _ *api.GetAccountSummaryInput) (*api.GetAccountSummaryOutput, error) {
	r, acct := s.db.Snapshot(), account(ctx)
	m := map[string]int32{
		"Users":              int32(count(r, state.Users, acct)),
		"Groups":             int32(count(r, state.Groups, acct)),
		"Roles":              int32(count(r, state.Roles, acct)),
		"InstanceProfiles":   int32(count(r, state.InstanceProfiles, acct)),
		"ServerCertificates": int32(count(r, state.ServerCertificates, acct)),
		"Providers":          int32(len(oidcProviders(r, acct)) + len(samlProviders(r, acct))),
		// The root user has neither a password nor a device, nor can it get them here.
		"AccountMFAEnabled": 0, "AccountPasswordPresent": 0, "AccountSigningCertificatesPresent": 0,
		"AccountAccessKeysPresent": 0, "GlobalEndpointTokenVersion": 1,
	}
	for name, key := range map[string]string{
		"UsersQuota": "users", "GroupsQuota": "groups", "RolesQuota": "roles", "PoliciesQuota": "policies",
		"InstanceProfilesQuota": "instance-profiles", "ServerCertificatesQuota": "server-certificates",
		"GroupsPerUserQuota": "groups-per-user", "AccessKeysPerUserQuota": "access-keys-per-user",
		"SigningCertificatesPerUserQuota": "signing-certificates-per-user", "VersionsPerPolicyQuota": "versions-per-policy",
		"AttachedPoliciesPerUserQuota": "policies-per-user", "AttachedPoliciesPerGroupQuota": "policies-per-group",
		"AttachedPoliciesPerRoleQuota": "policies-per-role", "PolicySizeQuota": "policy-size",
		"UserPolicySizeQuota": "user-policy-size", "GroupPolicySizeQuota": "group-policy-size", "RolePolicySizeQuota": "role-policy-size",
		"AssumeRolePolicySizeQuota": "trust-policy-size", "PolicyVersionsInUseQuota": "policy-versions",
	} {
		m[name] = int32(limit(r, acct, key))
	}
	for p := range state.ManagedPolicies.Prefix(r, acct+"/") {
		m["Policies"]++
		m["PolicyVersionsInUse"] += int32(len(p.Versions))
	}
	for d := range state.MFADevices.By(r, "account", acct) {
		m["MFADevices"]++
		if d.UserID != "" {
			m["MFADevicesInUse"]++
		}
	}
	for _, name := range []string{"Policies", "PolicyVersionsInUse", "MFADevices", "MFADevicesInUse"} {
		m[name] += 0 // a count of nothing is shown
	}
	if len(keysOf(r, acct, "")) > 0 {
		m["AccountAccessKeysPresent"] = 1
	}
	if a, ok := state.IAMAccounts.Get(r, acct); ok && a.TokenVersion == 2 {
		m["GlobalEndpointTokenVersion"] = 2
	}
	return &api.GetAccountSummaryOutput{SummaryMap: m}, nil
}

// A detail is one entity of GetAccountAuthorizationDetails.
type detail struct {
	key string
	add func(*api.GetAccountAuthorizationDetailsOutput)
}

// GetAccountAuthorizationDetails shows all entities with all of their policies.
func (s *Service) GetAccountAuthorizationDetails(ctx context.Context, in *api.GetAccountAuthorizationDetailsInput) (*api.GetAccountAuthorizationDetailsOutput, error) {
	r, acct := s.db.Snapshot(), account(ctx)
	wanted := func(t api.EntityType) bool { return len(in.Filter) == 0 || slices.Contains(in.Filter, t) }
	var all []detail
	if wanted(api.EntityTypeUser) {
		for u := range state.Users.Prefix(r, acct+"/") {
			all = append(all, detail{"1/" + userKey(u), func(out *api.GetAccountAuthorizationDetailsOutput) {
				out.UserDetailList = append(out.UserDetailList, userDetail(r, u))
			}})
		}
	}
	if wanted(api.EntityTypeGroup) {
		for g := range state.Groups.Prefix(r, acct+"/") {
			all = append(all, detail{"2/" + groupKey(g), func(out *api.GetAccountAuthorizationDetailsOutput) {
				out.GroupDetailList = append(out.GroupDetailList, api.GroupDetail{Path: &g.Path, GroupName: &g.Name, GroupId: &g.ID, Arn: new(g.ARN()),
					CreateDate: &g.CreatedAt, GroupPolicyList: inlineDetails(g.Inline), AttachedManagedPolicies: attachedDetails(r, acct, g.Attached)})
			}})
		}
	}
	if wanted(api.EntityTypeRole) {
		for x := range state.Roles.Prefix(r, acct+"/") {
			all = append(all, detail{"3/" + roleKey(x), func(out *api.GetAccountAuthorizationDetailsOutput) {
				out.RoleDetailList = append(out.RoleDetailList, roleDetail(r, x))
			}})
		}
	}
	if wanted(api.EntityTypeLocalManagedPolicy) {
		for p := range state.ManagedPolicies.Prefix(r, acct+"/") {
			all = append(all, detail{"4/" + strings.ToLower(p.Name), func(out *api.GetAccountAuthorizationDetailsOutput) {
				out.Policies = append(out.Policies, policyDetail(viewPolicy(r, p, true), p))
			}})
		}
	}
	if wanted(api.EntityTypeAWSManagedPolicy) {
		for _, p := range managed.All() {
			v := viewManaged(r, acct, p)
			if *v.AttachmentCount+*v.PermissionsBoundaryUsageCount == 0 {
				continue // AWS shows those in use
			}
			all = append(all, detail{"5/" + strings.ToLower(p.Name), func(out *api.GetAccountAuthorizationDetailsOutput) {
				out.Policies = append(out.Policies, policyDetail(v, ofAWS(p)))
			}})
		}
	}
	all, more, marker, err := cut(ctx, s, in, all, func(d detail) string { return d.key })
	if err != nil {
		return nil, err
	}
	out := &api.GetAccountAuthorizationDetailsOutput{IsTruncated: more, Marker: marker, UserDetailList: []api.UserDetail{},
		GroupDetailList: []api.GroupDetail{}, RoleDetailList: []api.RoleDetail{}, Policies: []api.ManagedPolicyDetail{}}
	for _, d := range all {
		d.add(out)
	}
	return out, nil
}

func inlineDetails(inline []state.InlinePolicy) []api.PolicyDetail {
	out := []api.PolicyDetail{}
	for i := range inline {
		out = append(out, api.PolicyDetail{PolicyName: &inline[i].Name, PolicyDocument: encoded(inline[i].Document)})
	}
	return byKey(out, func(p api.PolicyDetail) string { return *p.PolicyName })
}

func attachedDetails(r store.Reader, account string, attached []string) []api.AttachedPolicy {
	out := []api.AttachedPolicy{}
	for _, arn := range attached {
		if p, err := anyPolicy(r, account, arn); err == nil {
			out = append(out, api.AttachedPolicy{PolicyName: &p.Name, PolicyArn: &arn})
		}
	}
	return byKey(out, func(p api.AttachedPolicy) string { return nameKey(*p.PolicyName, *p.PolicyArn) })
}

func userDetail(r store.Reader, u *state.User) api.UserDetail {
	return api.UserDetail{Path: &u.Path, UserName: &u.Name, UserId: &u.ID, Arn: new(u.ARN()), CreateDate: &u.CreatedAt,
		UserPolicyList: inlineDetails(u.Inline), GroupList: slices.Sorted(slices.Values(u.Groups)),
		AttachedManagedPolicies: attachedDetails(r, u.Account, u.Attached), PermissionsBoundary: viewBoundary(u.Boundary), Tags: viewTags(u.Tags)}
}

func roleDetail(r store.Reader, x *state.Role) api.RoleDetail {
	d := api.RoleDetail{Path: &x.Path, RoleName: &x.Name, RoleId: &x.ID, Arn: new(x.ARN()), CreateDate: &x.CreatedAt,
		AssumeRolePolicyDocument: encoded(x.Trust), InstanceProfileList: []api.InstanceProfile{}, RolePolicyList: inlineDetails(x.Inline),
		AttachedManagedPolicies: attachedDetails(r, x.Account, x.Attached), PermissionsBoundary: viewBoundary(x.Boundary),
		Tags: viewTags(x.Tags), RoleLastUsed: roleLastUsed(r, x)}
	for _, p := range profilesOf(r, x) {
		d.InstanceProfileList = append(d.InstanceProfileList, *viewProfile(r, p))
	}
	return d
}

func policyDetail(v *api.Policy, p *state.ManagedPolicy) api.ManagedPolicyDetail {
	d := api.ManagedPolicyDetail{PolicyName: v.PolicyName, PolicyId: v.PolicyId, Arn: v.Arn, Path: v.Path, DefaultVersionId: v.DefaultVersionId,
		AttachmentCount: v.AttachmentCount, PermissionsBoundaryUsageCount: v.PermissionsBoundaryUsageCount, IsAttachable: v.IsAttachable,
		Description: v.Description, CreateDate: v.CreateDate, UpdateDate: v.UpdateDate, PolicyVersionList: []api.PolicyVersion{}}
	for i := range slices.Backward(p.Versions) { // newest first
		d.PolicyVersionList = append(d.PolicyVersionList, *viewVersion(p, &p.Versions[i], true))
	}
	return d
}
