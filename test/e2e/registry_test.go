package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	gcr "github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/test/lab"
)

// skopeo runs skopeo against the region's registry.
func skopeo(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(deadline(t), "skopeo", append([]string{"--insecure-policy"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("skopeo %v: %v\n%s%s", args, err, out, errs.Bytes())
	}
	return out
}

// children are the images of an index, with their platforms.
func children(t *testing.T, index v1.ImageIndex) (s string) {
	t.Helper()
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		s += fmt.Sprintln(d.MediaType, d.Digest, d.Size, d.Platform.Architecture)
	}
	return s
}

// An image for two platforms goes in by skopeo and out again, and has artifacts
// that go-containerregistry, which is crane's library, finds. A lifecycle
// policy takes what is too much.
func TestRegistryClients(t *testing.T) {
	t.Parallel()
	repo := call[ecr.CreateRepositoryOutput](t, shared, lab.ECR, "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new("clients/app")}).Repository
	token := call[ecr.GetAuthorizationTokenOutput](t, shared, lab.ECR, "GetAuthorizationToken", &ecr.GetAuthorizationTokenInput{})
	password, err := passwordOf(*token.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		t.Fatal(err)
	}
	var index v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := gcr.Image(100<<10, 2)
		if err != nil {
			t.Fatal(err)
		}
		// Of one kind with the index, or skopeo makes others of them.
		img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	dir := t.TempDir()
	path, err := layout.Write(filepath.Join(dir, "in"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "multi"})); err != nil {
		t.Fatal(err)
	}
	at := "docker://" + *repo.RepositoryUri
	skopeo(t, "copy", "--all", "--dest-tls-verify=false", "--dest-creds=AWS:"+password, "oci:"+filepath.Join(dir, "in")+":multi", at+":multi")
	skopeo(t, "copy", "--all", "--src-tls-verify=false", "--src-creds=AWS:"+password, at+":multi", "oci:"+filepath.Join(dir, "out")+":multi")
	back, err := layout.ImageIndexFromPath(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	outer, err := back.IndexManifest()
	if err != nil || len(outer.Manifests) != 1 {
		t.Fatal(outer, err)
	}
	// skopeo writes the index anew; the images must be what they were.
	want := outer.Manifests[0].Digest
	again, err := back.ImageIndex(want)
	if err != nil {
		t.Fatal(err)
	}
	if in, out := children(t, index), children(t, again); in != out {
		t.Errorf("%s went in, %s came out", in, out)
	}
	var tags struct{ Tags []string }
	if err := json.Unmarshal(skopeo(t, "list-tags", "--tls-verify=false", "--creds=AWS:"+password, at), &tags); err != nil || len(tags.Tags) != 1 {
		t.Error(tags, err)
	}

	// An artifact about it.
	ref, opts, err := shared.Remote(deadline(t), "clients/app@"+want.String(), password)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := partial.Descriptor(again)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := gcr.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	sig, ok := mutate.Subject(mutate.ConfigMediaType(sig, "application/vnd.example.signature"), *desc).(v1.Image)
	if !ok {
		t.Fatal("not an image")
	}
	sigDigest, err := sig.Digest()
	if err != nil {
		t.Fatal(err)
	}
	to := ref.Context().Digest(sigDigest.String())
	if err := remote.Write(to, sig, opts...); err != nil {
		t.Fatal(err)
	}
	found, err := remote.Referrers(ref.Context().Digest(want.String()), append(opts, remote.WithFilter("artifactType", "application/vnd.example.signature"))...)
	if err != nil {
		t.Fatal(err)
	}
	if refs, err := found.IndexManifest(); err != nil || len(refs.Manifests) != 1 || refs.Manifests[0].Digest != sigDigest {
		t.Errorf("%+v, %v", refs, err)
	}
	listed := call[ecr.ListImageReferrersOutput](t, shared, lab.ECR, "ListImageReferrers", &ecr.ListImageReferrersInput{RepositoryName: repo.RepositoryName, SubjectId: &ecr.SubjectIdentifier{ImageDigest: new(want.String())}})
	if len(listed.Referrers) != 1 || *listed.Referrers[0].Digest != sigDigest.String() {
		t.Errorf("%s", show(listed))
	}

	// Three more images, and a policy that keeps one with such a tag.
	for n := range 3 {
		img, err := gcr.Image(100, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref.Context().Tag(fmt.Sprintf("build-%d", n)), img, opts...); err != nil {
			t.Fatal(err)
		}
	}
	call[ecr.PutLifecyclePolicyOutput](t, shared, lab.ECR, "PutLifecyclePolicy", &ecr.PutLifecyclePolicyInput{RepositoryName: repo.RepositoryName,
		LifecyclePolicyText: new(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPrefixList":["build-"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)})
	var left []string
	err = lab.Until(deadline(t), func(ctx context.Context) (bool, error) {
		images, err := lab.Do[ecr.ListImagesOutput](ctx, shared.Root, lab.ECR, "ListImages", &ecr.ListImagesInput{RepositoryName: repo.RepositoryName, Filter: &ecr.ListImagesFilter{TagStatus: ecr.TagStatusTagged}})
		if err != nil {
			return false, err
		}
		left = nil
		for _, i := range images.ImageIds {
			left = append(left, *i.ImageTag)
		}
		return len(left) == 2, nil
	})
	if err != nil {
		t.Fatalf("%q are left: %v", left, err)
	}
	if fmt.Sprint(left) != "[build-2 multi]" && fmt.Sprint(left) != "[multi build-2]" {
		t.Errorf("%q are left", left)
	}
	if got := call[ecr.GetLifecyclePolicyOutput](t, shared, lab.ECR, "GetLifecyclePolicy", &ecr.GetLifecyclePolicyInput{RepositoryName: repo.RepositoryName}); got.LastEvaluatedAt == nil {
		t.Error("the policy was never evaluated")
	}
}
