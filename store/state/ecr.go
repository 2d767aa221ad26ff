package state

import (
	"strings"
	"time"

	"github.com/berth-run/berth/store"
)

// Repository is an ECR repository. What it holds are the rows of Images,
// ImageTags and RepositoryLayers whose key begins with its own.
type Repository struct {
	Account, Name string
	ARN           string
	TagMutability string           // MUTABLE, IMMUTABLE, …_WITH_EXCLUSION
	Exclusions    []ImageTagFilter // of the …_WITH_EXCLUSION kinds
	ScanOnPush    bool             // stored, nothing scans
	Encryption    string           // AES256, KMS, KMS_DSSE
	KMSKey        string           // as it was given
	Policy        string           // repository policy, "" for none
	Lifecycle     string           // lifecycle policy, "" for none
	Tags          []Tag
	CreatedAt     time.Time
}

// ImageTagFilter takes image tags out of what a repository's tag mutability says.
type ImageTagFilter struct{ Type, Filter string }

// RepositoryKey is the key of a repository. Neither part can hold the
// characters that bind a digest (@) or a tag (:) to it in the tables below.
func RepositoryKey(account, name string) string { return account + "/" + name }

// Key is the repository's key.
func (r *Repository) Key() string { return RepositoryKey(r.Account, r.Name) }

// Repositories is keyed by account/name.
var Repositories = store.NewTable("repository", (*Repository).Key)

// Image is a manifest in a repository. Its bytes are content with the same digest.
type Image struct {
	Repository   string // key
	Digest       string
	MediaType    string
	Config       string            // media type of the config, what ECR calls the artifact media type
	ArtifactType string            // of OCI artifacts
	Annotations  map[string]string // kept for referrers only
	Size         int64             // of the manifest
	ImageSize    int64             // of what it refers to; for an index, of its largest image
	Layers       []string          // digests of config and layers, without repetition
	Manifests    []string          // digests of an index's manifests
	Subject      string            // digest of the manifest this one is about
	PushedAt     time.Time
	PulledAt     time.Time // recorded at most once a day
	ArchivedAt   time.Time // last put into the archive
	ActivatedAt  time.Time // last taken out of it
}

// Archived says whether the image is in the archive, from where it cannot be pulled.
func (i *Image) Archived() bool { return i.ArchivedAt.After(i.ActivatedAt) }

// ImageKey is the key of an image.
func ImageKey(repository, digest string) string { return repository + "@" + digest }

// Key is the image's key.
func (i *Image) Key() string { return ImageKey(i.Repository, i.Digest) }

// Images is keyed by account/name@digest.
var Images = store.NewTable("image", (*Image).Key,
	store.Index("digest", func(i *Image) []string { return []string{i.Digest} }),
	store.Index("layer", func(i *Image) []string { return imageKeys(i.Repository, i.Layers) }),
	store.Index("manifest", func(i *Image) []string { return imageKeys(i.Repository, i.Manifests) }),
	store.Index("subject", func(i *Image) []string {
		if i.Subject == "" {
			return nil
		}
		return []string{ImageKey(i.Repository, i.Subject)}
	}))

func imageKeys(repository string, digests []string) []string {
	keys := make([]string, len(digests))
	for i, d := range digests {
		keys[i] = ImageKey(repository, d)
	}
	return keys
}

// ImageTag names an image of a repository. One row per tag, so that of two
// writers who move the same tag one comes after the other.
type ImageTag struct {
	Repository string // key
	Tag        string
	Digest     string
	At         time.Time
}

// ImageTagKey is the key of a tag.
func ImageTagKey(repository, tag string) string { return repository + ":" + tag }

// ImageTags is keyed by account/name:tag.
var ImageTags = store.NewTable("imagetag", func(t *ImageTag) string { return ImageTagKey(t.Repository, t.Tag) },
	store.Index("image", func(t *ImageTag) []string { return []string{ImageKey(t.Repository, t.Digest)} }))

// RepositoryLayer says that a blob is part of a repository. The same blob in
// two repositories is two rows and one content.
type RepositoryLayer struct {
	Repository string // key
	Digest     string
	Size       int64
	MediaType  string // "" until an image says it
	PushedAt   time.Time
	Idle       time.Time // since when no image has used it; zero while one does
}

// RepositoryLayers is keyed by account/name@digest.
var RepositoryLayers = store.NewTable("layer", func(l *RepositoryLayer) string { return ImageKey(l.Repository, l.Digest) },
	store.Index("digest", func(l *RepositoryLayer) []string { return []string{l.Digest} }))

// RegistrySetting is what an account has said about its registry as a whole.
type RegistrySetting struct{ Account, Name, Value string }

// RegistrySettings is keyed by account/name.
var RegistrySettings = store.NewTable("registrysetting", func(s *RegistrySetting) string { return s.Account + "/" + s.Name })

// RepositoryOf splits a repository's key.
func RepositoryOf(key string) (account, name string) {
	account, name, _ = strings.Cut(key, "/")
	return account, name
}

// RegistryKey is the key that seals what the registry hands out: passwords and
// download links.
type RegistryKey struct{ Secret []byte }

// RegistryKeyName is the key of the only row of RegistryKeys.
const RegistryKeyName = "key"

// RegistryKeys holds the one RegistryKey.
var RegistryKeys = store.NewTable("registrykey", func(*RegistryKey) string { return RegistryKeyName }, store.Sealed())
