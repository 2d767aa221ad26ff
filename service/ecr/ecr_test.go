package ecr_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/content"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/service/ecr"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const account = "123456789012"

type world struct {
	*ecr.Service
	t   *testing.T
	ctx context.Context
	az  *auth.Authorizer
	srv *httptest.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	sessions, err := auth.NewSessions(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, az: &auth.Authorizer{Sessions: sessions}}
	db := store.OpenMemory()
	t.Cleanup(func() { db.Close() })
	if err := db.Update(t.Context(), func(tx *store.Tx) error {
		state.Accounts.Put(tx, &state.Account{ID: account})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(t.Context(), registry.Config{Dir: t.TempDir(), DB: db, Region: "us-east-1", Authorizer: w.az, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	w.srv = httptest.NewServer(reg)
	t.Cleanup(w.srv.Close)
	w.Service, err = ecr.New(ecr.Config{DB: db, Registry: reg, Endpoint: func(_ context.Context, account string) string {
		return "http://" + account + ".dkr.ecr.us-east-1.localhost:4566"
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.ctx = auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.RootUser, Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account})
	return w
}

// ok unwraps a result that must not be an error.
func ok[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused checks an error's code and text.
func refused[T any](_ T, err error) func(t *testing.T, code, message string) {
	return func(t *testing.T, code, message string) {
		t.Helper()
		if got := wire.Code(err); got != code {
			t.Fatalf("got %v, want %s", err, code)
		}
		if got := strings.TrimPrefix(err.Error(), code+": "); got != message {
			t.Errorf("%s:\n got %s\nwant %s", code, got, message)
		}
	}
}

func (w *world) create(name string) {
	w.t.Helper()
	ok(w.CreateRepository(w.ctx, &api.CreateRepositoryInput{RepositoryName: &name}))(w.t)
}

// layer uploads a layer by the API.
func (w *world) layer(repo string, b []byte) string {
	w.t.Helper()
	id := ok(w.InitiateLayerUpload(w.ctx, &api.InitiateLayerUploadInput{RepositoryName: &repo}))(w.t).UploadId
	ok(w.UploadLayerPart(w.ctx, &api.UploadLayerPartInput{RepositoryName: &repo, UploadId: id, PartFirstByte: new(int64(0)), PartLastByte: new(int64(len(b) - 1)), LayerPartBlob: b}))(w.t)
	d := string(content.Sum(b))
	ok(w.CompleteLayerUpload(w.ctx, &api.CompleteLayerUploadInput{RepositoryName: &repo, UploadId: id, LayerDigests: []string{d}}))(w.t)
	return d
}

func manifest(config string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":3},"layers":[]}`, image.OCIManifest, config)
}

func (w *world) image(repo, tag, what string) string {
	w.t.Helper()
	m := manifest(w.layer(repo, []byte(what)))
	in := &api.PutImageInput{RepositoryName: &repo, ImageManifest: &m}
	if tag != "" {
		in.ImageTag = &tag
	}
	return *ok(w.PutImage(w.ctx, in))(w.t).Image.ImageId.ImageDigest
}

func TestRepositories(t *testing.T) {
	w := newWorld(t)
	before := time.Now()
	got := ok(w.CreateRepository(w.ctx, &api.CreateRepositoryInput{RepositoryName: new("team/app"), Tags: []api.Tag{{Key: new("b"), Value: new("1")}, {Key: new("a"), Value: new("2")}}}))(t).Repository
	if got.CreatedAt.Before(before) {
		t.Error(got.CreatedAt)
	}
	want := &api.Repository{
		RepositoryArn: new("arn:aws:ecr:us-east-1:123456789012:repository/team/app"), RegistryId: new(account), RepositoryName: new("team/app"),
		RepositoryUri: new("123456789012.dkr.ecr.us-east-1.localhost:4566/team/app"), CreatedAt: got.CreatedAt, ImageTagMutability: "MUTABLE",
		ImageScanningConfiguration: &api.ImageScanningConfiguration{ScanOnPush: new(false)}, EncryptionConfiguration: &api.EncryptionConfiguration{EncryptionType: "AES256"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	refused(w.CreateRepository(w.ctx, &api.CreateRepositoryInput{RepositoryName: new("team/app")}))(t,
		"RepositoryAlreadyExistsException", "The repository with name 'team/app' already exists in the registry with id '123456789012'")
	refused(w.DescribeRepositories(w.ctx, &api.DescribeRepositoriesInput{RepositoryNames: []string{"x/y"}}))(t,
		"RepositoryNotFoundException", "The repository with name 'x/y' does not exist in the registry with id '123456789012'")
	arn := got.RepositoryArn
	tags := func() string {
		var s []string
		for _, x := range ok(w.ListTagsForResource(w.ctx, &api.ListTagsForResourceInput{ResourceArn: arn}))(t).Tags {
			s = append(s, *x.Key+"="+*x.Value)
		}
		return strings.Join(s, " ")
	}
	ok(w.TagResource(w.ctx, &api.TagResourceInput{ResourceArn: arn, Tags: []api.Tag{{Key: new("a"), Value: new("3")}, {Key: new("c"), Value: new("")}}}))(t)
	ok(w.UntagResource(w.ctx, &api.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"b"}}))(t)
	if got := tags(); got != "a=3 c=" {
		t.Error(got)
	}
	refused(w.TagResource(w.ctx, &api.TagResourceInput{ResourceArn: new("arn:x"), Tags: nil}))(t, "InvalidParameterException",
		"Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'")

	for i := range 5 {
		w.create(fmt.Sprintf("r%d", i))
	}
	var names []string
	in := &api.DescribeRepositoriesInput{MaxResults: new(int32(4))}
	for pages := 0; ; pages++ {
		out := ok(w.DescribeRepositories(w.ctx, in))(t)
		for _, r := range out.Repositories {
			names = append(names, *r.RepositoryName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			if pages != 1 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
	}
	if d := cmp.Diff([]string{"r0", "r1", "r2", "r3", "r4", "team/app"}, names); d != "" {
		t.Error(d)
	}

	w.image("team/app", "v1", "one")
	refused(w.DeleteRepository(w.ctx, &api.DeleteRepositoryInput{RepositoryName: new("team/app")}))(t,
		"RepositoryNotEmptyException", "The repository with name 'team/app' in registry with id '123456789012' cannot be deleted because it still contains images")
	ok(w.DeleteRepository(w.ctx, &api.DeleteRepositoryInput{RepositoryName: new("team/app"), Force: new(true)}))(t)
	snap := w.DB.Snapshot()
	if n := state.Images.Count(snap) + state.ImageTags.Count(snap) + state.RepositoryLayers.Count(snap); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestMutability(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	filter := []api.ImageTagMutabilityExclusionFilter{{FilterType: "WILDCARD", Filter: new("dev-*")}}
	refused(w.PutImageTagMutability(w.ctx, &api.PutImageTagMutabilityInput{RepositoryName: new("app"), ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION"}))(t, "InvalidParameterException",
		"Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'ImageTagMutabilityExclusionFilters can't be null when imageTagMutability is set as IMMUTABLE_WITH_EXCLUSION'")
	out := ok(w.PutImageTagMutability(w.ctx, &api.PutImageTagMutabilityInput{RepositoryName: new("app"), ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION", ImageTagMutabilityExclusionFilters: filter}))(t)
	if d := cmp.Diff(filter, out.ImageTagMutabilityExclusionFilters); d != "" {
		t.Error(d)
	}
	w.image("app", "v1", "one")
	w.image("app", "dev-1", "two")
	w.image("app", "dev-1", "three")
	m := manifest(w.layer("app", []byte("four")))
	refused(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &m, ImageTag: new("v1")}))(t, "ImageTagAlreadyExistsException",
		"The image tag 'v1' already exists in the 'app' repository and cannot be overwritten because the tag is immutable.")
}

func TestImages(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	d1 := w.image("app", "v1", "one")
	d2 := w.image("app", "v1", "two!") // moves the tag
	if got := ok(w.ListImages(w.ctx, &api.ListImagesInput{RepositoryName: new("app"), Filter: &api.ListImagesFilter{TagStatus: "UNTAGGED"}}))(t).ImageIds; len(got) != 1 || *got[0].ImageDigest != d1 || got[0].ImageTag != nil {
		t.Errorf("untagged: %+v", got)
	}
	det := ok(w.DescribeImages(w.ctx, &api.DescribeImagesInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{{ImageTag: new("v1")}}}))(t).ImageDetails
	if len(det) != 1 || *det[0].ImageDigest != d2 || *det[0].ImageSizeInBytes != 4 || det[0].LastRecordedPullTime != nil || det[0].ImageTags[0] != "v1" {
		t.Errorf("%+v", det)
	}
	refused(w.DescribeImages(w.ctx, &api.DescribeImagesInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{{ImageTag: new("v9")}}}))(t, "ImageNotFoundException",
		"The image with imageId {imageDigest:'null', imageTag:'v9'} does not exist within the repository with name 'app' in the registry with id '123456789012'")
	m := manifest(string(content.Sum([]byte("two!"))))
	refused(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &m, ImageTag: new("v1")}))(t, "ImageAlreadyExistsException",
		"Image with digest '"+d2+"' and tag 'v1' already exists in the repository with name 'app' in registry with id '123456789012'")
	refused(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &m, ImageDigest: &d1}))(t, "ImageDigestDoesNotMatchException",
		"The provided image digest '"+d1+"' does not match the digest '"+d2+"' calculated from the image manifest")
	missing := string(content.Sum([]byte("nothere")))
	m = manifest(missing)
	refused(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &m, ImageTag: new("v3")}))(t, "LayersNotFoundException",
		"The layers with digests '["+missing+"]' required for pushing image with tag 'v3' do not exist in the repository with name 'app' in the registry with id '123456789012'")
	refused(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: new(`{"schemaVersion":2}`)}))(t, "InvalidParameterException",
		"image manifest mediatype not provided in manifest or parameter")

	got := ok(w.BatchGetImage(w.ctx, &api.BatchGetImageInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{
		{ImageTag: new("v1")}, {ImageTag: new("v9")}, {}, {ImageDigest: new("x")}, {ImageDigest: &d1, ImageTag: new("v1")},
	}}))(t)
	if len(got.Images) != 1 || *got.Images[0].ImageManifest != manifest(string(content.Sum([]byte("two!")))) {
		t.Errorf("%+v", got.Images)
	}
	var codes []string
	for _, f := range got.Failures {
		codes = append(codes, string(f.FailureCode)+": "+*f.FailureReason)
	}
	if d := cmp.Diff([]string{
		"ImageNotFound: Requested image not found",
		"MissingDigestAndTag: Invalid request parameters: both tag and digest cannot be null",
		"InvalidImageDigest: Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
		"ImageTagDoesNotMatchDigest: The requested image tag does not refer to the requested image digest",
	}, codes); d != "" {
		t.Error(d)
	}
	if p := ok(w.DescribeImages(w.ctx, &api.DescribeImagesInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{{ImageDigest: &d2}}}))(t).ImageDetails[0].LastRecordedPullTime; p == nil {
		t.Error("the pull was not recorded")
	}

	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":1}]}`, image.OCIIndex, image.OCIManifest, d1)
	ok(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &index, ImageTag: new("multi")}))(t)
	del := ok(w.BatchDeleteImage(w.ctx, &api.BatchDeleteImageInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{{ImageDigest: &d1}, {ImageTag: new("v1")}, {ImageTag: new("multi")}, {ImageDigest: &d1}}}))(t)
	if len(del.Failures) != 1 || del.Failures[0].FailureCode != "ImageReferencedByManifestList" || len(del.ImageIds) != 3 || *del.ImageIds[0].ImageTag != "v1" {
		t.Errorf("%+v", del)
	}
	if n := state.Images.Count(w.DB.Snapshot()); n != 0 {
		t.Errorf("%d images are left", n)
	}
}

