package ecr

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/image"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// CreateRepository creates a repository.
func (s *Service) CreateRepository(ctx context.Context, in *ecr.CreateRepositoryInput) (*ecr.CreateRepositoryOutput, error) {
	account := s.account(ctx, in.RegistryId)
	if account != caller(ctx).Account {
		return nil, invalid("registryId", "repositories can only be created in the registry of the caller")
	}
	repo := &state.Repository{
		Account: account, Name: *in.RepositoryName, ARN: s.Registry.RepositoryARN(account, *in.RepositoryName),
		Encryption: string(ecr.EncryptionTypeAes256), CreatedAt: s.Now(),
	}
	var err error
	if repo.TagMutability, repo.Exclusions, err = mutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters); err != nil {
		return nil, err
	}
	if c := in.ImageScanningConfiguration; c != nil {
		repo.ScanOnPush = wire.Value(c.ScanOnPush)
	}
	if e := in.EncryptionConfiguration; e != nil {
		repo.Encryption, repo.KMSKey = string(e.EncryptionType), wire.Value(e.KmsKey)
		if repo.KMSKey != "" && e.EncryptionType == ecr.EncryptionTypeAes256 {
			return nil, invalid("encryptionConfiguration", "KMS key can't be specified with encryption type AES256")
		}
	}
	if repo.Tags, err = merge(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.DB.Update(ctx, func(tx *store.Tx) error {
		if state.Repositories.Has(tx, repo.Key()) {
			return &ecr.RepositoryAlreadyExistsException{Message: fmt.Sprintf("The repository with name '%s' already exists in the registry with id '%s'", repo.Name, repo.Account)}
		}
		return registry.Create(tx, repo)
	})
	if e, ok := errors.AsType[*image.LimitError](err); ok {
		return nil, &ecr.LimitExceededException{Message: e.Error()}
	}
	if err != nil {
		return nil, err
	}
	return &ecr.CreateRepositoryOutput{Repository: new(s.view(ctx, repo))}, nil
}

// view is a repository as the API shows it.
func (s *Service) view(ctx context.Context, r *state.Repository) ecr.Repository {
	_, host, _ := strings.Cut(s.Endpoint(ctx, r.Account), "://")
	v := ecr.Repository{
		RepositoryArn: new(r.ARN), RegistryId: new(r.Account), RepositoryName: new(r.Name),
		RepositoryUri: new(host + "/" + r.Name), CreatedAt: new(r.CreatedAt),
		ImageTagMutability:                 ecr.ImageTagMutability(r.TagMutability),
		ImageTagMutabilityExclusionFilters: filters(r.Exclusions),
		ImageScanningConfiguration:         &ecr.ImageScanningConfiguration{ScanOnPush: new(r.ScanOnPush)},
		EncryptionConfiguration:            &ecr.EncryptionConfiguration{EncryptionType: ecr.EncryptionType(r.Encryption)},
	}
	if r.KMSKey != "" {
		v.EncryptionConfiguration.KmsKey = new(r.KMSKey)
	}
	return v
}

func filters(in []state.ImageTagFilter) []ecr.ImageTagMutabilityExclusionFilter {
	var out []ecr.ImageTagMutabilityExclusionFilter
	for _, f := range in {
		out = append(out, ecr.ImageTagMutabilityExclusionFilter{FilterType: ecr.ImageTagMutabilityExclusionFilterType(f.Type), Filter: new(f.Filter)})
	}
	return out
}

