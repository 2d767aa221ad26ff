package ecr

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// kinds are the registries that are known by their hosts.
var kinds = []struct {
	host string // or, with a dot before it, the end of one
	kind ecr.UpstreamRegistry
}{
	{"public.ecr.aws", ecr.UpstreamRegistryEcrPublic},
	{"registry-1.docker.io", ecr.UpstreamRegistryDockerHub},
	{"quay.io", ecr.UpstreamRegistryQuay},
	{"registry.k8s.io", ecr.UpstreamRegistryK8s},
	{"ghcr.io", ecr.UpstreamRegistryGithubContainerRegistry},
	{"registry.gitlab.com", ecr.UpstreamRegistryGitlabContainerRegistry},
	{"cgr.dev", ecr.UpstreamRegistryChainguard},
	{".azurecr.io", ecr.UpstreamRegistryAzureContainerRegistry},
}

// upstreamHost checks that an upstream URL is a registry's host, with or
// without a scheme, and nothing more.
func upstreamHost(s string) bool {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil &&
		(u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == ""
}

// CreatePullThroughCacheRule makes the repositories below a prefix those of
// another registry, which is any that speaks the distribution API and gives
// its images to everybody.
func (s *Service) CreatePullThroughCacheRule(ctx context.Context, in *ecr.CreatePullThroughCacheRuleInput) (*ecr.CreatePullThroughCacheRuleOutput, error) {
	account, err := own(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	if err := noCredentials(in.CredentialArn); err != nil {
		return nil, err
	}
	if !upstreamHost(*in.UpstreamRegistryUrl) {
		return nil, &ecr.UnsupportedUpstreamRegistryException{Message: fmt.Sprintf("The upstream registry '%s' is not the host of a registry", *in.UpstreamRegistryUrl)}
	}
	now := s.Now()
	r := &state.PullThroughRule{
		Account: account, Prefix: *in.EcrRepositoryPrefix, Upstream: *in.UpstreamRegistryUrl, Registry: string(in.UpstreamRegistry),
		UpstreamPrefix: wire.Value(in.UpstreamRepositoryPrefix), Role: wire.Value(in.CustomRoleArn), CreatedAt: now, UpdatedAt: now,
	}
	if r.UpstreamPrefix == "" {
		r.UpstreamPrefix = state.Root
	}
	if r.Prefix == state.Root && r.UpstreamPrefix != state.Root {
		return nil, refuse("The upstream repository prefix must be ROOT if the ECR repository prefix is ROOT")
	}
	if r.Registry == "" {
		host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(r.Upstream, "https://"), "http://"), "/")
		for _, k := range kinds {
			if host == k.host || k.host[0] == '.' && strings.HasSuffix(host, k.host) {
				r.Registry = string(k.kind)
			}
		}
	}
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		// Whether the prefix ends with a slash makes no difference to what it is.
		for _, prefix := range []string{strings.TrimSuffix(r.Prefix, "/"), strings.TrimSuffix(r.Prefix, "/") + "/"} {
			if state.PullThroughRules.Has(tx, state.RepositoryKey(account, prefix)) {
				return &ecr.PullThroughCacheRuleAlreadyExistsException{Message: fmt.Sprintf("A pull through cache rule with repository prefix '%s' already exists in the registry with id '%s'", r.Prefix, account)}
			}
		}
		state.PullThroughRules.Guard(tx, state.RepositoryKey(account, ""))
		n := 0
		for range state.PullThroughRules.Prefix(tx, state.RepositoryKey(account, "")) {
			n++
		}
		if most := state.Limit(tx, account, "ecr/pull-through-rules"); n >= most {
			return &ecr.LimitExceededException{Message: fmt.Sprintf("The limit of %d pull through cache rules is reached", most)}
		}
		state.PullThroughRules.Put(tx, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreatePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: new(r.Prefix), UpstreamRegistryUrl: new(r.Upstream), CreatedAt: new(r.CreatedAt), RegistryId: new(account),
		UpstreamRegistry: ecr.UpstreamRegistry(r.Registry), CustomRoleArn: optional(r.Role), UpstreamRepositoryPrefix: new(r.UpstreamPrefix),
	}, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return new(s)
}

func noCredentials(arn *string) error {
	if arn == nil {
		return nil
	}
	return &ecr.UnableToAccessSecretException{Message: fmt.Sprintf("The secret '%s' cannot be read: pull through cache rules with credentials are not supported by Berth, which has no AWS Secrets Manager", *arn)}
}

func noRule(account, prefix string) error {
	return &ecr.PullThroughCacheRuleNotFoundException{Message: fmt.Sprintf("Pull through cache rule with repository prefix '%s' not found in the registry with id '%s'", prefix, account)}
}