func TestLayers(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	w.create("else")
	app := new("app")
	up := ok(w.InitiateLayerUpload(w.ctx, &api.InitiateLayerUploadInput{RepositoryName: app}))(t)
	if *up.PartSize != 10<<20 {
		t.Error(*up.PartSize)
	}
	id := up.UploadId
	part := func(first, last int64, b []byte) (*api.UploadLayerPartOutput, error) {
		return w.UploadLayerPart(w.ctx, &api.UploadLayerPartInput{RepositoryName: app, UploadId: id, PartFirstByte: &first, PartLastByte: &last, LayerPartBlob: b})
	}
	refused(w.CompleteLayerUpload(w.ctx, &api.CompleteLayerUploadInput{RepositoryName: app, UploadId: id, LayerDigests: []string{string(content.Sum(nil))}}))(t, "EmptyUploadException",
		"The upload with id '"+*id+"' to the repository with name 'app' in the registry with id '123456789012' has no parts")
	if out := ok(part(0, 2, []byte("abc")))(t); *out.LastByteReceived != 2 {
		t.Error(*out.LastByteReceived)
	}
	_, err := part(5, 6, []byte("xy"))
	if e, is := err.(*api.InvalidLayerPartException); !is || *e.LastValidByteReceived != 2 {
		t.Errorf("%v", err)
	}
	ok(part(3, 3, []byte("d")))(t)
	refused(w.CompleteLayerUpload(w.ctx, &api.CompleteLayerUploadInput{RepositoryName: app, UploadId: id, LayerDigests: []string{string(content.Sum([]byte("abcd")))}}))(t, "LayerPartTooSmallException",
		"A part of the upload with id '"+*id+"' other than its last is smaller than 5242880 bytes")
	refused(part(0, 0, []byte("x")))(t, "UploadNotFoundException", "The upload with id '"+*id+"' does not exist in the repository with name 'app' in the registry with id '123456789012'")

	d := w.layer("app", []byte("one"))
	id = ok(w.InitiateLayerUpload(w.ctx, &api.InitiateLayerUploadInput{RepositoryName: app}))(t).UploadId
	ok(part(0, 2, []byte("one")))(t)
	refused(w.CompleteLayerUpload(w.ctx, &api.CompleteLayerUploadInput{RepositoryName: app, UploadId: id, LayerDigests: []string{d}}))(t, "LayerAlreadyExistsException",
		"The layer with digest '"+d+"' already exists in the repository with name 'app' in the registry with id '123456789012'")

	for repo, want := range map[string]api.LayerAvailability{"app": "AVAILABLE", "else": "UNAVAILABLE"} {
		out := ok(w.BatchCheckLayerAvailability(w.ctx, &api.BatchCheckLayerAvailabilityInput{RepositoryName: &repo, LayerDigests: []string{d, "x"}}))(t)
		if len(out.Layers) != 1 || out.Layers[0].LayerAvailability != want || len(out.Failures) != 1 || out.Failures[0].FailureCode != "InvalidLayerDigest" {
			t.Errorf("%s: %+v", repo, out)
		}
	}
	_, err = w.GetDownloadUrlForLayer(w.ctx, &api.GetDownloadUrlForLayerInput{RepositoryName: app, LayerDigest: &d})
	if wire.Code(err) != "LayerInaccessibleException" {
		t.Errorf("a layer without an image: %v", err)
	}
	m := manifest(d)
	ok(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: app, ImageManifest: &m}))(t)
	url := *ok(w.GetDownloadUrlForLayer(w.ctx, &api.GetDownloadUrlForLayerInput{RepositoryName: app, LayerDigest: &d}))(t).DownloadUrl
	_, path, _ := strings.Cut(url, ":4566")
	res, err := http.Get(w.srv.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "one" {
		t.Errorf("%q %v", b, err)
	}
}

