package image

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// NamePattern is what a repository's name must match as a whole.
const NamePattern = `(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*`

var (
	namePattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// ValidName says whether a repository can have this name.
func ValidName(s string) bool { return len(s) >= 2 && len(s) <= 256 && namePattern.MatchString(s) }

// ValidTag says whether an image can have this tag.
func ValidTag(s string) bool { return tagPattern.MatchString(s) }

// The errors of this package hold what a message needs.
type (
	// NoRepositoryError: the repository does not exist.
	NoRepositoryError struct{ Account, Name string }
	// NotFoundError: the repository has no such image.
	NotFoundError struct{ Repository, Digest, Tag string }
	// ImmutableError: the tag names another image and may not be moved.
	ImmutableError struct{ Repository, Tag string }
	// MissingLayersError: the repository lacks layers of the manifest.
	MissingLayersError struct{ Digests []string }
	// MissingImagesError: the repository lacks images of the index.
	MissingImagesError struct{ Digests []string }
	// ReferencedError: the image is part of indexes.
	ReferencedError struct{ Indexes []string }
	// LimitError: a quota does not let one more be.
	LimitError struct {
		What  string
		Limit int
	}
	// ArchivedError: the image is in the archive.
	ArchivedError struct{ Digest string }
)

func (e *NoRepositoryError) Error() string {
	return fmt.Sprintf("The repository with name '%s' does not exist in the registry with id '%s'", e.Name, e.Account)
}
func (e *NotFoundError) Error() string { return "Requested image not found" }
func (e *ImmutableError) Error() string {
	_, name := state.RepositoryOf(e.Repository)
	return fmt.Sprintf("The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the tag is immutable.", e.Tag, name)
}
func (e *MissingLayersError) Error() string {
	return fmt.Sprintf("The layers with digests [%s] do not exist in the repository", strings.Join(e.Digests, ", "))
}
func (e *MissingImagesError) Error() string {
	return fmt.Sprintf("The images with digests [%s] that the manifest list refers to do not exist in the repository", strings.Join(e.Digests, ", "))
}
func (e *ReferencedError) Error() string {
	return fmt.Sprintf("Requested image referenced by manifest list: [%s]", strings.Join(e.Indexes, ", "))
}
func (e *LimitError) Error() string {
	return fmt.Sprintf("The limit of %d %s is reached", e.Limit, e.What)
}
func (e *ArchivedError) Error() string {
	return fmt.Sprintf("The image with digest '%s' is archived and must be restored before it can be pulled", e.Digest)
}

// Find returns the image that a digest or a tag names, or both: then both must
// name the same one, and the error is a NotFoundError as for one that is not there.
func Find(r store.Reader, repository, digest, tag string) (*state.Image, error) {
	missing := &NotFoundError{repository, digest, tag}
	if tag != "" {
		t, ok := state.ImageTags.Get(r, state.ImageTagKey(repository, tag))
		if !ok || digest != "" && t.Digest != digest {
			return nil, missing
		}
		digest = t.Digest
	}
	i, ok := state.Images.Get(r, state.ImageKey(repository, digest))
	if !ok {
		return nil, missing
	}
	return i, nil
}

// Tags returns an image's tags in order.
func Tags(r store.Reader, i *state.Image) []string {
	var tags []string
	for t := range state.ImageTags.By(r, "image", i.Key()) {
		tags = append(tags, t.Tag)
	}
	return tags
}

// Mutable says whether a tag of the repository may be moved to another image.
func Mutable(repo *state.Repository, tag string) bool {
	excluded := slices.ContainsFunc(repo.Exclusions, func(f state.ImageTagFilter) bool { return Match(f.Filter, tag) })
	switch repo.TagMutability {
	case "IMMUTABLE":
		return false
	case "IMMUTABLE_WITH_EXCLUSION":
		return excluded
	case "MUTABLE_WITH_EXCLUSION":
		return !excluded
	}
	return true
}

// Match matches s against a pattern in which * stands for any text.
func Match(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return s == pattern
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, next, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], next
	}
}

// Put writes an image, and its tag unless that is "". existed says that the
// image was there and had the tag already, so that nothing is written.
func Put(tx *store.Tx, repo *state.Repository, m *Manifest, tag string, now time.Time) (img *state.Image, existed bool, err error) {
	key := repo.Key()
	img, existed = state.Images.Get(tx, state.ImageKey(key, string(m.Digest)))
	restored := existed && img.Archived()
	if restored { // who pushes it wants it
		active := *img
		active.ActivatedAt = now
		img = &active
		state.Images.Put(tx, img)
	}
	if !existed {
		if err := room(tx, repo); err != nil {
			return nil, false, err
		}
		img = &state.Image{
			Repository: key, Digest: string(m.Digest), MediaType: m.MediaType, Config: m.Config,
			ArtifactType: m.ArtifactType, Size: m.Size, Subject: m.Subject, PushedAt: now,
		}
		if m.Subject != "" {
			img.Annotations = maps.Clone(m.Annotations)
		}
		if err := addLayers(tx, img, m); err != nil {
			return nil, false, err
		}
		if err := addManifests(tx, img, m); err != nil {
			return nil, false, err
		}
		state.Images.Put(tx, img)
	}
	if tag == "" {
		return img, existed && !restored, nil
	}
	old, tagged := state.ImageTags.Get(tx, state.ImageTagKey(key, tag))
	if tagged && old.Digest == img.Digest {
		return img, existed && !restored, nil
	}
	if tagged && !Mutable(repo, tag) {
		return nil, false, &ImmutableError{key, tag}
	}
	if most := state.Limit(tx, repo.Account, "ecr/tags-per-image"); existed && len(Tags(tx, img)) >= most {
		return nil, false, &LimitError{"tags per image", most}
	}
	state.ImageTags.Put(tx, &state.ImageTag{Repository: key, Tag: tag, Digest: img.Digest, At: now})
	return img, false, nil
}

