package ecr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/store/state"
)

const (
	partSize = 10 << 20 // what is proposed
	minPart  = 5 << 20  // of all but the last
)

// BatchCheckLayerAvailability says which layers the repository has.
func (s *Service) BatchCheckLayerAvailability(ctx context.Context, in *ecr.BatchCheckLayerAvailabilityInput) (*ecr.BatchCheckLayerAvailabilityOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	out := &ecr.BatchCheckLayerAvailabilityOutput{Layers: []ecr.Layer{}, Failures: []ecr.LayerFailure{}}
	for _, d := range in.LayerDigests {
		switch {
		case d == "":
			out.Failures = append(out.Failures, ecr.LayerFailure{LayerDigest: new(d), FailureCode: ecr.LayerFailureCodeMissingLayerDigest, FailureReason: new("Invalid request parameters: layer digest cannot be null")})
			continue
		case !isDigest(d):
			out.Failures = append(out.Failures, ecr.LayerFailure{LayerDigest: new(d), FailureCode: ecr.LayerFailureCodeInvalidLayerDigest, FailureReason: new("Invalid request parameters: layer digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")})
			continue
		}
		l := ecr.Layer{LayerDigest: new(d), LayerAvailability: ecr.LayerAvailabilityUnavailable}
		if have, ok := state.RepositoryLayers.Get(snap, state.ImageKey(repo.Key(), d)); ok {
			l.LayerAvailability, l.LayerSize = ecr.LayerAvailabilityAvailable, new(have.Size)
			if registry.InArchive(snap, repo.Key(), content.Digest(d)) != nil {
				l.LayerAvailability = ecr.LayerAvailabilityArchived
			}
			if have.MediaType != "" {
				l.MediaType = new(have.MediaType)
			}
		}
		out.Layers = append(out.Layers, l)
	}
	return out, nil
}