func TestAuthorizationToken(t *testing.T) {
	w := newWorld(t)
	data := ok(w.GetAuthorizationToken(w.ctx, &api.GetAuthorizationTokenInput{}))(t).AuthorizationData
	if len(data) != 1 || *data[0].ProxyEndpoint != "http://123456789012.dkr.ecr.us-east-1.localhost:4566" {
		t.Fatalf("%+v", data)
	}
	if left := time.Until(*data[0].ExpiresAt); left < 11*time.Hour+59*time.Minute || left > 12*time.Hour {
		t.Error(left)
	}
	b, err := base64.StdEncoding.DecodeString(*data[0].AuthorizationToken)
	user, password, _ := strings.Cut(string(b), ":")
	if err != nil || user != "AWS" {
		t.Fatal(user, err)
	}
	req := httptest.NewRequest("GET", "/v2/", nil)
	req.SetBasicAuth(user, password)
	rec := httptest.NewRecorder()
	w.Registry.ServeHTTP(rec, req)
	if rec.Code != 200 {
		t.Error(rec.Code, rec.Body)
	}
}

func TestPolicies(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	app := new("app")
	const none = " does not exist for the repository with name 'app' in the registry with id '123456789012'"
	refused(w.GetRepositoryPolicy(w.ctx, &api.GetRepositoryPolicyInput{RepositoryName: app}))(t, "RepositoryPolicyNotFoundException", "Repository policy"+none)
	refused(w.DeleteRepositoryPolicy(w.ctx, &api.DeleteRepositoryPolicyInput{RepositoryName: app}))(t, "RepositoryPolicyNotFoundException", "Repository policy"+none)
	refused(w.SetRepositoryPolicy(w.ctx, &api.SetRepositoryPolicyInput{RepositoryName: app, PolicyText: new("{")}))(t, "InvalidParameterException",
		"Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'")
	text := `{"Version":"2008-10-17","Statement":[{"Sid":"all","Effect":"Allow","Principal":"*","Action":["ecr:BatchGetImage"]}]}`
	ok(w.SetRepositoryPolicy(w.ctx, &api.SetRepositoryPolicyInput{RepositoryName: app, PolicyText: &text}))(t)
	if got := *ok(w.GetRepositoryPolicy(w.ctx, &api.GetRepositoryPolicyInput{RepositoryName: app}))(t).PolicyText; got != text {
		t.Error(got)
	}
	if got := *ok(w.DeleteRepositoryPolicy(w.ctx, &api.DeleteRepositoryPolicyInput{RepositoryName: app}))(t).PolicyText; got != text {
		t.Error(got)
	}

	refused(w.GetLifecyclePolicy(w.ctx, &api.GetLifecyclePolicyInput{RepositoryName: app}))(t, "LifecyclePolicyNotFoundException", "Lifecycle policy"+none)
	rule := func(priority int, selection string) string {
		return fmt.Sprintf(`{"rulePriority":%d,"selection":%s,"action":{"type":"expire"}}`, priority, selection)
	}
	untagged := `{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14}`
	anyTag := `{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":5}`
	tagged := `{"tagStatus":"tagged","tagPatternList":["prod*"],"countType":"imageCountMoreThan","countNumber":5}`
	for rules, good := range map[string]bool{
		rule(1, untagged): true, rule(1, untagged) + "," + rule(2, tagged) + "," + rule(3, anyTag): true,
		rule(2, anyTag) + "," + rule(3, tagged):   false,
		rule(1, untagged) + "," + rule(1, tagged): false,
		rule(0, untagged):                         false, `{"rulePriority":1}`: false, "": false, "1": false,
		rule(1, `{"tagStatus":"tagged","countType":"imageCountMoreThan","countNumber":5}`):    false,
		rule(1, `{"tagStatus":"any","countType":"sinceImagePushed","countNumber":5}`):         false,
		rule(1, `{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":0}`):       false,
		rule(1, `{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1,"x":1}`): false,
		rule(1, `{"tagStatus":"what","countType":"imageCountMoreThan","countNumber":1}`):      false,
	} {
		text := `{"rules":[` + rules + `]}`
		_, err := w.PutLifecyclePolicy(w.ctx, &api.PutLifecyclePolicyInput{RepositoryName: app, LifecyclePolicyText: &text})
		if (err == nil) != good || err != nil && wire.Code(err) != "InvalidParameterException" {
			t.Errorf("%s: %v", text, err)
		}
	}
	ok(w.DeleteLifecyclePolicy(w.ctx, &api.DeleteLifecyclePolicyInput{RepositoryName: app}))(t)
}

