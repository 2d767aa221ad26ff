package ecr

import (
	"context"

	"github.com/berth-run/berth/auth/policy"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/store/state"
)

// SetRepositoryPolicy says who else may use the repository.
func (s *Service) SetRepositoryPolicy(ctx context.Context, in *ecr.SetRepositoryPolicyInput) (*ecr.SetRepositoryPolicyOutput, error) {
	if _, err := policy.Parse(*in.PolicyText, policy.Resource); err != nil {
		return nil, invalid("PolicyText", "Invalid repository policy provided")
	}
	repo, err := s.change(ctx, in.RegistryId, in.RepositoryName, func(r *state.Repository) error {
		r.Policy = *in.PolicyText
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.SetRepositoryPolicyOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, PolicyText: in.PolicyText}, nil
}

// GetRepositoryPolicy returns the policy as it was set.
func (s *Service) GetRepositoryPolicy(ctx context.Context, in *ecr.GetRepositoryPolicyInput) (*ecr.GetRepositoryPolicyOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if repo.Policy == "" {
		return nil, noPolicy(repo)
	}
	return &ecr.GetRepositoryPolicyOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, PolicyText: new(repo.Policy)}, nil
}

// DeleteRepositoryPolicy removes the policy and returns it.
func (s *Service) DeleteRepositoryPolicy(ctx context.Context, in *ecr.DeleteRepositoryPolicyInput) (*ecr.DeleteRepositoryPolicyOutput, error) {
	var text string
	repo, err := s.change(ctx, in.RegistryId, in.RepositoryName, func(r *state.Repository) error {
		if r.Policy == "" {
			return noPolicy(r)
		}
		text, r.Policy = r.Policy, ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRepositoryPolicyOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, PolicyText: new(text)}, nil
}

func noPolicy(r *state.Repository) error {
	return &ecr.RepositoryPolicyNotFoundException{Message: "Repository policy does not exist for " + where(r)}
}
