// Package image knows what an image repository holds and keeps it consistent:
// it reads manifests, and writes the rows of repositories inside the caller's
// transaction.
//
// Its invariant: an image's layers, and the images of an index, are in the
// repository for as long as the image is, and a tag names an image that is
// there. It must never touch content, the network or a clock, and never decide
// who may do what.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/berth-run/berth/registry/content"
)

// MaxManifest is the size of the largest manifest.
const MaxManifest = 4 << 20

// Media types of manifests.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
)

// ErrNoMediaType: neither the request nor the manifest says what it is.
var ErrNoMediaType = errors.New("image manifest mediatype not provided in manifest or parameter")

// Descriptor points from a manifest to content.
type Descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls"`
}

// Manifest is what matters of a manifest: what it is and what it refers to.
type Manifest struct {
	Digest       content.Digest
	MediaType    string
	Config       string // media type of the config
	ArtifactType string
	Annotations  map[string]string
	Size         int64
	Layers       []Descriptor // config and layers, without repetition and without those kept elsewhere
	Manifests    []Descriptor
	Subject      string
}

// Parse reads a manifest. mediaType is what the sender calls it, or "".
func Parse(mediaType string, b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("manifest is larger than %d bytes", MaxManifest)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("manifest is not UTF-8")
	}
	var doc struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *Descriptor       `json:"config"`
		Layers        []Descriptor      `json:"layers"`
		FSLayers      json.RawMessage   `json:"fsLayers"`
		Manifests     []Descriptor      `json:"manifests"`
		Subject       *Descriptor       `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("manifest is not valid JSON: %w", err)
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("manifest schema version %d is not supported", doc.SchemaVersion)
	}
	switch {
	case mediaType == "" && doc.MediaType == "":
		return nil, ErrNoMediaType
	case mediaType == "":
		mediaType = doc.MediaType
	case doc.MediaType != "" && doc.MediaType != mediaType:
		return nil, fmt.Errorf("manifest is of type %q but was sent as %q", doc.MediaType, mediaType)
	}
	m := &Manifest{Digest: content.Sum(b), MediaType: mediaType, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations, Size: int64(len(b))}
	switch mediaType {
	case DockerManifest, OCIManifest:
		// A document that reads as both would be one thing to us and another to
		// whoever pulls it.
		if doc.Manifests != nil || doc.FSLayers != nil {
			return nil, errors.New("manifest of an image has the members of an index")
		}
		if doc.Config == nil {
			return nil, errors.New("manifest has no config")
		}
		m.Config = doc.Config.MediaType
		seen := map[string]bool{}
		for _, d := range append([]Descriptor{*doc.Config}, doc.Layers...) {
			if err := d.check(); err != nil {
				return nil, err
			}
			if len(d.URLs) == 0 && !seen[d.Digest] {
				seen[d.Digest] = true
				m.Layers = append(m.Layers, d)
			}
		}
		// What the distribution specification calls the artifact type of a
		// manifest that does not say it.
		if m.ArtifactType == "" {
			m.ArtifactType = m.Config
		}
	case DockerList, OCIIndex:
		if doc.Config != nil || doc.Layers != nil || doc.FSLayers != nil {
			return nil, errors.New("index has the members of an image's manifest")
		}
		for _, d := range doc.Manifests {
			if err := d.check(); err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(m.Manifests, func(have Descriptor) bool { return have.Digest == d.Digest }) {
				m.Manifests = append(m.Manifests, d)
			}
		}
	default:
		return nil, fmt.Errorf("manifest type %q is not supported", mediaType)
	}
	if doc.Subject != nil {
		if err := doc.Subject.check(); err != nil {
			return nil, err
		}
		m.Subject = doc.Subject.Digest
	}
	return m, nil
}

// Index says whether the manifest is one of manifests.
func (m *Manifest) Index() bool { return m.MediaType == DockerList || m.MediaType == OCIIndex }

func (d Descriptor) check() error {
	if _, ok := content.ParseDigest(d.Digest); !ok {
		return fmt.Errorf("%q is not a sha256 or sha512 digest", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has a negative size", d.Digest)
	}
	return nil
}