func TestSettings(t *testing.T) {
	w := newWorld(t)
	get := func() string {
		return *ok(w.GetAccountSetting(w.ctx, &api.GetAccountSettingInput{Name: new("BLOB_MOUNTING")}))(t).Value
	}
	if get() != "DISABLED" {
		t.Error(get())
	}
	ok(w.PutAccountSetting(w.ctx, &api.PutAccountSettingInput{Name: new("BLOB_MOUNTING"), Value: new("ENABLED")}))(t)
	if get() != "ENABLED" {
		t.Error(get())
	}
	for name, first := range map[string]string{"BASIC_SCAN_TYPE_VERSION": "AWS_NATIVE", "REGISTRY_POLICY_SCOPE": "V2"} {
		if got := *ok(w.GetAccountSetting(w.ctx, &api.GetAccountSettingInput{Name: &name}))(t).Value; got != first {
			t.Errorf("%s is %s", name, got)
		}
		if _, err := w.PutAccountSetting(w.ctx, &api.PutAccountSettingInput{Name: &name, Value: new("ENABLED")}); wire.Code(err) != "InvalidParameterException" {
			t.Error(err)
		}
	}
	if _, err := w.GetAccountSetting(w.ctx, &api.GetAccountSettingInput{Name: new("OTHER")}); wire.Code(err) != "InvalidParameterException" {
		t.Error(err)
	}
}

