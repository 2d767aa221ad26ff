package ec2

import (
	"context"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Authorize says on which resources operations are authorized. Describe calls
// are authorized on every resource, as in AWS; so is what is not named here.
func (e *EC2) Authorize() map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
	m := e.authorizeNetworks()
	resource := func(c *auth.Caller, kind, id string) string {
		if id == "" {
			id = "*"
		}
		return *e.arn(c.Account, kind, id)
	}
	onGroup := func(op string, of func(in any) (id, name *string)) {
		m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
			id, name := of(in)
			k := auth.Check{Action: "ec2:" + op, Resource: resource(c, "security-group", wire.Value(id))}
			if g, err := group(r, c.Account, id, name); err == nil {
				k.Resource = resource(c, "security-group", g.ID)
				k.Keys = map[string][]string{"ec2:Vpc": {resource(c, "vpc", g.VPC)}}
				for _, t := range g.Tags {
					k.Keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
					k.Keys["ec2:ResourceTag/"+t.Key] = []string{t.Value}
				}
			}
			return []auth.Check{k}
		}
	}
	onGroup("DeleteSecurityGroup", func(in any) (*string, *string) {
		x := in.(*api.DeleteSecurityGroupInput)
		return x.GroupId, x.GroupName
	})
	onGroup("AuthorizeSecurityGroupIngress", func(in any) (*string, *string) {
		x := in.(*api.AuthorizeSecurityGroupIngressInput)
		return x.GroupId, x.GroupName
	})
	onGroup("AuthorizeSecurityGroupEgress", func(in any) (*string, *string) {
		return in.(*api.AuthorizeSecurityGroupEgressInput).GroupId, nil
	})
	onGroup("RevokeSecurityGroupIngress", func(in any) (*string, *string) {
		x := in.(*api.RevokeSecurityGroupIngressInput)
		return x.GroupId, x.GroupName
	})
	onGroup("RevokeSecurityGroupEgress", func(in any) (*string, *string) {
		return in.(*api.RevokeSecurityGroupEgressInput).GroupId, nil
	})
	m["CreateSecurityGroup"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.CreateSecurityGroupInput)
		vpc := wire.Value(x.VpcId)
		for v := range state.VPCs.By(r, "account", c.Account) {
			if vpc == "" && v.Default {
				vpc = v.ID
			}
		}
		keys := requestTags(x.TagSpecifications)
		checks := []auth.Check{
			{Action: "ec2:CreateSecurityGroup", Resource: resource(c, "security-group", ""), Keys: keys},
			{Action: "ec2:CreateSecurityGroup", Resource: resource(c, "vpc", vpc)},
		}
		if len(x.TagSpecifications) > 0 {
			keys["ec2:CreateAction"] = []string{"CreateSecurityGroup"}
			checks = append(checks, auth.Check{Action: "ec2:CreateTags", Resource: resource(c, "security-group", ""), Keys: keys})
		}
		return checks
	}
	onTags := func(op string, of func(in any) ([]string, []api.Tag)) {
		m[op] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) (checks []auth.Check) {
			ids, tags := of(in)
			keys := requestTags([]api.TagSpecification{{Tags: tags}})
			for _, id := range ids {
				checks = append(checks, auth.Check{Action: "ec2:" + op, Resource: resource(c, kindOf(id), id), Keys: keys})
			}
			return checks
		}
	}
	onTags("CreateTags", func(in any) ([]string, []api.Tag) {
		x := in.(*api.CreateTagsInput)
		return x.Resources, x.Tags
	})
	onTags("DeleteTags", func(in any) ([]string, []api.Tag) {
		x := in.(*api.DeleteTagsInput)
		return x.Resources, x.Tags
	})
	e.authorizeInterfaces(m)
	e.authorizeInstances(m)
	return m
}

func requestTags(specs []api.TagSpecification) map[string][]string {
	keys := map[string][]string{}
	for _, s := range specs {
		for _, t := range s.Tags {
			keys["aws:RequestTag/"+wire.Value(t.Key)] = []string{wire.Value(t.Value)}
			keys["aws:TagKeys"] = append(keys["aws:TagKeys"], wire.Value(t.Key))
		}
	}
	return keys
}
