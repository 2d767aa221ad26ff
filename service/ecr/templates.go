package ecr

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth/policy"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// fill writes what the request says into a template. What it does not say stays.
func fill(t *state.RepositoryTemplate, in *ecr.UpdateRepositoryCreationTemplateInput) error {
	if in.Description != nil {
		t.Description = in.Description
	}
	if e := in.EncryptionConfiguration; e != nil {
		if wire.Value(e.KmsKey) != "" && e.EncryptionType == ecr.EncryptionTypeAes256 {
			return invalid("encryptionConfiguration", "KMS key can't be specified with encryption type AES256")
		}
		t.Encryption, t.KMSKey = string(e.EncryptionType), e.KmsKey
	}
	if in.ResourceTags != nil {
		tags, err := merge(nil, in.ResourceTags)
		if err != nil {
			return err
		}
		t.Tags = tags
	}
	if in.ImageTagMutability != "" || in.ImageTagMutabilityExclusionFilters != nil || t.TagMutability == "" {
		m, exclusions, err := mutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters)
		if err != nil {
			return err
		}
		t.TagMutability, t.Exclusions = m, exclusions
	}
	if in.RepositoryPolicy != nil {
		if *in.RepositoryPolicy != "" {
			if _, err := policy.Parse(*in.RepositoryPolicy, policy.Resource); err != nil {
				return invalid("RepositoryPolicy", "Invalid repository policy provided")
			}
		}
		t.Policy = in.RepositoryPolicy
	}
	if in.LifecyclePolicy != nil {
		if *in.LifecyclePolicy != "" {
			if err := checkLifecycle(*in.LifecyclePolicy); err != nil {
				return err
			}
		}
		t.Lifecycle = in.LifecyclePolicy
	}
	if in.AppliedFor != nil {
		t.AppliedFor = nil
		for _, a := range in.AppliedFor {
			if !slices.Contains(t.AppliedFor, string(a)) {
				t.AppliedFor = append(t.AppliedFor, string(a))
			}
		}
	}
	if in.CustomRoleArn != nil {
		t.Role = *in.CustomRoleArn
	}
	if len(t.AppliedFor) == 0 {
		return invalid("appliedFor", "a template applies for at least one thing")
	}
	return nil
}

func showTemplate(t *state.RepositoryTemplate) *ecr.RepositoryCreationTemplate {
	v := &ecr.RepositoryCreationTemplate{
		Prefix: new(t.Prefix), Description: t.Description, ImageTagMutability: ecr.ImageTagMutability(t.TagMutability),
		ImageTagMutabilityExclusionFilters: filters(t.Exclusions), RepositoryPolicy: t.Policy, LifecyclePolicy: t.Lifecycle,
		EncryptionConfiguration: &ecr.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: ecr.EncryptionTypeAes256},
		CreatedAt:               new(t.CreatedAt), UpdatedAt: new(t.UpdatedAt),
	}
	if t.Encryption != "" {
		v.EncryptionConfiguration = &ecr.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: ecr.EncryptionType(t.Encryption), KmsKey: t.KMSKey}
	}
	for _, tag := range t.Tags {
		v.ResourceTags = append(v.ResourceTags, ecr.Tag{Key: new(tag.Key), Value: new(tag.Value)})
	}
	for _, a := range t.AppliedFor {
		v.AppliedFor = append(v.AppliedFor, ecr.RCTAppliedFor(a))
	}
	if t.Role != "" {
		v.CustomRoleArn = new(t.Role)
	}
	return v
}