// UpdatePullThroughCacheRule changes with which rights a rule reads.
func (s *Service) UpdatePullThroughCacheRule(ctx context.Context, in *ecr.UpdatePullThroughCacheRuleInput) (*ecr.UpdatePullThroughCacheRuleOutput, error) {
	account, err := own(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	if err := noCredentials(in.CredentialArn); err != nil {
		return nil, err
	}
	now := s.Now()
	var next state.PullThroughRule
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		have, ok := state.PullThroughRules.Get(tx, state.RepositoryKey(account, *in.EcrRepositoryPrefix))
		if !ok {
			return noRule(account, *in.EcrRepositoryPrefix)
		}
		next = *have
		next.UpdatedAt = now
		if in.CustomRoleArn != nil {
			next.Role = *in.CustomRoleArn
		}
		state.PullThroughRules.Put(tx, new(next))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UpdatePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: in.EcrRepositoryPrefix, RegistryId: new(account), UpdatedAt: new(next.UpdatedAt),
		CustomRoleArn: optional(next.Role), UpstreamRepositoryPrefix: new(next.UpstreamPrefix),
	}, nil
}

// DeletePullThroughCacheRule removes a rule. What was cached stays.
func (s *Service) DeletePullThroughCacheRule(ctx context.Context, in *ecr.DeletePullThroughCacheRuleInput) (*ecr.DeletePullThroughCacheRuleOutput, error) {
	account, err := own(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	var r *state.PullThroughRule
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		var ok bool
		if r, ok = state.PullThroughRules.Get(tx, state.RepositoryKey(account, *in.EcrRepositoryPrefix)); !ok {
			return noRule(account, *in.EcrRepositoryPrefix)
		}
		state.PullThroughRules.Delete(tx, state.RepositoryKey(account, *in.EcrRepositoryPrefix))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeletePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: in.EcrRepositoryPrefix, UpstreamRegistryUrl: new(r.Upstream), CreatedAt: new(r.CreatedAt), RegistryId: new(account),
		CustomRoleArn: optional(r.Role), UpstreamRepositoryPrefix: new(r.UpstreamPrefix),
	}, nil
}

// DescribePullThroughCacheRules lists rules, or shows those that are named.
func (s *Service) DescribePullThroughCacheRules(ctx context.Context, in *ecr.DescribePullThroughCacheRulesInput) (*ecr.DescribePullThroughCacheRulesOutput, error) {
	account, err := own(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	snap := s.DB.Snapshot()
	out := &ecr.DescribePullThroughCacheRulesOutput{PullThroughCacheRules: []ecr.PullThroughCacheRule{}}
	show := func(r *state.PullThroughRule) {
		out.PullThroughCacheRules = append(out.PullThroughCacheRules, ecr.PullThroughCacheRule{
			EcrRepositoryPrefix: new(r.Prefix), UpstreamRegistryUrl: new(r.Upstream), CreatedAt: new(r.CreatedAt), UpdatedAt: new(r.UpdatedAt),
			RegistryId: new(account), CustomRoleArn: optional(r.Role), UpstreamRepositoryPrefix: new(r.UpstreamPrefix), UpstreamRegistry: ecr.UpstreamRegistry(r.Registry),
		})
	}
	if in.EcrRepositoryPrefixes != nil {
		if in.MaxResults != nil || in.NextToken != nil {
			return nil, &ecr.InvalidParameterException{Message: "Invalid parameter: maxResults and nextToken cannot be used with ecrRepositoryPrefixes"}
		}
		for _, p := range in.EcrRepositoryPrefixes {
			r, ok := state.PullThroughRules.Get(snap, state.RepositoryKey(account, p))
			if !ok {
				return nil, noRule(account, p)
			}
			show(r)
		}
		return out, nil
	}
	items, next, err := page(state.PullThroughRules.Prefix(snap, state.RepositoryKey(account, "")), func(r *state.PullThroughRule) string { return r.Prefix },
		pages.Query{"DescribePullThroughCacheRules", account}, in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	for _, r := range items {
		show(r)
	}
	out.NextToken = next
	return out, nil
}

// pingTime is how long ValidatePullThroughCacheRule waits for another registry.
const pingTime = 10 * time.Second

// ValidatePullThroughCacheRule asks the other registry whether it is there. It
// is the one operation that has to wait for the world.
func (s *Service) ValidatePullThroughCacheRule(ctx context.Context, in *ecr.ValidatePullThroughCacheRuleInput) (*ecr.ValidatePullThroughCacheRuleOutput, error) {
	account, err := own(ctx, in.RegistryId)
	if err != nil {
		return nil, err
	}
	r, ok := state.PullThroughRules.Get(s.DB.Snapshot(), state.RepositoryKey(account, *in.EcrRepositoryPrefix))
	if !ok {
		return nil, noRule(account, *in.EcrRepositoryPrefix)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	out := &ecr.ValidatePullThroughCacheRuleOutput{
		EcrRepositoryPrefix: in.EcrRepositoryPrefix, RegistryId: new(account), UpstreamRegistryUrl: new(r.Upstream), CustomRoleArn: optional(r.Role),
		UpstreamRepositoryPrefix: new(r.UpstreamPrefix), IsValid: new(true),
	}
	if err := s.Registry.PingUpstream(ctx, r.Upstream); err != nil {
		out.IsValid, out.Failure = new(false), new(err.Error())
	}
	return out, nil
}