// GetDownloadUrlForLayer gives a link to a layer that an image uses.
func (s *Service) GetDownloadUrlForLayer(ctx context.Context, in *ecr.GetDownloadUrlForLayerInput) (*ecr.GetDownloadUrlForLayerOutput, error) {
	snap := s.DB.Snapshot()
	repo, err := s.repository(ctx, snap, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	d, ok := content.ParseDigest(*in.LayerDigest)
	if !ok {
		return nil, invalid("layerDigest", "layer digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	key := state.ImageKey(repo.Key(), string(d))
	if !state.RepositoryLayers.Has(snap, key) {
		return nil, &ecr.LayersNotFoundException{Message: fmt.Sprintf("The layers with digests '[%s]' do not exist in %s", d, where(repo))}
	}
	if err := registry.InArchive(snap, repo.Key(), d); err != nil {
		return nil, &ecr.LayerInaccessibleException{Message: err.Error()}
	}
	for range state.Images.By(snap, "layer", key) {
		return &ecr.GetDownloadUrlForLayerOutput{
			DownloadUrl: new(s.Registry.LayerURL(s.Endpoint(ctx, repo.Account), d)), LayerDigest: in.LayerDigest,
		}, nil
	}
	return nil, &ecr.LayerInaccessibleException{Message: fmt.Sprintf("The layer with digest '%s' is not referenced by an image in %s", d, where(repo))}
}

// InitiateLayerUpload begins a layer.
func (s *Service) InitiateLayerUpload(ctx context.Context, in *ecr.InitiateLayerUploadInput) (*ecr.InitiateLayerUploadOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	u, err := s.Registry.BeginUpload(repo.Key())
	if err != nil {
		return nil, err
	}
	return &ecr.InitiateLayerUploadOutput{UploadId: new(u.ID), PartSize: new(int64(partSize))}, nil
}

// upload finds an upload of the repository.
func (s *Service) upload(repo *state.Repository, id string) (*content.Upload, error) {
	u, err := s.Registry.Upload(repo.Key(), id)
	return u, uploadError(repo, id, err)
}

func uploadError(repo *state.Repository, id string, err error) error {
	if errors.Is(err, content.ErrUnknownUpload) {
		return &ecr.UploadNotFoundException{Message: fmt.Sprintf("The upload with id '%s' does not exist in %s", id, where(repo))}
	}
	return repositoryError(err)
}

// UploadLayerPart adds the next part of a layer.
func (s *Service) UploadLayerPart(ctx context.Context, in *ecr.UploadLayerPartInput) (*ecr.UploadLayerPartOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	u, err := s.upload(repo, *in.UploadId)
	if err != nil {
		return nil, err
	}
	bad := func(size int64, text string) error {
		return &ecr.InvalidLayerPartException{
			Message: text, RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LastValidByteReceived: new(size - 1),
		}
	}
	size, err := u.Size(ctx)
	if err != nil {
		return nil, uploadError(repo, u.ID, err)
	}
	if n := *in.PartLastByte - *in.PartFirstByte + 1; n != int64(len(in.LayerPartBlob)) || n == 0 {
		return nil, bad(size, fmt.Sprintf("The part from byte %d to %d has %d bytes", *in.PartFirstByte, *in.PartLastByte, len(in.LayerPartBlob)))
	}
	size, err = u.AppendPart(ctx, bytes.NewReader(in.LayerPartBlob), *in.PartFirstByte, minPart)
	switch {
	case errors.Is(err, content.ErrOffset):
		return nil, bad(size, fmt.Sprintf("The part begins at byte %d, the layer continues at byte %d", *in.PartFirstByte, size))
	case errors.Is(err, content.ErrTooLarge):
		return nil, &ecr.LimitExceededException{Message: fmt.Sprintf("A layer cannot be larger than %d MiB", state.Limit(s.DB.Snapshot(), repo.Account, "ecr/layer-mebibytes"))}
	case err != nil:
		return nil, uploadError(repo, u.ID, err)
	}
	return &ecr.UploadLayerPartOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LastByteReceived: new(size - 1)}, nil
}

// CompleteLayerUpload makes the upload a layer of the repository.
func (s *Service) CompleteLayerUpload(ctx context.Context, in *ecr.CompleteLayerUploadInput) (*ecr.CompleteLayerUploadOutput, error) {
	repo, err := s.repository(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	u, err := s.upload(repo, *in.UploadId)
	if err != nil {
		return nil, err
	}
	var d content.Digest
	for _, name := range in.LayerDigests { // the strongest that we know is the only one
		if have, ok := content.ParseDigest(name); ok {
			d = have
		}
	}
	if d == "" {
		return nil, invalid("layerDigests", "one of the digests must be of sha256")
	}
	size, err := u.Size(ctx)
	if err != nil {
		return nil, uploadError(repo, u.ID, err)
	}
	if size == 0 {
		return nil, &ecr.EmptyUploadException{Message: fmt.Sprintf("The upload with id '%s' to %s has no parts", u.ID, where(repo))}
	}
	_, existed, err := s.Registry.CompleteUpload(ctx, repo.Key(), u, d, nil, -1)
	switch {
	case errors.Is(err, content.ErrDigest):
		return nil, &ecr.InvalidLayerException{Message: fmt.Sprintf("The layer digests '[%s]' do not match the uploaded content", strings.Join(in.LayerDigests, ", "))}
	case errors.Is(err, content.ErrShortPart):
		return nil, &ecr.LayerPartTooSmallException{Message: fmt.Sprintf("A part of the upload with id '%s' other than its last is smaller than %d bytes", u.ID, minPart)}
	case err != nil:
		return nil, uploadError(repo, u.ID, err)
	case existed:
		return nil, &ecr.LayerAlreadyExistsException{Message: fmt.Sprintf("The layer with digest '%s' already exists in %s", d, where(repo))}
	}
	return &ecr.CompleteLayerUploadOutput{RegistryId: new(repo.Account), RepositoryName: in.RepositoryName, UploadId: in.UploadId, LayerDigest: new(string(d))}, nil
}