// mutability checks that filters come with the kinds that take them.
func mutability(m ecr.ImageTagMutability, in []ecr.ImageTagMutabilityExclusionFilter) (string, []state.ImageTagFilter, error) {
	if m == "" {
		m = ecr.ImageTagMutabilityMutable
	}
	takes := m == ecr.ImageTagMutabilityMutableWithExclusion || m == ecr.ImageTagMutabilityImmutableWithExclusion
	switch {
	case takes && len(in) == 0:
		return "", nil, invalid("imageTagMutabilityExclusionFilters", fmt.Sprintf("ImageTagMutabilityExclusionFilters can't be null when imageTagMutability is set as %s", m))
	case !takes && in != nil:
		return "", nil, invalid("imageTagMutabilityExclusionFilters", fmt.Sprintf("ImageTagMutabilityExclusionFilters should be null when imageTagMutability is set as %s", m))
	}
	var out []state.ImageTagFilter
	for _, f := range in {
		if strings.Count(*f.Filter, "*") > 2 {
			return "", nil, invalid("imageTagMutabilityExclusionFilters", "a filter can have at most 2 wildcards")
		}
		out = append(out, state.ImageTagFilter{Type: string(f.FilterType), Filter: *f.Filter})
	}
	return string(m), out, nil
}

// DescribeRepositories lists repositories, or shows those that are named.
func (s *Service) DescribeRepositories(ctx context.Context, in *ecr.DescribeRepositoriesInput) (*ecr.DescribeRepositoriesOutput, error) {
	account, snap := s.account(ctx, in.RegistryId), s.DB.Snapshot()
	out := &ecr.DescribeRepositoriesOutput{Repositories: []ecr.Repository{}}
	if in.RepositoryNames != nil {
		if in.MaxResults != nil || in.NextToken != nil {
			return nil, &ecr.InvalidParameterException{Message: "Invalid parameter: maxResults and nextToken cannot be used with repositoryNames"}
		}
		for _, name := range in.RepositoryNames {
			r, err := s.repository(ctx, snap, in.RegistryId, &name)
			if err != nil {
				return nil, err
			}
			out.Repositories = append(out.Repositories, s.view(ctx, r))
		}
		return out, nil
	}
	repos, next, err := page(state.Repositories.Prefix(snap, state.RepositoryKey(account, "")), (*state.Repository).Key,
		pages.Query{"DescribeRepositories", account}, in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	for _, r := range repos {
		out.Repositories = append(out.Repositories, s.view(ctx, r))
	}
	out.NextToken = next
	return out, nil
}

// deleteBatch is how many images one transaction of DeleteRepository removes.
const deleteBatch = 200

// DeleteRepository removes a repository, with force also its images.
func (s *Service) DeleteRepository(ctx context.Context, in *ecr.DeleteRepositoryInput) (*ecr.DeleteRepositoryOutput, error) {
	var repo *state.Repository
	for more := true; more; {
		err := s.DB.Update(ctx, func(tx *store.Tx) (err error) {
			more = false
			if repo, err = s.repository(ctx, tx, in.RegistryId, in.RepositoryName); err != nil {
				return err
			}
			if !wire.Value(in.Force) {
				state.Images.Guard(tx, repo.Key()+"@")
				for range state.Images.Prefix(tx, repo.Key()+"@") {
					return &ecr.RepositoryNotEmptyException{Message: fmt.Sprintf("The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", repo.Name, repo.Account)}
				}
			}
			more = empty(tx, repo.Key(), deleteBatch)
			if !more {
				state.Repositories.Delete(tx, repo.Key())
				state.LifecycleRuns.Delete(tx, repo.Key())
				state.LifecyclePreviews.Delete(tx, repo.Key())
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return &ecr.DeleteRepositoryOutput{Repository: new(s.view(ctx, repo))}, nil
}

// empty removes up to n rows of each kind from a repository and says whether
// there are more. What is pushed meanwhile makes the transaction run again.
func empty(tx *store.Tx, key string, n int) (more bool) {
	state.ImageTags.Guard(tx, key+":")
	state.Images.Guard(tx, key+"@")
	state.RepositoryLayers.Guard(tx, key+"@")
	tags, a := first(state.ImageTags.Prefix(tx, key+":"), n)
	for _, t := range tags {
		state.ImageTags.Delete(tx, state.ImageTagKey(key, t.Tag))
	}
	if a {
		return true // an image never loses its tags' rows to a crash the other way round
	}
	images, b := first(state.Images.Prefix(tx, key+"@"), n)
	for _, i := range images {
		for r := range state.Replicas.Prefix(tx, i.Key()+"/") {
			state.Replicas.Delete(tx, r.Key())
		}
		state.Images.Delete(tx, i.Key())
	}
	if b {
		return true
	}
	layers, c := first(state.RepositoryLayers.Prefix(tx, key+"@"), n)
	for _, l := range layers {
		state.RepositoryLayers.Delete(tx, state.ImageKey(key, l.Digest))
	}
	return c
}

// first takes up to n elements of a sequence and says whether there are more.
func first[T any](seq iter.Seq[T], n int) (items []T, more bool) {
	for v := range seq {
		if len(items) == n {
			return items, true
		}
		items = append(items, v)
	}
	return items, false
}

// change writes a changed copy of a repository.
func (s *Service) change(ctx context.Context, registryID, name *string, f func(*state.Repository) error) (*state.Repository, error) {
	var out *state.Repository
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		repo, err := s.repository(ctx, tx, registryID, name)
		if err != nil {
			return err
		}
		next := *repo
		if err := f(&next); err != nil {
			return err
		}
		state.Repositories.Put(tx, &next)
		out = &next
		return nil
	})
	return out, err
}

// PutImageTagMutability says which tags may be moved.
func (s *Service) PutImageTagMutability(ctx context.Context, in *ecr.PutImageTagMutabilityInput) (*ecr.PutImageTagMutabilityOutput, error) {
	m, exclusions, err := mutability(in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters)
	if err != nil {
		return nil, err
	}
	repo, err := s.change(ctx, in.RegistryId, in.RepositoryName, func(r *state.Repository) error {
		r.TagMutability, r.Exclusions = m, exclusions
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageTagMutabilityOutput{
		RegistryId: new(repo.Account), RepositoryName: in.RepositoryName,
		ImageTagMutability: in.ImageTagMutability, ImageTagMutabilityExclusionFilters: filters(repo.Exclusions),
	}, nil
}

// PutImageScanningConfiguration is stored; nothing scans yet.
func (s *Service) PutImageScanningConfiguration(ctx context.Context, in *ecr.PutImageScanningConfigurationInput) (*ecr.PutImageScanningConfigurationOutput, error) {
	repo, err := s.change(ctx, in.RegistryId, in.RepositoryName, func(r *state.Repository) error {
		r.ScanOnPush = in.ImageScanningConfiguration != nil && wire.Value(in.ImageScanningConfiguration.ScanOnPush)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutImageScanningConfigurationOutput{
		RegistryId: new(repo.Account), RepositoryName: in.RepositoryName,
		ImageScanningConfiguration: &ecr.ImageScanningConfiguration{ScanOnPush: new(repo.ScanOnPush)},
	}, nil
}

// maxTags is how many tags a repository can have.
const maxTags = 50

// merge adds tags to those that are there, in the order they came.
func merge(have []state.Tag, add []ecr.Tag) ([]state.Tag, error) {
	out, seen := slices.Clone(have), map[string]bool{}
	for _, t := range add {
		key, value := wire.Value(t.Key), wire.Value(t.Value)
		switch {
		case key == "" || len(key) > 128 || len(value) > 256:
			return nil, &ecr.InvalidTagParameterException{Message: "Invalid tag: a key has 1 to 128 characters, a value up to 256"}
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, &ecr.InvalidTagParameterException{Message: "Invalid tag: the prefix aws: is reserved"}
		case seen[key]:
			return nil, &ecr.InvalidTagParameterException{Message: fmt.Sprintf("Invalid tag: the key '%s' is given twice", key)}
		}
		seen[key] = true
		if i := slices.IndexFunc(out, func(t state.Tag) bool { return t.Key == key }); i >= 0 {
			out[i].Value = value
		} else {
			out = append(out, state.Tag{Key: key, Value: value})
		}
	}
	if len(out) > maxTags {
		return nil, &ecr.TooManyTagsException{Message: fmt.Sprintf("A resource can have at most %d tags", maxTags)}
	}
	return out, nil
}

// byARN finds the repository that an ARN names.
func (s *Service) byARN(arn string) (account, name string, err error) {
	// arn:aws:ecr:<region>:<account>:repository/<name>
	p := strings.SplitN(arn, ":", 6)
	if len(p) == 6 && p[0] == "arn" && p[2] == "ecr" && p[3] == s.Registry.Region {
		if name, ok := strings.CutPrefix(p[5], "repository/"); ok && image.ValidName(name) {
			return p[4], name, nil
		}
	}
	return "", "", invalid("resourceArn", "Invalid ARN")
}

// TagResource adds tags to a repository.
func (s *Service) TagResource(ctx context.Context, in *ecr.TagResourceInput) (*ecr.TagResourceOutput, error) {
	account, name, err := s.byARN(*in.ResourceArn)
	if err != nil {
		return nil, err
	}
	_, err = s.change(ctx, &account, &name, func(r *state.Repository) (err error) {
		r.Tags, err = merge(r.Tags, in.Tags)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ecr.TagResourceOutput{}, nil
}

// UntagResource removes tags from a repository.
func (s *Service) UntagResource(ctx context.Context, in *ecr.UntagResourceInput) (*ecr.UntagResourceOutput, error) {
	account, name, err := s.byARN(*in.ResourceArn)
	if err != nil {
		return nil, err
	}
	_, err = s.change(ctx, &account, &name, func(r *state.Repository) error {
		r.Tags = slices.DeleteFunc(slices.Clone(r.Tags), func(t state.Tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UntagResourceOutput{}, nil
}

// ListTagsForResource lists a repository's tags.
func (s *Service) ListTagsForResource(ctx context.Context, in *ecr.ListTagsForResourceInput) (*ecr.ListTagsForResourceOutput, error) {
	account, name, err := s.byARN(*in.ResourceArn)
	if err != nil {
		return nil, err
	}
	repo, err := s.repository(ctx, s.DB.Snapshot(), &account, &name)
	if err != nil {
		return nil, err
	}
	out := &ecr.ListTagsForResourceOutput{Tags: []ecr.Tag{}}
	for _, t := range repo.Tags {
		out.Tags = append(out.Tags, ecr.Tag{Key: new(t.Key), Value: new(t.Value)})
	}
	return out, nil
}

// Stored lists what is kept and given back without being acted on, and why.
func Stored() map[string]string { return maps.Clone(stored) }

var stored = map[string]string{
	"CreateRepository.encryptionConfiguration":                 "images are kept as the file system keeps them",
	"CreateRepository.imageScanningConfiguration":              "nothing scans",
	"PutImageScanningConfiguration.imageScanningConfiguration": "nothing scans",
	"BatchGetImage.acceptedMediaTypes":                         "manifests are never converted",
	"CreatePullThroughCacheRule.customRoleArn":                 "other registries are read without credentials",
	"UpdatePullThroughCacheRule.customRoleArn":                 "other registries are read without credentials",
	"CreateRepositoryCreationTemplate.customRoleArn":           "repositories are created without taking a role",
	"CreateRepositoryCreationTemplate.encryptionConfiguration": "images are kept as the file system keeps them",
	"UpdateRepositoryCreationTemplate.customRoleArn":           "repositories are created without taking a role",
	"UpdateRepositoryCreationTemplate.encryptionConfiguration": "images are kept as the file system keeps them",
	"PutRegistryScanningConfiguration.rules":                   "nothing scans",
	"PutRegistryScanningConfiguration.scanType":                "nothing scans",
	"PutAccountSetting.value":                                  "BASIC_SCAN_TYPE_VERSION is kept, and nothing scans; the other settings hold",
	"SetRepositoryPolicy.force":                                "a policy that locks its author out is taken in any case",
	"UpdateImageStorageClass.targetStorageClass":               "archived images cannot be pulled, and stay on the same disk",
}
