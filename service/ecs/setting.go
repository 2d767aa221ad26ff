package ecs

import (
	"context"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// dualStack is a setting that AWS lists and its API model does not name.
const dualStack = api.SettingName("dualStackIPv6")

// A settingRule says what an account setting may be.
type settingRule struct {
	name    api.SettingName
	def     string   // value of an account that never set it
	values  []string // what it may be set to; none: AWS manages it
	managed bool
}

var onOff = []string{"enabled", "disabled"}

var settingRules = []settingRule{
	{name: api.SettingNameAwsvpcTrunking, def: "disabled", values: onOff},
	{name: api.SettingNameContainerInsights, def: "disabled", values: []string{"enabled", "disabled", "enhanced"}},
	// The short formats of ARNs are gone: these stay enabled.
	{name: api.SettingNameContainerInstanceLongArnFormat, def: "enabled", values: []string{"enabled"}},
	{name: state.LogModeSetting, def: state.DefaultLogMode, values: []string{"blocking", "non-blocking"}},
	// Tasks get no IPv6 addresses.
	{name: dualStack, def: "disabled", managed: true},
	{name: api.SettingNameFargateEventWindows, def: "disabled", values: onOff},
	{name: api.SettingNameFargateFIPSMode, def: "disabled", values: onOff},
	{name: api.SettingNameFargateTaskRetirementWaitPeriod, def: "7", values: []string{"0", "7", "14"}},
	{name: api.SettingNameGuardDutyActivate, def: "off", managed: true},
	{name: api.SettingNameServiceLongArnFormat, def: "enabled", values: []string{"enabled"}},
	{name: api.SettingNameTagResourceAuthorization, def: "on", values: []string{"on"}},
	{name: api.SettingNameTaskLongArnFormat, def: "enabled", values: []string{"enabled"}},
}

func settingRuleOf(name string) (settingRule, bool) {
	i := slices.IndexFunc(settingRules, func(s settingRule) bool { return string(s.name) == name })
	if i < 0 {
		return settingRule{}, false
	}
	return settingRules[i], true
}

type setting struct{ value, principal string }

// effective is the value of a setting for a principal: its own, the account's
// default, or AWS's.
func effective(r store.Reader, account, principal, name string) setting {
	for _, p := range []string{principal, ""} {
		if s, ok := state.AccountSettings.Get(r, account+"/"+p+"/"+name); ok {
			return setting{s.Value, p}
		}
	}
	rule, _ := settingRuleOf(name)
	return setting{rule.def, ""}
}

func (e *ECS) settingView(account string, name api.SettingName, s setting) api.Setting {
	if s.principal == "" {
		s.principal = rootARN(account)
	}
	kind := api.SettingTypeUser
	if rule, _ := settingRuleOf(string(name)); rule.managed {
		kind = api.SettingTypeAwsManaged
	}
	return api.Setting{Name: name, Value: &s.value, PrincipalArn: &s.principal, Type: kind}
}

func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// settingPrincipal is whose setting a request means: "" for the account's
// default. Others than the caller are for the root user alone.
func settingPrincipal(caller *auth.Caller, action string, named *string) (string, error) {
	p := val(named)
	if p == "" {
		p = caller.PrincipalARN()
	}
	if !strings.HasPrefix(p, "arn:aws:iam::"+caller.Account+":") {
		return "", invalid("Invalid principal arn")
	}
	if p != caller.PrincipalARN() && caller.PrincipalARN() != rootARN(caller.Account) {
		return "", &api.AccessDeniedException{Message: "User: " + caller.ARN + " is not authorized to perform: ecs:" + action + " on the settings of " + p}
	}
	if p == rootARN(caller.Account) {
		return "", nil
	}
	return p, nil
}

func (e *ECS) putSetting(ctx context.Context, account, principal string, name api.SettingName, value string) (*api.Setting, error) {
	rule, ok := settingRuleOf(string(name))
	switch {
	case !ok:
		return nil, invalid("Invalid setting name: %s", name)
	case rule.managed:
		return nil, invalid("The setting %s is managed by AWS.", name)
	case !slices.Contains(rule.values, value):
		return nil, invalid("Invalid value for setting %s: %s. Valid values: %s", name, value, strings.Join(rule.values, ", "))
	}
	out := e.settingView(account, name, setting{value, principal})
	return &out, e.update(ctx, func(tx *store.Tx) error {
		state.AccountSettings.Put(tx, &state.AccountSetting{Account: account, Principal: principal, Name: string(name), Value: value})
		return nil
	})
}

// PutAccountSetting changes a setting of one principal.
func (e *ECS) PutAccountSetting(ctx context.Context, in *api.PutAccountSettingInput) (*api.PutAccountSettingOutput, error) {
	caller := e.caller(ctx)
	p, err := settingPrincipal(caller, "PutAccountSetting", in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	s, err := e.putSetting(ctx, caller.Account, p, in.Name, val(in.Value))
	return &api.PutAccountSettingOutput{Setting: s}, err
}

// PutAccountSettingDefault changes a setting of all who have none of their own.
func (e *ECS) PutAccountSettingDefault(ctx context.Context, in *api.PutAccountSettingDefaultInput) (*api.PutAccountSettingDefaultOutput, error) {
	s, err := e.putSetting(ctx, e.caller(ctx).Account, "", in.Name, val(in.Value))
	return &api.PutAccountSettingDefaultOutput{Setting: s}, err
}

// DeleteAccountSetting makes a principal follow the account's default again.
func (e *ECS) DeleteAccountSetting(ctx context.Context, in *api.DeleteAccountSettingInput) (*api.DeleteAccountSettingOutput, error) {
	caller := e.caller(ctx)
	p, err := settingPrincipal(caller, "DeleteAccountSetting", in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	switch rule, ok := settingRuleOf(string(in.Name)); {
	case !ok:
		return nil, invalid("Invalid setting name: %s", in.Name)
	case rule.managed:
		return nil, invalid("The setting %s is managed by AWS.", in.Name)
	}
	out := &api.DeleteAccountSettingOutput{}
	return out, e.update(ctx, func(tx *store.Tx) error {
		old := effective(tx, caller.Account, p, string(in.Name))
		v := e.settingView(caller.Account, in.Name, setting{old.value, p})
		out.Setting = &v
		state.AccountSettings.Delete(tx, caller.Account+"/"+p+"/"+string(in.Name))
		return nil
	})
}

// ListAccountSettings shows what a principal has set, or what applies to it.
func (e *ECS) ListAccountSettings(ctx context.Context, in *api.ListAccountSettingsInput) (*api.ListAccountSettingsOutput, error) {
	caller := e.caller(ctx)
	p, err := settingPrincipal(caller, "ListAccountSettings", in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	all := val(in.EffectiveSettings)
	r := e.db.Snapshot()
	found := map[string]api.Setting{}
	var names []string
	for _, rule := range settingRules {
		name := string(rule.name)
		s := effective(r, caller.Account, p, name)
		_, own := state.AccountSettings.Get(r, caller.Account+"/"+p+"/"+name)
		if !all && !own || in.Name != "" && in.Name != rule.name || in.Value != nil && *in.Value != s.value {
			continue
		}
		names = append(names, name)
		found[name] = e.settingView(caller.Account, rule.name, s)
	}
	q := query{"ListAccountSettings", caller.Account, p, string(in.Name), val(in.Value), map[bool]string{true: "all"}[all]}
	names, next, err := page(names, q, in.NextToken, in.MaxResults, 10, 10, e.now())
	if err != nil {
		return nil, err
	}
	out := &api.ListAccountSettingsOutput{Settings: []api.Setting{}, NextToken: next}
	for _, n := range names {
		out.Settings = append(out.Settings, found[n])
	}
	return out, nil
}
