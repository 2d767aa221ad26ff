package ecr

import (
	"context"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/registry/lifecycle"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

func checkLifecycle(text string) error {
	if _, err := lifecycle.Parse(text); err != nil {
		return invalid("LifecyclePolicyText", "Lifecycle policy validation failure: "+err.Error())
	}
	return nil
}

// PutLifecyclePolicy keeps a lifecycle policy; control/lifecycle runs it.
func (s *Service) PutLifecyclePolicy(ctx context.Context, in *ecr.PutLifecyclePolicyInput) (*ecr.PutLifecyclePolicyOutput, error) {
	if err := checkLifecycle(*in.LifecyclePolicyText); err != nil {
		return nil, err
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

// lastRun is when the policy that a repository has was last evaluated.
func lastRun(r store.Reader, repo *state.Repository) *time.Time {
	if run, ok := state.LifecycleRuns.Get(r, repo.Key()); ok {
		return new(run.At)
	}
	return nil
}

// GetLifecyclePolicy returns the lifecycle policy as it was put.
func (s *Service) GetLifecyclePolicy(ctx context.Context, in *ecr.GetLifecyclePolicyInput) (*ecr.GetLifecyclePolicyOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if repo.Lifecycle == "" {
		return nil, noLifecycle(repo)
	}
	return &ecr.GetLifecyclePolicyOutput{
		RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, LifecyclePolicyText: new(repo.Lifecycle), LastEvaluatedAt: lastRun(snap, repo),
	}, nil
}

// DeleteLifecyclePolicy removes the lifecycle policy and returns it.
func (s *Service) DeleteLifecyclePolicy(ctx context.Context, in *ecr.DeleteLifecyclePolicyInput) (*ecr.DeleteLifecyclePolicyOutput, error) {
	var out *ecr.DeleteLifecyclePolicyOutput
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		repo, err := s.repository(ctx, tx, in.RegistryId, in.RepositoryName)
		if err != nil {
			return err
		}
		if repo.Lifecycle == "" {
			return noLifecycle(repo)
		}
		out = &ecr.DeleteLifecyclePolicyOutput{
			RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, LifecyclePolicyText: new(repo.Lifecycle), LastEvaluatedAt: lastRun(tx, repo),
		}
		next := *repo
		next.Lifecycle = ""
		state.Repositories.Put(tx, &next)
		state.LifecycleRuns.Delete(tx, repo.Key())
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

// StartLifecyclePolicyPreview keeps what is to be seen: a policy, the
// repository's own if none is given, and the time. There is nothing to wait for.
func (s *Service) StartLifecyclePolicyPreview(ctx context.Context, in *ecr.StartLifecyclePolicyPreviewInput) (*ecr.StartLifecyclePolicyPreviewOutput, error) {
	if in.LifecyclePolicyText != nil {
		if err := checkLifecycle(*in.LifecyclePolicyText); err != nil {
			return nil, err
		}
	}
	now := s.Now()
	var out *ecr.StartLifecyclePolicyPreviewOutput
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		repo, err := s.repository(ctx, tx, in.RegistryId, in.RepositoryName)
		if err != nil {
			return err
		}
		text := repo.Lifecycle
		if in.LifecyclePolicyText != nil {
			text = *in.LifecyclePolicyText
		}
		if text == "" {
			return noLifecycle(repo)
		}
		state.LifecyclePreviews.Put(tx, &state.LifecyclePreview{Repository: repo.Key(), Policy: text, At: now})
		out = &ecr.StartLifecyclePolicyPreviewOutput{
			RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, LifecyclePolicyText: new(text),
			Status: ecr.LifecyclePolicyPreviewStatusComplete,
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// GetLifecyclePolicyPreview says what the policy of the preview takes at the
// time of the preview, of the images that were there then and are still.
func (s *Service) GetLifecyclePolicyPreview(ctx context.Context, in *ecr.GetLifecyclePolicyPreviewInput) (*ecr.GetLifecyclePolicyPreviewOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	p, ok := state.LifecyclePreviews.Get(snap, repo.Key())
	if !ok {
		return nil, &ecr.LifecyclePolicyPreviewNotFoundException{Message: "Lifecycle policy preview does not exist for " + where(repo)}
	}
	if in.ImageIds != nil && (in.MaxResults != nil || in.NextToken != nil) {
		return nil, &ecr.InvalidParameterException{Message: "Invalid parameter: maxResults and nextToken cannot be used with imageIds"}
	}
	policy, err := lifecycle.Parse(p.Policy)
	if err != nil {
		return nil, err
	}
	images := slices.DeleteFunc(lifecycle.Images(snap, repo.Key()), func(m lifecycle.Image) bool { return m.PushedAt.After(p.At) })
	verdicts, _ := policy.Evaluate(images, p.At)
	out := &ecr.GetLifecyclePolicyPreviewOutput{
		RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, LifecyclePolicyText: new(p.Policy),
		Status: ecr.LifecyclePolicyPreviewStatusComplete, PreviewResults: []ecr.LifecyclePolicyPreviewResult{},
		Summary: &ecr.LifecyclePolicyPreviewSummary{ExpiringImageTotalCount: new(int32(0)), TransitioningImageTotalCounts: []ecr.TransitioningImageTotalCount{}},
	}
	var archived int32
	for _, v := range verdicts {
		if v.Rule != nil && v.Rule.Transition {
			archived++
		} else {
			*out.Summary.ExpiringImageTotalCount++
		}
	}
	if archived > 0 {
		out.Summary.TransitioningImageTotalCounts = append(out.Summary.TransitioningImageTotalCounts,
			ecr.TransitioningImageTotalCount{TargetStorageClass: ecr.LifecyclePolicyTargetStorageClassArchive, ImageTotalCount: new(archived)})
	}
	slices.SortFunc(verdicts, func(a, b lifecycle.Verdict) int { return strings.Compare(a.Image.Digest, b.Image.Digest) })
	f := wire.Value(in.Filter)
	var wants iter.Seq[lifecycle.Verdict] = func(yield func(lifecycle.Verdict) bool) {
		for _, v := range verdicts {
			if wanted(f.TagStatus, ecr.ImageStatusFilterAny, len(v.Image.Tags) > 0, v.Image.Archived()) && (in.ImageIds == nil || slices.ContainsFunc(in.ImageIds, func(id ecr.ImageIdentifier) bool {
				i, err := image.Find(snap, repo.Key(), wire.Value(id.ImageDigest), wire.Value(id.ImageTag))
				return err == nil && i.Digest == v.Image.Digest
			})) && !yield(v) {
				return
			}
		}
	}
	most := in.MaxResults
	if in.ImageIds != nil {
		most = new(int32(math.MaxInt32))
	}
	items, next, err := page(wants, func(v lifecycle.Verdict) string { return v.Image.Digest },
		pages.Query{"GetLifecyclePolicyPreview", repo.Key(), p.At.String(), string(f.TagStatus)}, in.NextToken, most, s.Now())
	if err != nil {
		return nil, err
	}
	for _, v := range items {
		r := ecr.LifecyclePolicyPreviewResult{
			ImageTags: v.Image.Tags, ImageDigest: new(v.Image.Digest), ImagePushedAt: new(v.Image.PushedAt),
			Action: &ecr.LifecyclePolicyRuleAction{Type: ecr.ImageActionTypeExpire}, StorageClass: ecr.LifecyclePolicyStorageClassStandard,
		}
		if v.Image.Archived() {
			r.StorageClass = ecr.LifecyclePolicyStorageClassArchive
		}
		if v.Rule != nil {
			r.AppliedRulePriority = new(int32(v.Rule.Priority))
			if v.Rule.Transition {
				r.Action.Type, r.Action.TargetStorageClass = ecr.ImageActionTypeTransition, ecr.LifecyclePolicyTargetStorageClassArchive
			}
		}
		out.PreviewResults = append(out.PreviewResults, r)
	}
	out.NextToken = next
	return out, nil
}
