package ecr

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/registry/upstream"
	pages "github.com/berth-run/berth/service/page"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// PutImage stores a manifest whose layers are in the repository.
func (s *Service) PutImage(ctx context.Context, in *ecr.PutImageInput) (*ecr.PutImageOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	tag := wire.Value(in.ImageTag)
	img, existed, err := s.Registry.PutImage(ctx, repo.Key(), wire.Value(in.ImageManifestMediaType), []byte(*in.ImageManifest), tag, wire.Value(in.ImageDigest))
	if err != nil {
		return nil, putError(repo, tag, err)
	}
	if existed {
		shown := tag
		if shown == "" {
			shown = "null"
		}
		return nil, &ecr.ImageAlreadyExistsException{Message: fmt.Sprintf("Image with digest '%s' and tag '%s' already exists in the repository with name '%s' in registry with id '%s'", img.Digest, shown, repo.Name, repo.Account)}
	}
	return &ecr.PutImageOutput{Image: &ecr.Image{
		RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, ImageId: identifier(img.Digest, tag),
		ImageManifest: in.ImageManifest, ImageManifestMediaType: new(img.MediaType),
	}}, nil
}

func putError(repo *state.Repository, tag string, err error) error {
	if e, ok := errors.AsType[*registry.ManifestError](err); ok {
		if errors.Is(e, image.ErrNoMediaType) {
			return &ecr.InvalidParameterException{Message: e.Error()}
		}
		return invalid("ImageManifest", e.Error())
	}
	if e, ok := errors.AsType[*registry.DigestError](err); ok {
		return &ecr.ImageDigestDoesNotMatchException{Message: e.Error()}
	}
	if e, ok := errors.AsType[*registry.TagError](err); ok {
		return invalid("imageTag", e.Error())
	}
	if e, ok := errors.AsType[*image.ImmutableError](err); ok {
		return &ecr.ImageTagAlreadyExistsException{Message: e.Error()}
	}
	if e, ok := errors.AsType[*image.MissingLayersError](err); ok {
		return &ecr.LayersNotFoundException{Message: fmt.Sprintf("The layers with digests '[%s]' required for pushing image with tag '%s' do not exist in %s", strings.Join(e.Digests, ", "), tag, where(repo))}
	}
	if e, ok := errors.AsType[*image.MissingImagesError](err); ok {
		return &ecr.ReferencedImagesNotFoundException{Message: fmt.Sprintf("The images with digests '[%s]' required for pushing image with tag '%s' do not exist in %s", strings.Join(e.Digests, ", "), tag, where(repo))}
	}
	if e, ok := errors.AsType[*image.LimitError](err); ok {
		return &ecr.LimitExceededException{Message: e.Error()}
	}
	return repositoryError(err)
}

// repositoryError tells that a repository vanished meanwhile.
func repositoryError(err error) error {
	if e, ok := errors.AsType[*image.NoRepositoryError](err); ok {
		return &ecr.RepositoryNotFoundException{Message: e.Error()}
	}
	return err
}

// identifier leaves out what is not there.
func identifier(digest, tag string) *ecr.ImageIdentifier {
	id := &ecr.ImageIdentifier{}
	if digest != "" {
		id.ImageDigest = new(digest)
	}
	if tag != "" {
		id.ImageTag = new(tag)
	}
	return id
}

// wanted applies the filters for tags and for the archive. Without a filter
// what is archived is not shown.
func wanted(tags ecr.TagStatus, status ecr.ImageStatusFilter, tagged bool, archived bool) bool {
	switch status {
	case ecr.ImageStatusFilterAny:
	case ecr.ImageStatusFilterArchived:
		if !archived {
			return false
		}
	case ecr.ImageStatusFilterActive, "":
		if archived {
			return false
		}
	default: // nothing is ACTIVATING here: it takes no time
		return false
	}
	switch tags {
	case ecr.TagStatusTagged:
		return tagged
	case ecr.TagStatusUntagged:
		return !tagged
	}
	return true
}

