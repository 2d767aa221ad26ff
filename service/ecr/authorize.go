package ecr

import (
	"context"
	"reflect"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/service"
	"github.com/berth-run/berth/store"
)

// Authorize says for every operation what the front door has to check: the
// action of the operation's name, on a repository or on everything. Repository
// policies come with the check.
func (s *Service) Authorize() map[string]service.Authorize {
	table := map[string]service.Authorize{}
	for name := range ecr.NewService(s).Operations {
		table[name] = everything("ecr:" + name)
	}
	// one is an operation on the repository that the input names.
	one := func(name string, of func(in any) (registryID, repository *string)) {
		action := "ecr:" + name
		table[name] = func(_ context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check {
			registryID, repository := of(in)
			if repository == nil {
				return []auth.Check{{Action: action, Resource: "*"}}
			}
			return []auth.Check{s.Registry.Check(r, caller, action, accountOf(caller, registryID), *repository)}
		}
	}
	// Every operation that names one repository does it by the same two members.
	for name, op := range ecr.NewService(s).Operations {
		input := reflect.TypeOf(op.In).Elem()
		member, ok := input.FieldByName("RepositoryName")
		if !ok || member.Type != reflect.TypeFor[*string]() {
			continue
		}
		registry, hasRegistry := input.FieldByName("RegistryId")
		one(name, func(in any) (registryID, repository *string) {
			v := reflect.ValueOf(in).Elem()
			if hasRegistry {
				registryID = v.FieldByIndex(registry.Index).Interface().(*string)
			}
			return registryID, v.FieldByIndex(member.Index).Interface().(*string)
		})
	}
	for name, arn := range map[string]func(in any) *string{
		"TagResource":         func(in any) *string { return in.(*ecr.TagResourceInput).ResourceArn },
		"UntagResource":       func(in any) *string { return in.(*ecr.UntagResourceInput).ResourceArn },
		"ListTagsForResource": func(in any) *string { return in.(*ecr.ListTagsForResourceInput).ResourceArn },
	} {
		one(name, func(in any) (*string, *string) {
			v := arn(in)
			if v == nil {
				return nil, nil
			}
			account, name, err := s.byARN(*v)
			if err != nil {
				return nil, nil // refused by the handler, for who may do it to everything
			}
			return &account, &name
		})
	}

	create := table["CreateRepository"]
	table["CreateRepository"] = func(ctx context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check {
		v := in.(*ecr.CreateRepositoryInput)
		checks := create(ctx, r, caller, in)
		for i := range checks {
			// What is to be made has no tags of its own yet, and no policy but the registry's.
			if v.RepositoryName != nil {
				checks[i] = s.Registry.CheckNew(r, checks[i].Action, accountOf(caller, v.RegistryId), *v.RepositoryName)
			}
			checks[i].Keys = tagKeys(v.Tags)
		}
		if len(v.Tags) > 0 {
			tag := checks[0]
			tag.Action = "ecr:TagResource"
			checks = append(checks, tag)
		}
		return checks
	}
	tag := table["TagResource"]
	table["TagResource"] = func(ctx context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check {
		checks := tag(ctx, r, caller, in)
		for i := range checks {
			for k, v := range tagKeys(in.(*ecr.TagResourceInput).Tags) {
				if checks[i].Keys == nil {
					checks[i].Keys = map[string][]string{}
				}
				checks[i].Keys[k] = v
			}
		}
		return checks
	}
	table["DescribeRepositories"] = func(_ context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check {
		v := in.(*ecr.DescribeRepositoriesInput)
		account, names := accountOf(caller, v.RegistryId), v.RepositoryNames
		if len(names) == 0 {
			names = []string{"*"}
		}
		var checks []auth.Check
		for _, n := range names {
			checks = append(checks, s.Registry.Check(r, caller, "ecr:DescribeRepositories", account, n))
		}
		return checks
	}
	// Who may pull an image may see what is about it: there is no action of its own.
	referrers := table["ListImageReferrers"]
	table["ListImageReferrers"] = func(ctx context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check {
		checks := referrers(ctx, r, caller, in)
		for i := range checks {
			checks[i].Action = "ecr:BatchGetImage"
		}
		return checks
	}
	table["BatchGetRepositoryScanningConfiguration"] = func(_ context.Context, r store.Reader, caller *auth.Caller, in any) []auth.Check {
		var checks []auth.Check
		for _, n := range in.(*ecr.BatchGetRepositoryScanningConfigurationInput).RepositoryNames {
			checks = append(checks, s.Registry.Check(r, caller, "ecr:BatchGetRepositoryScanningConfiguration", accountOf(caller, nil), n))
		}
		if checks == nil {
			checks = []auth.Check{{Action: "ecr:BatchGetRepositoryScanningConfiguration", Resource: "*"}}
		}
		return checks
	}
	return table
}

// everything is an operation that names no repository.
func everything(action string) service.Authorize {
	checks := []auth.Check{{Action: action, Resource: "*"}}
	return func(context.Context, store.Reader, *auth.Caller, any) []auth.Check { return checks }
}

func accountOf(caller *auth.Caller, registryID *string) string {
	if registryID != nil && *registryID != "" {
		return *registryID
	}
	if caller == nil {
		return ""
	}
	return caller.Account
}

// tagKeys are the condition keys of tags in a request.
func tagKeys(tags []ecr.Tag) map[string][]string {
	if len(tags) == 0 {
		return nil
	}
	keys := map[string][]string{}
	for _, t := range tags {
		if t.Key == nil {
			continue
		}
		value := ""
		if t.Value != nil {
			value = *t.Value
		}
		keys["aws:RequestTag/"+*t.Key] = []string{value}
		keys["aws:TagKeys"] = append(keys["aws:TagKeys"], *t.Key)
	}
	return keys
}