// room says whether the repository may have one more image.
func room(r store.Reader, repo *state.Repository) error {
	most := state.Limit(r, repo.Account, "ecr/images-per-repository")
	if state.Images.Count(r) < most {
		return nil // not even all repositories together have as many
	}
	n := 0
	for range state.Images.Prefix(r, repo.Key()+"@") {
		if n++; n >= most {
			return &LimitError{"images per repository", most}
		}
	}
	return nil
}

// Pullable returns the image unless it is in the archive.
func Pullable(i *state.Image, err error) (*state.Image, error) {
	if err == nil && i.Archived() {
		return nil, &ArchivedError{i.Digest}
	}
	return i, err
}

// SetArchived moves an image into the archive or out of it.
func SetArchived(tx *store.Tx, i *state.Image, archived bool, now time.Time) *state.Image {
	if i.Archived() == archived {
		return i
	}
	next := *i
	if archived {
		next.ArchivedAt = now
	} else {
		next.ActivatedAt = now
	}
	state.Images.Put(tx, &next)
	return &next
}

func addLayers(tx *store.Tx, img *state.Image, m *Manifest) error {
	var missing []string
	for _, d := range m.Layers {
		l, ok := state.RepositoryLayers.Get(tx, state.ImageKey(img.Repository, d.Digest))
		if !ok {
			missing = append(missing, d.Digest)
			continue
		}
		img.Layers = append(img.Layers, d.Digest)
		img.ImageSize += l.Size
		if !l.Idle.IsZero() || l.MediaType == "" && d.MediaType != "" {
			next := *l
			next.Idle = time.Time{}
			if next.MediaType == "" {
				next.MediaType = d.MediaType
			}
			state.RepositoryLayers.Put(tx, &next)
		}
	}
	if missing != nil {
		return &MissingLayersError{missing}
	}
	return nil
}

func addManifests(tx *store.Tx, img *state.Image, m *Manifest) error {
	var missing []string
	for _, d := range m.Manifests {
		child, ok := state.Images.Get(tx, state.ImageKey(img.Repository, d.Digest))
		if !ok {
			missing = append(missing, d.Digest)
			continue
		}
		img.Manifests = append(img.Manifests, d.Digest)
		img.ImageSize = max(img.ImageSize, child.ImageSize)
	}
	if missing != nil {
		return &MissingImagesError{missing}
	}
	return nil
}

// Delete removes an image with all its tags.
func Delete(tx *store.Tx, img *state.Image) error {
	var indexes []string
	// An index that comes in between gets its manifests, and so sees this one go.
	state.Images.Guard(tx, img.Repository+"@")
	for i := range state.Images.By(tx, "manifest", img.Key()) {
		indexes = append(indexes, i.Digest)
	}
	if indexes != nil {
		return &ReferencedError{indexes}
	}
	state.ImageTags.Guard(tx, img.Repository+":")
	for _, tag := range Tags(tx, img) {
		state.ImageTags.Delete(tx, state.ImageTagKey(img.Repository, tag))
	}
	for r := range state.Replicas.Prefix(tx, img.Key()+"/") {
		state.Replicas.Delete(tx, r.Key())
	}
	state.Images.Delete(tx, img.Key())
	return nil
}

// Untag removes a tag; the image goes with its last one, as it does in ECR,
// unless an index needs it.
func Untag(tx *store.Tx, img *state.Image, tag string) error {
	tags := Tags(tx, img)
	if len(tags) == 1 && tags[0] == tag {
		needed := false
		for range state.Images.By(tx, "manifest", img.Key()) {
			needed = true
			break
		}
		if !needed {
			return Delete(tx, img)
		}
	}
	// That another tag stays is compared at commit: of two who remove the last
	// two tags at once, one comes second and takes the image with it.
	for _, other := range tags {
		if other != tag {
			state.ImageTags.Get(tx, state.ImageTagKey(img.Repository, other))
			break
		}
	}
	state.ImageTags.Delete(tx, state.ImageTagKey(img.Repository, tag))
	return nil
}

// AddLayer makes a blob part of a repository. existed says that it was.
func AddLayer(tx *store.Tx, repository string, d content.Digest, size int64, mediaType string, now time.Time) (existed bool) {
	if l, ok := state.RepositoryLayers.Get(tx, state.ImageKey(repository, string(d))); ok {
		if !l.Idle.IsZero() {
			next := *l
			next.Idle = now
			state.RepositoryLayers.Put(tx, &next)
		}
		return true
	}
	state.RepositoryLayers.Put(tx, &state.RepositoryLayer{Repository: repository, Digest: string(d), Size: size, MediaType: mediaType, PushedAt: now, Idle: now})
	return false
}

// Referrers returns the images whose subject is the digest, in order.
func Referrers(r store.Reader, repository, digest string) []*state.Image {
	return slices.Collect(state.Images.By(r, "subject", state.ImageKey(repository, digest)))
}