// Every operation is authorized by its own action, if AWS has one, on the repository if it
// names one, with the repository's policy.
func TestAuthorize(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"ecr:*"}]}`
	ok(w.SetRepositoryPolicy(w.ctx, &api.SetRepositoryPolicyInput{RepositoryName: new("app"), PolicyText: &policy}))(t)
	table := w.Authorize()
	snap, caller := w.DB.Snapshot(), auth.FromContext(w.ctx)
	const arn = "arn:aws:ecr:us-east-1:123456789012:repository/app"
	for name, op := range api.NewService(w.Service).Operations {
		f := table[name]
		if f == nil {
			t.Errorf("%s is not authorized", name)
			continue
		}
		in := op.New()
		if err := json.Unmarshal([]byte(`{"repositoryName":"app","resourceArn":"`+arn+`","repositoryNames":["app"]}`), in); err != nil {
			t.Fatal(err)
		}
		checks := f(w.ctx, snap, caller, in)
		action := "ecr:" + name
		if name == "ListImageReferrers" {
			action = "ecr:BatchGetImage"
		}
		if len(checks) == 0 || checks[0].Action != action {
			t.Errorf("%s: %+v", name, checks)
			continue
		}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		names := strings.Contains(string(b), `"app"`) || strings.Contains(string(b), arn)
		if names != (checks[0].Resource == arn) || checks[0].Resource == arn && name != "CreateRepository" && checks[0].Policy != policy {
			t.Errorf("%s: %s with policy %q", name, checks[0].Resource, checks[0].Policy)
		}
	}
}