// CreateRepositoryCreationTemplate says what repositories are made like that
// nobody creates explicitly.
func (s *Service) CreateRepositoryCreationTemplate(ctx context.Context, in *ecr.CreateRepositoryCreationTemplateInput) (*ecr.CreateRepositoryCreationTemplateOutput, error) {
	account, now := caller(ctx).Account, s.Now()
	t := &state.RepositoryTemplate{Account: account, Prefix: *in.Prefix, CreatedAt: now, UpdatedAt: now}
	update := ecr.UpdateRepositoryCreationTemplateInput(*in)
	if err := fill(t, &update); err != nil {
		return nil, err
	}
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		if state.RepositoryTemplates.Has(tx, state.RepositoryKey(account, t.Prefix)) {
			return &ecr.TemplateAlreadyExistsException{Message: fmt.Sprintf("The repository creation template with prefix '%s' already exists in the registry with id '%s'", t.Prefix, account)}
		}
		state.RepositoryTemplates.Guard(tx, state.RepositoryKey(account, ""))
		n := 0
		for range state.RepositoryTemplates.Prefix(tx, state.RepositoryKey(account, "")) {
			n++
		}
		if most := state.Limit(tx, account, "ecr/templates"); n >= most {
			return &ecr.LimitExceededException{Message: fmt.Sprintf("The limit of %d repository creation templates is reached", most)}
		}
		state.RepositoryTemplates.Put(tx, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreateRepositoryCreationTemplateOutput{RegistryId: new(account), RepositoryCreationTemplate: showTemplate(t)}, nil
}

func noTemplate(account, prefix string) error {
	return &ecr.TemplateNotFoundException{Message: fmt.Sprintf("The repository creation template with prefix '%s' does not exist in the registry with id '%s'", prefix, account)}
}

// UpdateRepositoryCreationTemplate changes what the request says of a template.
func (s *Service) UpdateRepositoryCreationTemplate(ctx context.Context, in *ecr.UpdateRepositoryCreationTemplateInput) (*ecr.UpdateRepositoryCreationTemplateOutput, error) {
	account, now := caller(ctx).Account, s.Now()
	var next state.RepositoryTemplate
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		have, ok := state.RepositoryTemplates.Get(tx, state.RepositoryKey(account, *in.Prefix))
		if !ok {
			return noTemplate(account, *in.Prefix)
		}
		next = *have
		next.UpdatedAt = now
		if err := fill(&next, in); err != nil {
			return err
		}
		state.RepositoryTemplates.Put(tx, new(next))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UpdateRepositoryCreationTemplateOutput{RegistryId: new(account), RepositoryCreationTemplate: showTemplate(&next)}, nil
}

// DeleteRepositoryCreationTemplate removes a template and returns it.
func (s *Service) DeleteRepositoryCreationTemplate(ctx context.Context, in *ecr.DeleteRepositoryCreationTemplateInput) (*ecr.DeleteRepositoryCreationTemplateOutput, error) {
	account := caller(ctx).Account
	var have *state.RepositoryTemplate
	err := s.DB.Update(ctx, func(tx *store.Tx) (err error) {
		var ok bool
		if have, ok = state.RepositoryTemplates.Get(tx, state.RepositoryKey(account, *in.Prefix)); !ok {
			return noTemplate(account, *in.Prefix)
		}
		state.RepositoryTemplates.Delete(tx, state.RepositoryKey(account, *in.Prefix))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRepositoryCreationTemplateOutput{RegistryId: new(account), RepositoryCreationTemplate: showTemplate(have)}, nil
}

// DescribeRepositoryCreationTemplates lists templates, or shows those that are named.
func (s *Service) DescribeRepositoryCreationTemplates(ctx context.Context, in *ecr.DescribeRepositoryCreationTemplatesInput) (*ecr.DescribeRepositoryCreationTemplatesOutput, error) {
	account, snap := caller(ctx).Account, s.DB.Snapshot()
	out := &ecr.DescribeRepositoryCreationTemplatesOutput{RegistryId: new(account), RepositoryCreationTemplates: []ecr.RepositoryCreationTemplate{}}
	if in.Prefixes != nil {
		if in.MaxResults != nil || in.NextToken != nil {
			return nil, &ecr.InvalidParameterException{Message: "Invalid parameter: maxResults and nextToken cannot be used with prefixes"}
		}
		// One that is not there is left out: Terraform reads so that it is gone.
		for _, p := range in.Prefixes {
			if t, ok := state.RepositoryTemplates.Get(snap, state.RepositoryKey(account, p)); ok {
				out.RepositoryCreationTemplates = append(out.RepositoryCreationTemplates, *showTemplate(t))
			}
		}
		return out, nil
	}
	items, next, err := page(state.RepositoryTemplates.Prefix(snap, state.RepositoryKey(account, "")), func(t *state.RepositoryTemplate) string { return t.Prefix },
		pages.Query{"DescribeRepositoryCreationTemplates", account}, in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	for _, t := range items {
		out.RepositoryCreationTemplates = append(out.RepositoryCreationTemplates, *showTemplate(t))
	}
	out.NextToken = next
	return out, nil
}

// RegisterPullTimeUpdateExclusion makes the pulls of a principal leave no time behind.
func (s *Service) RegisterPullTimeUpdateExclusion(ctx context.Context, in *ecr.RegisterPullTimeUpdateExclusionInput) (*ecr.RegisterPullTimeUpdateExclusionOutput, error) {
	account := caller(ctx).Account
	if p := strings.SplitN(*in.PrincipalArn, ":", 6); len(p) != 6 || p[4] != account {
		return nil, invalid("principalArn", "the principal must belong to the account of the registry")
	}
	x := &state.PullTimeExclusion{Account: account, Principal: *in.PrincipalArn, CreatedAt: s.Now()}
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		if state.PullTimeExclusions.Has(tx, account+"/"+x.Principal) {
			return &ecr.ExclusionAlreadyExistsException{Message: fmt.Sprintf("The pull time update exclusion for the principal '%s' already exists in the registry with id '%s'", x.Principal, account)}
		}
		state.PullTimeExclusions.Guard(tx, account+"/")
		n := 0
		for range state.PullTimeExclusions.Prefix(tx, account+"/") {
			n++
		}
		if most := state.Limit(tx, account, "ecr/pull-time-exclusions"); n >= most {
			return &ecr.LimitExceededException{Message: fmt.Sprintf("The limit of %d pull time update exclusions is reached", most)}
		}
		state.PullTimeExclusions.Put(tx, x)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.RegisterPullTimeUpdateExclusionOutput{PrincipalArn: in.PrincipalArn, CreatedAt: new(x.CreatedAt)}, nil
}

// DeregisterPullTimeUpdateExclusion makes them count again.
func (s *Service) DeregisterPullTimeUpdateExclusion(ctx context.Context, in *ecr.DeregisterPullTimeUpdateExclusionInput) (*ecr.DeregisterPullTimeUpdateExclusionOutput, error) {
	account := caller(ctx).Account
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		if !state.PullTimeExclusions.Has(tx, account+"/"+*in.PrincipalArn) {
			return &ecr.ExclusionNotFoundException{Message: fmt.Sprintf("The pull time update exclusion for the principal '%s' does not exist in the registry with id '%s'", *in.PrincipalArn, account)}
		}
		state.PullTimeExclusions.Delete(tx, account+"/"+*in.PrincipalArn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeregisterPullTimeUpdateExclusionOutput{PrincipalArn: in.PrincipalArn}, nil
}

// ListPullTimeUpdateExclusions lists the principals whose pulls do not count.
func (s *Service) ListPullTimeUpdateExclusions(ctx context.Context, in *ecr.ListPullTimeUpdateExclusionsInput) (*ecr.ListPullTimeUpdateExclusionsOutput, error) {
	account := caller(ctx).Account
	items, next, err := page(state.PullTimeExclusions.Prefix(s.DB.Snapshot(), account+"/"), func(x *state.PullTimeExclusion) string { return x.Principal },
		pages.Query{"ListPullTimeUpdateExclusions", account}, in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	out := &ecr.ListPullTimeUpdateExclusionsOutput{PullTimeUpdateExclusions: []string{}, NextToken: next}
	for _, x := range items {
		out.PullTimeUpdateExclusions = append(out.PullTimeUpdateExclusions, x.Principal)
	}
	return out, nil
}
