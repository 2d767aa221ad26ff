package ecr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

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

// PutLifecyclePolicy checks and keeps a lifecycle policy.
func (s *Service) PutLifecyclePolicy(ctx context.Context, in *ecr.PutLifecyclePolicyInput) (*ecr.PutLifecyclePolicyOutput, error) {
	if err := checkLifecycle(*in.LifecyclePolicyText); err != nil {
		return nil, invalid("LifecyclePolicyText", "Lifecycle policy validation failure: "+err.Error())
	}
	repo, err := s.change(ctx, in.RegistryId, in.RepositoryName, func(r *state.Repository) error {
		r.Lifecycle = *in.LifecyclePolicyText
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutLifecyclePolicyOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, LifecyclePolicyText: in.LifecyclePolicyText}, nil
}

// GetLifecyclePolicy returns the lifecycle policy as it was put.
func (s *Service) GetLifecyclePolicy(ctx context.Context, in *ecr.GetLifecyclePolicyInput) (*ecr.GetLifecyclePolicyOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if repo.Lifecycle == "" {
		return nil, noLifecycle(repo)
	}
	out := &ecr.GetLifecyclePolicyOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, LifecyclePolicyText: new(repo.Lifecycle)}
	if !repo.LifecycleAt.IsZero() {
		out.LastEvaluatedAt = new(repo.LifecycleAt)
	}
	return out, nil
}

// DeleteLifecyclePolicy removes the lifecycle policy and returns it.
func (s *Service) DeleteLifecyclePolicy(ctx context.Context, in *ecr.DeleteLifecyclePolicyInput) (*ecr.DeleteLifecyclePolicyOutput, error) {
	out := &ecr.DeleteLifecyclePolicyOutput{RepositoryName: in.RepositoryName}
	_, err := s.change(ctx, in.RegistryId, in.RepositoryName, func(r *state.Repository) error {
		if r.Lifecycle == "" {
			return noLifecycle(r)
		}
		out.RegistryId, out.LifecyclePolicyText = new(r.Account), new(r.Lifecycle)
		if !r.LifecycleAt.IsZero() {
			out.LastEvaluatedAt = new(r.LifecycleAt)
		}
		r.Lifecycle = ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func noLifecycle(r *state.Repository) error {
	return &ecr.LifecyclePolicyNotFoundException{Message: "Lifecycle policy does not exist for " + where(r)}
}

// lifecycle is a lifecycle policy.
type lifecycle struct {
	Rules []struct {
		RulePriority *int    `json:"rulePriority"`
		Description  *string `json:"description"`
		Selection    *struct {
			TagStatus      string   `json:"tagStatus"`
			TagPrefixList  []string `json:"tagPrefixList"`
			TagPatternList []string `json:"tagPatternList"`
			CountType      string   `json:"countType"`
			CountUnit      string   `json:"countUnit"`
			CountNumber    *int     `json:"countNumber"`
			StorageClass   string   `json:"storageClass"`
		} `json:"selection"`
		Action *struct {
			Type               string `json:"type"`
			TargetStorageClass string `json:"targetStorageClass"`
		} `json:"action"`
	} `json:"rules"`
}

// checkLifecycle holds a policy to the rules of its language.
func checkLifecycle(text string) error {
	var p lifecycle
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return fmt.Errorf("object instance has properties which are not allowed by the schema: ([%s])", name)
		}
		return errors.New("Could not map policyString into LifecyclePolicy.") //lint:ignore ST1005 AWS's text
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("Could not map policyString into LifecyclePolicy.") //lint:ignore ST1005 AWS's text
	}
	if p.Rules == nil {
		return errors.New(`object has missing required properties (["rules"])`)
	}
	if n := len(p.Rules); n == 0 || n > 50 {
		return errors.New("a policy has 1 to 50 rules")
	}
	seen, last, anyAt := map[int]bool{}, 0, 0
	for _, r := range p.Rules {
		var missing []string
		for name, is := range map[string]bool{"action": r.Action != nil, "rulePriority": r.RulePriority != nil, "selection": r.Selection != nil} {
			if !is {
				missing = append(missing, `"`+name+`"`)
			}
		}
		if missing != nil {
			slices.Sort(missing)
			return fmt.Errorf("object has missing required properties ([%s])", strings.Join(missing, ","))
		}
		n, sel := *r.RulePriority, r.Selection
		switch {
		case n < 1:
			return fmt.Errorf("numeric instance is lower than the required minimum (minimum: 1, found: %d)", n)
		case seen[n]:
			return fmt.Errorf("rule priority %d is used more than once", n)
		}
		seen[n] = true
		last = max(last, n)
		oneOf := func(value string, of ...string) error {
			if slices.Contains(of, value) {
				return nil
			}
			return fmt.Errorf(`instance value ("%s") not found in enum (possible values: ["%s"])`, value, strings.Join(of, `","`))
		}
		if err := errors.Join(
			oneOf(sel.TagStatus, "any", "tagged", "untagged"),
			oneOf(sel.CountType, "imageCountMoreThan", "sinceImagePulled", "sinceImagePushed", "sinceImageTransitioned"),
			oneOf(r.Action.Type, "expire", "transition"),
		); err != nil {
			return err
		}
		switch {
		case sel.CountNumber == nil:
			return errors.New(`object has missing required properties (["countNumber"])`)
		case *sel.CountNumber < 1:
			return fmt.Errorf("numeric instance is lower than the required minimum (minimum: 1, found: %d)", *sel.CountNumber)
		case sel.CountType == "imageCountMoreThan" && sel.CountUnit != "":
			return errors.New("countUnit is not allowed with countType imageCountMoreThan")
		case sel.CountType != "imageCountMoreThan" && sel.CountUnit != "days":
			return errors.New("countUnit must be days with a countType of time")
		case sel.TagStatus == "tagged" && len(sel.TagPrefixList)+len(sel.TagPatternList) == 0:
			return errors.New("tagPrefixList or tagPatternList is required with tagStatus tagged")
		case len(sel.TagPrefixList) > 0 && len(sel.TagPatternList) > 0:
			return errors.New("tagPrefixList and tagPatternList exclude each other")
		case sel.TagStatus != "tagged" && len(sel.TagPrefixList)+len(sel.TagPatternList) > 0:
			return errors.New("tagPrefixList and tagPatternList are only allowed with tagStatus tagged")
		case (r.Action.Type == "transition") != (r.Action.TargetStorageClass == "archive"):
			return errors.New("an action of type transition, and no other, has targetStorageClass archive")
		case sel.StorageClass != "" && sel.StorageClass != "standard" && sel.StorageClass != "archive":
			return oneOf(sel.StorageClass, "archive", "standard")
		}
		for _, pattern := range sel.TagPatternList {
			if strings.Count(pattern, "*") > 4 {
				return errors.New("a tag pattern can have at most 4 wildcards")
			}
		}
		if sel.TagStatus == "any" {
			if anyAt != 0 {
				return errors.New("only one rule can have tagStatus any")
			}
			anyAt = n
		}
	}
	if anyAt != 0 && anyAt != last {
		return errors.New("the rule with tagStatus any must have the highest rulePriority")
	}
	return nil
}