// ListImages lists an identifier for each tag, and for each image without one.
func (s *Service) ListImages(ctx context.Context, in *ecr.ListImagesInput) (*ecr.ListImagesOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	f := wire.Value(in.Filter)
	type item struct{ digest, tag string }
	var all iter.Seq[item] = func(yield func(item) bool) {
		for i := range state.Images.Prefix(snap, repo.Key()+"@") {
			tags := image.Tags(snap, i)
			if !wanted(f.TagStatus, f.ImageStatus, len(tags) > 0, i.Archived()) {
				continue
			}
			if len(tags) == 0 {
				tags = []string{""}
			}
			for _, t := range tags {
				if !yield(item{i.Digest, t}) {
					return
				}
			}
		}
	}
	items, next, err := page(all, func(i item) string { return i.digest + " " + i.tag },
		pages.Query{"ListImages", repo.Key(), string(f.TagStatus), string(f.ImageStatus)}, in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	out := &ecr.ListImagesOutput{ImageIds: []ecr.ImageIdentifier{}, NextToken: next}
	for _, i := range items {
		out.ImageIds = append(out.ImageIds, *identifier(i.digest, i.tag))
	}
	return out, nil
}

// DescribeImages describes a repository's images.
func (s *Service) DescribeImages(ctx context.Context, in *ecr.DescribeImagesInput) (*ecr.DescribeImagesOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeImagesOutput{ImageDetails: []ecr.ImageDetail{}}
	if in.ImageIds != nil {
		if in.MaxResults != nil || in.NextToken != nil {
			return nil, &ecr.InvalidParameterException{Message: "Invalid parameter: maxResults and nextToken cannot be used with imageIds"}
		}
		seen := map[string]bool{}
		for _, id := range in.ImageIds {
			if id.ImageDigest == nil && id.ImageTag == nil {
				return nil, &ecr.InvalidParameterException{Message: missingIdentifier}
			}
			i, err := image.Find(snap, repo.Key(), wire.Value(id.ImageDigest), wire.Value(id.ImageTag))
			if err != nil {
				return nil, imageNotFound(repo, id)
			}
			if !seen[i.Digest] {
				seen[i.Digest] = true
				out.ImageDetails = append(out.ImageDetails, detail(snap, repo, i))
			}
		}
		return out, nil
	}
	f := wire.Value(in.Filter)
	var all iter.Seq[*state.Image] = func(yield func(*state.Image) bool) {
		for i := range state.Images.Prefix(snap, repo.Key()+"@") {
			if wanted(f.TagStatus, f.ImageStatus, len(image.Tags(snap, i)) > 0, i.Archived()) && !yield(i) {
				return
			}
		}
	}
	images, next, err := page(all, (*state.Image).Key,
		pages.Query{"DescribeImages", repo.Key(), string(f.TagStatus), string(f.ImageStatus)}, in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		out.ImageDetails = append(out.ImageDetails, detail(snap, repo, i))
	}
	out.NextToken = next
	return out, nil
}

func imageNotFound(repo *state.Repository, id ecr.ImageIdentifier) error {
	return &ecr.ImageNotFoundException{Message: fmt.Sprintf("The image with imageId %s does not exist within %s", show(id), where(repo))}
}

// show is an identifier in a message.
func show(id ecr.ImageIdentifier) string {
	null := func(p *string) string {
		if p == nil {
			return "null"
		}
		return *p
	}
	return fmt.Sprintf("{imageDigest:'%s', imageTag:'%s'}", null(id.ImageDigest), null(id.ImageTag))
}

func tagOf(id *ecr.ImageIdentifier) string { return wire.Value(id.ImageTag) }

// image finds the one image that a request names.
func (s *Service) image(ctx context.Context, r store.Reader, registryID, name *string, id *ecr.ImageIdentifier) (*state.Repository, *state.Image, error) {
	repo, err := s.repository(ctx, r, registryID, name)
	if err != nil {
		return nil, nil, err
	}
	if id.ImageDigest == nil && id.ImageTag == nil {
		return nil, nil, &ecr.InvalidParameterException{Message: missingIdentifier}
	}
	i, err := image.Find(r, repo.Key(), wire.Value(id.ImageDigest), wire.Value(id.ImageTag))
	if err != nil {
		return nil, nil, imageNotFound(repo, *id)
	}
	return repo, i, nil
}

// UpdateImageStorageClass moves an image into the archive, from where it
// cannot be pulled, or out of it, at once.
func (s *Service) UpdateImageStorageClass(ctx context.Context, in *ecr.UpdateImageStorageClassInput) (*ecr.UpdateImageStorageClassOutput, error) {
	now := s.Now()
	var repo *state.Repository
	var img *state.Image
	err := s.DB.Update(ctx, func(tx *store.Tx) (err error) {
		if repo, img, err = s.image(ctx, tx, in.RegistryId, in.RepositoryName, in.ImageId); err != nil {
			return err
		}
		archive := in.TargetStorageClass == ecr.TargetStorageClassArchive
		if archive == img.Archived() {
			return &ecr.ImageStorageClassUpdateNotSupportedException{Message: fmt.Sprintf("The image with imageId %s is in the storage class %s already", show(*in.ImageId), in.TargetStorageClass)}
		}
		img = image.SetArchived(tx, img, archive, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &ecr.UpdateImageStorageClassOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, ImageId: identifier(img.Digest, tagOf(in.ImageId)), ImageStatus: ecr.ImageStatusActive}
	if img.Archived() {
		out.ImageStatus = ecr.ImageStatusArchived
	}
	return out, nil
}

func detail(r store.Reader, repo *state.Repository, i *state.Image) ecr.ImageDetail {
	d := ecr.ImageDetail{
		RegistryId: new(repo.Account), RepositoryName: new(repo.Name), ImageDigest: new(i.Digest),
		ImageTags: image.Tags(r, i), ImageSizeInBytes: new(i.ImageSize), ImagePushedAt: new(i.PushedAt),
		ImageManifestMediaType: new(i.MediaType), ImageStatus: ecr.ImageStatusActive,
	}
	if i.Archived() {
		d.ImageStatus = ecr.ImageStatusArchived
	}
	if !i.ArchivedAt.IsZero() {
		d.LastArchivedAt = new(i.ArchivedAt)
	}
	if !i.ActivatedAt.IsZero() {
		d.LastActivatedAt = new(i.ActivatedAt)
	}
	if a := i.ArtifactType; a != "" {
		d.ArtifactMediaType = new(a)
	}
	if !i.PulledAt.IsZero() {
		d.LastRecordedPullTime = new(i.PulledAt)
	}
	if i.Subject != "" {
		d.SubjectManifestDigest = new(i.Subject)
	}
	return d
}

const missingIdentifier = "Invalid request parameters: both tag and digest cannot be null"

// check says what is wrong with an identifier by itself.
func check(id ecr.ImageIdentifier) (ecr.ImageFailureCode, string) {
	switch {
	case id.ImageDigest == nil && id.ImageTag == nil:
		return ecr.ImageFailureCodeMissingDigestAndTag, missingIdentifier
	case id.ImageDigest != nil && !isDigest(*id.ImageDigest):
		return ecr.ImageFailureCodeInvalidImageDigest, "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
	case id.ImageTag != nil && !image.ValidTag(*id.ImageTag):
		return ecr.ImageFailureCodeInvalidImageTag, "Invalid request parameters: image tag is not valid"
	}
	return "", ""
}

// failure tells why an image of a batch could not be had.
func failure(r store.Reader, repo *state.Repository, id ecr.ImageIdentifier, err error) (ecr.ImageFailure, bool) {
	f := ecr.ImageFailure{ImageId: &id}
	if e, ok := errors.AsType[*image.ReferencedError](err); ok {
		f.FailureCode, f.FailureReason = ecr.ImageFailureCodeImageReferencedByManifestList, new(e.Error())
		return f, true
	}
	if e, ok := errors.AsType[*image.ArchivedError](err); ok {
		f.FailureCode, f.FailureReason = ecr.ImageFailureCodeImageInaccessible, new(e.Error())
		return f, true
	}
	if e, ok := errors.AsType[*registry.UpstreamError](err); ok {
		f.FailureCode, f.FailureReason = ecr.ImageFailureCodeUpstreamUnavailable, new(e.Error())
		switch {
		case errors.Is(e, upstream.ErrNotFound):
			f.FailureCode = ecr.ImageFailureCodeImageNotFound
		case errors.Is(e, upstream.ErrDenied):
			f.FailureCode = ecr.ImageFailureCodeUpstreamAccessDenied
		}
		return f, true
	}
	if _, ok := errors.AsType[*image.NotFoundError](err); !ok {
		return f, false
	}
	f.FailureCode, f.FailureReason = ecr.ImageFailureCodeImageNotFound, new("Requested image not found")
	if id.ImageDigest != nil && id.ImageTag != nil {
		if _, err := image.Find(r, repo.Key(), "", *id.ImageTag); err == nil {
			f.FailureCode, f.FailureReason = ecr.ImageFailureCodeImageTagDoesNotMatchDigest, new("The requested image tag does not refer to the requested image digest")
		}
	}
	return f, true
}

// BatchGetImage returns manifests.
func (s *Service) BatchGetImage(ctx context.Context, in *ecr.BatchGetImageInput) (*ecr.BatchGetImageOutput, error) {
	snap, account := s.DB.Snapshot(), s.account(ctx, in.RegistryId)
	repo, ok := state.Repositories.Get(snap, state.RepositoryKey(account, *in.RepositoryName))
	if !ok { // a pull-through cache rule may have it
		repo = &state.Repository{Account: account, Name: *in.RepositoryName}
	}
	out := &ecr.BatchGetImageOutput{Images: []ecr.Image{}, Failures: []ecr.ImageFailure{}}
	for _, id := range in.ImageIds {
		if code, reason := check(id); code != "" {
			out.Failures = append(out.Failures, ecr.ImageFailure{ImageId: &id, FailureCode: code, FailureReason: &reason})
			continue
		}
		img, err := s.Registry.Fetch(ctx, account, repo.Name, wire.Value(id.ImageDigest), wire.Value(id.ImageTag))
		if err != nil {
			f, ok := failure(snap, repo, id, err)
			if !ok {
				return nil, repositoryError(err)
			}
			out.Failures = append(out.Failures, f)
			continue
		}
		manifest := img.Manifest
		if manifest == nil {
			if manifest, err = s.Registry.Manifest(img.Image); err != nil {
				return nil, err
			}
			s.Registry.Pulled(ctx, img.Image)
		}
		out.Images = append(out.Images, ecr.Image{
			RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, ImageId: identifier(img.Digest, wire.Value(id.ImageTag)),
			ImageManifest: new(string(manifest)), ImageManifestMediaType: new(img.MediaType),
		})
	}
	return out, nil
}

// BatchDeleteImage removes tags and images, each for itself.
func (s *Service) BatchDeleteImage(ctx context.Context, in *ecr.BatchDeleteImageInput) (*ecr.BatchDeleteImageOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	out := &ecr.BatchDeleteImageOutput{ImageIds: []ecr.ImageIdentifier{}, Failures: []ecr.ImageFailure{}}
	for _, id := range in.ImageIds {
		if code, reason := check(id); code != "" {
			out.Failures = append(out.Failures, ecr.ImageFailure{ImageId: &id, FailureCode: code, FailureReason: &reason})
			continue
		}
		img, tags, err := s.Registry.DeleteImage(ctx, repo.Key(), wire.Value(id.ImageDigest), wire.Value(id.ImageTag))
		if err != nil {
			f, ok := failure(s.DB.Snapshot(), repo, id, err)
			if !ok {
				return nil, repositoryError(err)
			}
			out.Failures = append(out.Failures, f)
			continue
		}
		// What went, one identifier per tag.
		if len(tags) == 0 {
			tags = []string{""}
		}
		for _, t := range tags {
			out.ImageIds = append(out.ImageIds, *identifier(img.Digest, t))
		}
	}
	return out, nil
}

// ListImageReferrers lists the artifacts that have an image for their subject.
func (s *Service) ListImageReferrers(ctx context.Context, in *ecr.ListImageReferrersInput) (*ecr.ListImageReferrersOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if !isDigest(*in.SubjectId.ImageDigest) {
		return nil, invalid("subjectId", "image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	f := wire.Value(in.Filter)
	var all iter.Seq[*state.Image] = func(yield func(*state.Image) bool) {
		for _, i := range image.Referrers(snap, repo.Key(), *in.SubjectId.ImageDigest) {
			if len(f.ArtifactTypes) > 0 && !slices.Contains(f.ArtifactTypes, i.ArtifactType) ||
				!wanted("", ecr.ImageStatusFilter(f.ArtifactStatus), false, i.Archived()) {
				continue
			}
			if !yield(i) {
				return
			}
		}
	}
	if in.MaxResults == nil {
		in.MaxResults = new(int32(50))
	}
	images, next, err := page(all, (*state.Image).Key,
		append(pages.Query{"ListImageReferrers", repo.Key(), *in.SubjectId.ImageDigest, string(f.ArtifactStatus)}, f.ArtifactTypes...), in.NextToken, in.MaxResults, s.Now())
	if err != nil {
		return nil, err
	}
	out := &ecr.ListImageReferrersOutput{Referrers: []ecr.ImageReferrer{}, NextToken: next}
	for _, i := range images {
		r := ecr.ImageReferrer{Digest: new(i.Digest), MediaType: new(i.MediaType), Size: new(i.Size), Annotations: i.Annotations, ArtifactStatus: ecr.ArtifactStatusActive}
		if i.ArtifactType != "" {
			r.ArtifactType = new(i.ArtifactType)
		}
		if i.Archived() {
			r.ArtifactStatus = ecr.ArtifactStatusArchived
		}
		out.Referrers = append(out.Referrers, r)
	}
	return out, nil
}

func isDigest(s string) bool {
	_, ok := content.ParseDigest(s)
	return ok
}
