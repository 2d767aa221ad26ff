package ssm

import (
	"context"
	"strings"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ssm"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Authorize says on which resources operations are authorized.
func (s *SSM) Authorize() map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check {
	m := map[string]func(context.Context, store.Reader, *auth.Caller, any) []auth.Check{}
	on := func(op string, of func(in any) []string) {
		m[op] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) (out []auth.Check) {
			for _, given := range of(in) {
				out = append(out, s.check(r, c, op, given))
			}
			if len(out) == 0 {
				out = append(out, auth.Check{Action: "ssm:" + op, Resource: s.arn(c.Account, "*")})
			}
			return out
		}
	}
	name := func(p *string) []string { return []string{wire.Value(p)} }
	on("GetParameter", func(in any) []string { return name(in.(*api.GetParameterInput).Name) })
	on("GetParameters", func(in any) []string { return in.(*api.GetParametersInput).Names })
	on("GetParameterHistory", func(in any) []string { return name(in.(*api.GetParameterHistoryInput).Name) })
	on("DeleteParameter", func(in any) []string { return name(in.(*api.DeleteParameterInput).Name) })
	on("DeleteParameters", func(in any) []string { return in.(*api.DeleteParametersInput).Names })
	on("LabelParameterVersion", func(in any) []string { return name(in.(*api.LabelParameterVersionInput).Name) })
	on("UnlabelParameterVersion", func(in any) []string { return name(in.(*api.UnlabelParameterVersionInput).Name) })
	m["GetParametersByPath"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.GetParametersByPathInput)
		k := s.check(r, c, "GetParametersByPath", strings.TrimSuffix(wire.Value(x.Path), "/"))
		k.Keys = map[string][]string{"ssm:Recursive": truth(wire.Value(x.Recursive))}
		return []auth.Check{k}
	}
	requested := func(keys map[string][]string, tags []api.Tag) {
		for _, t := range tags {
			keys["aws:RequestTag/"+wire.Value(t.Key)] = []string{wire.Value(t.Value)}
			keys["aws:TagKeys"] = append(keys["aws:TagKeys"], wire.Value(t.Key))
		}
	}
	m["PutParameter"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.PutParameterInput)
		k := s.check(r, c, "PutParameter", wire.Value(x.Name))
		k.Keys = map[string][]string{"ssm:Overwrite": truth(wire.Value(x.Overwrite))}
		requested(k.Keys, x.Tags)
		out := []auth.Check{k}
		if len(x.Tags) > 0 {
			t := auth.Check{Action: "ssm:AddTagsToResource", Resource: k.Resource, Account: k.Account, Keys: map[string][]string{}}
			requested(t.Keys, x.Tags)
			out = append(out, t)
		}
		return out
	}
	m["AddTagsToResource"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.AddTagsToResourceInput)
		k := s.check(r, c, "AddTagsToResource", wire.Value(x.ResourceId))
		requested(k.Keys, x.Tags)
		return []auth.Check{k}
	}
	m["RemoveTagsFromResource"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.RemoveTagsFromResourceInput)
		k := s.check(r, c, "RemoveTagsFromResource", wire.Value(x.ResourceId))
		k.Keys["aws:TagKeys"] = x.TagKeys
		return []auth.Check{k}
	}
	m["ListTagsForResource"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		return []auth.Check{s.check(r, c, "ListTagsForResource", wire.Value(in.(*api.ListTagsForResourceInput).ResourceId))}
	}
	instance := func(r store.Reader, c *auth.Caller, op string, target *string) auth.Check {
		id := wire.Value(target)
		if !strings.HasPrefix(id, "i-") && !strings.HasPrefix(id, "ecs:") {
			id = "*"
		}
		k := auth.Check{Action: "ssm:" + op, Resource: "arn:aws:ec2:" + s.Region + ":" + c.Account + ":instance/" + id, Keys: map[string][]string{}}
		if i, ok := state.Instances.Get(r, id); ok && i.Account == c.Account {
			for _, t := range i.Tags {
				k.Keys["aws:ResourceTag/"+t.Key], k.Keys["ssm:resourceTag/"+t.Key] = []string{t.Value}, []string{t.Value}
			}
		}
		return k
	}
	m["StartSession"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		x := in.(*api.StartSessionInput)
		k := instance(r, c, "StartSession", x.Target)
		if x.DocumentName == nil {
			return []auth.Check{k}
		}
		// Who names a document must be allowed it.
		k.Keys["ssm:SessionDocumentAccessCheck"] = truth(true)
		name, owner := documentName(x.DocumentName), c.Account
		if strings.HasPrefix(name, "AWS-") {
			owner = ""
		}
		d := auth.Check{Action: k.Action, Resource: "arn:aws:ssm:" + s.Region + ":" + owner + ":document/" + name, Account: c.Account, Keys: k.Keys}
		return []auth.Check{k, d}
	}
	m["GetConnectionStatus"] = func(_ context.Context, r store.Reader, c *auth.Caller, in any) []auth.Check {
		return []auth.Check{instance(r, c, "GetConnectionStatus", in.(*api.GetConnectionStatusInput).Target)}
	}
	session := func(c *auth.Caller, op string, id *string) []auth.Check {
		return []auth.Check{{Action: "ssm:" + op, Resource: "arn:aws:ssm:" + s.Region + ":" + c.Account + ":session/" + wire.Value(id)}}
	}
	m["ResumeSession"] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
		return session(c, "ResumeSession", in.(*api.ResumeSessionInput).SessionId)
	}
	m["TerminateSession"] = func(_ context.Context, _ store.Reader, c *auth.Caller, in any) []auth.Check {
		return session(c, "TerminateSession", in.(*api.TerminateSessionInput).SessionId)
	}
	return m
}

// check is the check of an action on a parameter, with the tags that it has.
func (s *SSM) check(r store.Reader, c *auth.Caller, op, given string) auth.Check {
	name, _ := split(given)
	name = s.bare(c.Account, name)
	owner := c.Account
	if strings.HasPrefix(name+"/", publicPrefix) {
		owner = ""
	}
	k := auth.Check{Action: "ssm:" + op, Resource: s.arn(owner, name), Account: c.Account, Keys: map[string][]string{}}
	if p, ok := state.Parameters.Get(r, state.ParameterKey(c.Account, name)); ok {
		for _, t := range p.Tags {
			k.Keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
		}
	}
	return k
}

func truth(b bool) []string {
	if b {
		return []string{"true"}
	}
	return []string{"false"}
}
