package ecr_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

const other = "210987654321"

// as is the root user of an account.
func (w *world) as(account string) context.Context {
	return auth.WithCaller(w.t.Context(), &auth.Caller{Kind: auth.RootUser, Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account})
}

func TestRegistryPolicy(t *testing.T) {
	w := newWorld(t)
	none := "Registry policy does not exist in the registry with id '123456789012'"
	refused(w.GetRegistryPolicy(w.ctx, &api.GetRegistryPolicyInput{}))(t, "RegistryPolicyNotFoundException", none)
	refused(w.DeleteRegistryPolicy(w.ctx, &api.DeleteRegistryPolicyInput{}))(t, "RegistryPolicyNotFoundException", none)
	refused(w.PutRegistryPolicy(w.ctx, &api.PutRegistryPolicyInput{PolicyText: new("{}")}))(t, "InvalidParameterException",
		"Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided'")
	text := `{"Version":"2012-10-17","Statement":{"Sid":"a","Effect":"Allow","Principal":{"AWS":"` + other + `"},"Action":["ecr:PutImage","ecr:ReplicateImage"],"Resource":"*"}}`
	ok(w.PutRegistryPolicy(w.ctx, &api.PutRegistryPolicyInput{PolicyText: &text}))(t)
	if got := ok(w.GetRegistryPolicy(w.ctx, &api.GetRegistryPolicyInput{}))(t); *got.PolicyText != text || *got.RegistryId != account {
		t.Error(got)
	}

	// It holds for every repository, beside the repository's own; in its first
	// version only for what concerns the registry.
	w.create("app")
	az := &auth.Authorizer{}
	caller := auth.FromContext(w.as(other))
	may := func(action string) bool {
		return az.Check(w.ctx, w.DB.Snapshot(), caller, w.Registry.Check(w.DB.Snapshot(), caller, action, account, "app")) == nil
	}
	if !may("ecr:PutImage") || !may("ecr:ReplicateImage") || may("ecr:BatchGetImage") {
		t.Error("the registry policy does not hold")
	}
	mine := `{"Version":"2008-10-17","Statement":[{"Sid":"a","Effect":"Allow","Principal":"*","Action":"ecr:BatchGetImage"},{"Effect":"Deny","Principal":"*","Action":"ecr:PutImage"}]}`
	ok(w.SetRepositoryPolicy(w.ctx, &api.SetRepositoryPolicyInput{RepositoryName: new("app"), PolicyText: &mine}))(t)
	if may("ecr:PutImage") || !may("ecr:ReplicateImage") || !may("ecr:BatchGetImage") {
		t.Error("the policies do not hold beside each other")
	}
	ok(w.DeleteRepositoryPolicy(w.ctx, &api.DeleteRepositoryPolicyInput{RepositoryName: new("app")}))(t)
	ok(w.PutAccountSetting(w.ctx, &api.PutAccountSettingInput{Name: new("REGISTRY_POLICY_SCOPE"), Value: new("V1")}))(t)
	if may("ecr:PutImage") || !may("ecr:ReplicateImage") {
		t.Error("the first version speaks of all")
	}
	if got := *ok(w.DeleteRegistryPolicy(w.ctx, &api.DeleteRegistryPolicyInput{}))(t).PolicyText; got != text {
		t.Error(got)
	}
}

func TestReplication(t *testing.T) {
	w := newWorld(t)
	put := func(region, to string, filters ...api.RepositoryFilter) error {
		_, err := w.PutReplicationConfiguration(w.ctx, &api.PutReplicationConfigurationInput{ReplicationConfiguration: &api.ReplicationConfiguration{
			Rules: []api.ReplicationRule{{Destinations: []api.ReplicationDestination{{Region: &region, RegistryId: &to}}, RepositoryFilters: filters}}}})
		return err
	}
	for err, want := range map[error]string{
		put("eu-west-1", other):   "replication to the region eu-west-1 is not supported by Berth, which replicates within us-east-1",
		put("us-east-1", account): "Replication destination cannot be the same as the source registry",
	} {
		if wire.Code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
	}
	if err := put("us-east-1", other, api.RepositoryFilter{FilterType: api.RepositoryFilterTypePrefixMatch, Filter: new("prod")}); err != nil {
		t.Fatal(err)
	}
	c := ok(w.DescribeRegistry(w.ctx, &api.DescribeRegistryInput{}))(t).ReplicationConfiguration
	if len(c.Rules) != 1 || *c.Rules[0].RepositoryFilters[0].Filter != "prod" {
		t.Error(c)
	}
	status := func(repo, digest string) (s []string) {
		out := ok(w.DescribeImageReplicationStatus(w.ctx, &api.DescribeImageReplicationStatusInput{RepositoryName: &repo, ImageId: &api.ImageIdentifier{ImageDigest: &digest}}))(t)
		for _, r := range out.ReplicationStatuses {
			s = append(s, *r.Region+" "+*r.RegistryId+" "+string(r.Status)+" "+wire.Value(r.FailureCode))
		}
		return s
	}
	w.create("prod/app")
	w.create("dev")
	if s := status("dev", w.image("dev", "v1", "x")); s != nil {
		t.Error(s)
	}
	// The other account has not said yes.
	if s := status("prod/app", w.image("prod/app", "v1", "one")); !slices.Equal(s, []string{"us-east-1 " + other + " FAILED AccessDenied"}) {
		t.Error(s)
	}
	yes := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":["ecr:ReplicateImage","ecr:CreateRepository"],"Resource":"*"}]}`
	there := w.as(other)
	ok(w.PutRegistryPolicy(there, &api.PutRegistryPolicyInput{PolicyText: &yes}))(t)
	ok(w.CreateRepositoryCreationTemplate(there, &api.CreateRepositoryCreationTemplateInput{Prefix: new("prod"), AppliedFor: []api.RCTAppliedFor{"REPLICATION"}, ImageTagMutability: "IMMUTABLE"}))(t)
	d := w.image("prod/app", "v1", "two")
	if s := status("prod/app", d); !slices.Equal(s, []string{"us-east-1 " + other + " COMPLETE "}) {
		t.Error(s)
	}
	repo := ok(w.DescribeRepositories(there, &api.DescribeRepositoriesInput{}))(t).Repositories
	if len(repo) != 1 || *repo[0].RepositoryName != "prod/app" || repo[0].ImageTagMutability != "IMMUTABLE" {
		t.Fatalf("%+v", repo)
	}
	img := ok(w.BatchGetImage(there, &api.BatchGetImageInput{RepositoryName: new("prod/app"), ImageIds: []api.ImageIdentifier{{ImageTag: new("v1")}}}))(t)
	if len(img.Images) != 1 || *img.Images[0].ImageId.ImageDigest != d {
		t.Fatalf("%+v", img)
	}
	// A layer that both have is there for as long as either needs it.
	ok(w.BatchDeleteImage(w.ctx, &api.BatchDeleteImageInput{RepositoryName: new("prod/app"), ImageIds: []api.ImageIdentifier{{ImageDigest: &d}}}))(t)
	for r := range state.Replicas.All(w.DB.Snapshot()) {
		if strings.Contains(r.Image, d) {
			t.Error("the replica of an image that is gone is remembered")
		}
	}
	if err := w.Registry.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	layers := ok(w.BatchCheckLayerAvailability(there, &api.BatchCheckLayerAvailabilityInput{RepositoryName: new("prod/app"), LayerDigests: layersOf(w, other, d)}))(t).Layers
	if len(layers) != 1 || layers[0].LayerAvailability != "AVAILABLE" {
		t.Errorf("%+v", layers)
	}
	// What is immutable there is not moved.
	if s := status("prod/app", w.image("prod/app", "v1", "three")); !slices.Equal(s, []string{"us-east-1 " + other + " FAILED ImageTagAlreadyExists"}) {
		t.Error(s)
	}
}

func layersOf(w *world, account, digest string) []string {
	i, ok := state.Images.Get(w.DB.Snapshot(), account+"/prod/app@"+digest)
	if !ok {
		w.t.Fatal("no image " + digest)
	}
	return i.Layers
}

func TestScanning(t *testing.T) {
	w := newWorld(t)
	w.create("prod/app")
	w.create("dev")
	ok(w.PutImageScanningConfiguration(w.ctx, &api.PutImageScanningConfigurationInput{RepositoryName: new("dev"), ImageScanningConfiguration: &api.ImageScanningConfiguration{ScanOnPush: new(true)}}))(t)
	if _, err := w.PutRegistryScanningConfiguration(w.ctx, &api.PutRegistryScanningConfigurationInput{ScanType: "ENHANCED"}); wire.Code(err) != "ValidationException" {
		t.Error(err)
	}
	rules := []api.RegistryScanningRule{{ScanFrequency: "SCAN_ON_PUSH", RepositoryFilters: []api.ScanningRepositoryFilter{{FilterType: "WILDCARD", Filter: new("prod*")}}}}
	ok(w.PutRegistryScanningConfiguration(w.ctx, &api.PutRegistryScanningConfigurationInput{ScanType: "BASIC", Rules: rules}))(t)
	got := ok(w.GetRegistryScanningConfiguration(w.ctx, &api.GetRegistryScanningConfigurationInput{}))(t).ScanningConfiguration
	if d := cmp.Diff(&api.RegistryScanningConfiguration{ScanType: "BASIC", Rules: rules}, got); d != "" {
		t.Error(d)
	}
	out := ok(w.BatchGetRepositoryScanningConfiguration(w.ctx, &api.BatchGetRepositoryScanningConfigurationInput{RepositoryNames: []string{"prod/app", "dev", "none"}}))(t)
	var s []string
	for _, c := range out.ScanningConfigurations {
		s = append(s, fmt.Sprint(*c.RepositoryName, " ", *c.ScanOnPush, " ", c.ScanFrequency, " ", len(c.AppliedScanFilters)))
	}
	if !slices.Equal(s, []string{"prod/app true SCAN_ON_PUSH 1", "dev true SCAN_ON_PUSH 0"}) || len(out.Failures) != 1 || out.Failures[0].FailureCode != "REPOSITORY_NOT_FOUND" {
		t.Errorf("%q %+v", s, out.Failures)
	}
	w.image("dev", "v1", "x")
	id := &api.ImageIdentifier{ImageTag: new("v1")}
	refused(w.StartImageScan(w.ctx, &api.StartImageScanInput{RepositoryName: new("dev"), ImageId: id}))(t, "ValidationException", "Image scans are not supported by Berth, which has no scanner")
	refused(w.DescribeImageScanFindings(w.ctx, &api.DescribeImageScanFindingsInput{RepositoryName: new("dev"), ImageId: id}))(t, "ScanNotFoundException",
		"Image scan does not exist for the image with '{imageDigest:'null', imageTag:'v1'}' in the repository with name 'dev' in the registry with id '123456789012'")
	refused(w.StartImageScan(w.ctx, &api.StartImageScanInput{RepositoryName: new("dev"), ImageId: &api.ImageIdentifier{ImageTag: new("v2")}}))(t, "ImageNotFoundException",
		"The image with imageId {imageDigest:'null', imageTag:'v2'} does not exist within the repository with name 'dev' in the registry with id '123456789012'")
	refused(w.GetSigningConfiguration(w.ctx, &api.GetSigningConfigurationInput{}))(t, "SigningConfigurationNotFoundException", "Signing configuration does not exist in the registry with id '123456789012'")
	if _, err := w.PutSigningConfiguration(w.ctx, &api.PutSigningConfigurationInput{SigningConfiguration: &api.SigningConfiguration{Rules: []api.SigningRule{{}}}}); wire.Code(err) != "ValidationException" {
		t.Error(err)
	}
	if out := ok(w.DescribeImageSigningStatus(w.ctx, &api.DescribeImageSigningStatusInput{RepositoryName: new("dev"), ImageId: id}))(t); len(out.SigningStatuses) != 0 {
		t.Error(out)
	}
}

func TestTemplates(t *testing.T) {
	w := newWorld(t)
	in := &api.CreateRepositoryCreationTemplateInput{
		Prefix: new("team"), Description: new("d"), AppliedFor: []api.RCTAppliedFor{"PULL_THROUGH_CACHE", "CREATE_ON_PUSH"},
		ResourceTags: []api.Tag{{Key: new("k"), Value: new("v")}}, ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION",
		ImageTagMutabilityExclusionFilters: []api.ImageTagMutabilityExclusionFilter{{FilterType: "WILDCARD", Filter: new("dev*")}},
		RepositoryPolicy:                   new(`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"ecr:GetDownloadUrlForLayer"}]}`),
		LifecyclePolicy:                    new(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}`),
		EncryptionConfiguration:            &api.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: "AES256"},
		CustomRoleArn:                      new("arn:aws:iam::123456789012:role/x"),
	}
	got := ok(w.CreateRepositoryCreationTemplate(w.ctx, in))(t).RepositoryCreationTemplate
	want := &api.RepositoryCreationTemplate{
		Prefix: in.Prefix, Description: in.Description, AppliedFor: in.AppliedFor, ResourceTags: in.ResourceTags, ImageTagMutability: in.ImageTagMutability,
		ImageTagMutabilityExclusionFilters: in.ImageTagMutabilityExclusionFilters, RepositoryPolicy: in.RepositoryPolicy, LifecyclePolicy: in.LifecyclePolicy,
		EncryptionConfiguration: in.EncryptionConfiguration, CustomRoleArn: in.CustomRoleArn, CreatedAt: got.CreatedAt, UpdatedAt: got.UpdatedAt,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	refused(w.CreateRepositoryCreationTemplate(w.ctx, in))(t, "TemplateAlreadyExistsException", "The repository creation template with prefix 'team' already exists in the registry with id '123456789012'")
	if _, err := w.CreateRepositoryCreationTemplate(w.ctx, &api.CreateRepositoryCreationTemplateInput{Prefix: new("b"), AppliedFor: in.AppliedFor, RepositoryPolicy: new("x")}); wire.Code(err) != "InvalidParameterException" {
		t.Error(err)
	}
	up := ok(w.UpdateRepositoryCreationTemplate(w.ctx, &api.UpdateRepositoryCreationTemplateInput{Prefix: new("team"), Description: new("e"), RepositoryPolicy: new("")}))(t).RepositoryCreationTemplate
	want.Description, want.RepositoryPolicy, want.UpdatedAt = new("e"), new(""), up.UpdatedAt
	if d := cmp.Diff(want, up); d != "" {
		t.Error(d)
	}
	ok(w.CreateRepositoryCreationTemplate(w.ctx, &api.CreateRepositoryCreationTemplateInput{Prefix: new("ROOT"), AppliedFor: in.AppliedFor}))(t)
	page := ok(w.DescribeRepositoryCreationTemplates(w.ctx, &api.DescribeRepositoryCreationTemplatesInput{MaxResults: new(int32(1))}))(t)
	rest := ok(w.DescribeRepositoryCreationTemplates(w.ctx, &api.DescribeRepositoryCreationTemplatesInput{NextToken: page.NextToken}))(t)
	if len(page.RepositoryCreationTemplates) != 1 || len(rest.RepositoryCreationTemplates) != 1 || *rest.RepositoryCreationTemplates[0].Prefix != "team" {
		t.Errorf("%+v %+v", page, rest)
	}
	if one := ok(w.DescribeRepositoryCreationTemplates(w.ctx, &api.DescribeRepositoryCreationTemplatesInput{Prefixes: []string{"team", "gone"}}))(t); len(one.RepositoryCreationTemplates) != 1 {
		t.Errorf("%+v", one)
	}
	if there := ok(w.DescribeRepositoryCreationTemplates(w.as(other), &api.DescribeRepositoryCreationTemplatesInput{}))(t); len(there.RepositoryCreationTemplates) != 0 {
		t.Error("another account sees the templates")
	}
	ok(w.DeleteRepositoryCreationTemplate(w.ctx, &api.DeleteRepositoryCreationTemplateInput{Prefix: new("team")}))(t)
	refused(w.UpdateRepositoryCreationTemplate(w.ctx, &api.UpdateRepositoryCreationTemplateInput{Prefix: new("team")}))(t, "TemplateNotFoundException",
		"The repository creation template with prefix 'team' does not exist in the registry with id '123456789012'")
}

func TestPullTimeExclusions(t *testing.T) {
	w := newWorld(t)
	arn := "arn:aws:iam::123456789012:role/scanner"
	role := auth.WithCaller(t.Context(), &auth.Caller{Kind: auth.AssumedRole, Account: account, Name: "scanner", ARN: "arn:aws:sts::123456789012:assumed-role/scanner/s", RoleARN: arn})
	w.create("app")
	d := w.image("app", "v1", "x")
	pulled := func() *time.Time {
		return ok(w.DescribeImages(w.ctx, &api.DescribeImagesInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{{ImageDigest: &d}}}))(t).ImageDetails[0].LastRecordedPullTime
	}
	pull := func(ctx context.Context) {
		ok(w.BatchGetImage(ctx, &api.BatchGetImageInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{{ImageDigest: &d}}}))(t)
	}
	ok(w.RegisterPullTimeUpdateExclusion(w.ctx, &api.RegisterPullTimeUpdateExclusionInput{PrincipalArn: &arn}))(t)
	refused(w.RegisterPullTimeUpdateExclusion(w.ctx, &api.RegisterPullTimeUpdateExclusionInput{PrincipalArn: &arn}))(t, "ExclusionAlreadyExistsException",
		"The pull time update exclusion for the principal '"+arn+"' already exists in the registry with id '123456789012'")
	if got := ok(w.ListPullTimeUpdateExclusions(w.ctx, &api.ListPullTimeUpdateExclusionsInput{}))(t).PullTimeUpdateExclusions; !slices.Equal(got, []string{arn}) {
		t.Error(got)
	}
	pull(role)
	if at := pulled(); at != nil {
		t.Error(at)
	}
	ok(w.DeregisterPullTimeUpdateExclusion(w.ctx, &api.DeregisterPullTimeUpdateExclusionInput{PrincipalArn: &arn}))(t)
	refused(w.DeregisterPullTimeUpdateExclusion(w.ctx, &api.DeregisterPullTimeUpdateExclusionInput{PrincipalArn: &arn}))(t, "ExclusionNotFoundException",
		"The pull time update exclusion for the principal '"+arn+"' does not exist in the registry with id '123456789012'")
	pull(role)
	if pulled() == nil {
		t.Error("the pull was not recorded")
	}
}

func TestArchive(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	d := w.image("app", "v1", "x")
	id := &api.ImageIdentifier{ImageTag: new("v1")}
	move := func(class api.TargetStorageClass) (*api.UpdateImageStorageClassOutput, error) {
		return w.UpdateImageStorageClass(w.ctx, &api.UpdateImageStorageClassInput{RepositoryName: new("app"), ImageId: id, TargetStorageClass: class})
	}
	if out := ok(move("ARCHIVE"))(t); out.ImageStatus != "ARCHIVED" || *out.ImageId.ImageDigest != d {
		t.Errorf("%+v", out)
	}
	if _, err := move("ARCHIVE"); wire.Code(err) != "ImageStorageClassUpdateNotSupportedException" {
		t.Error(err)
	}
	count := func(status api.ImageStatusFilter) int {
		return len(ok(w.ListImages(w.ctx, &api.ListImagesInput{RepositoryName: new("app"), Filter: &api.ListImagesFilter{ImageStatus: status}}))(t).ImageIds)
	}
	if count("") != 0 || count("ARCHIVED") != 1 || count("ANY") != 1 || count("ACTIVATING") != 0 {
		t.Error("the filter for the archive is wrong")
	}
	got := ok(w.BatchGetImage(w.ctx, &api.BatchGetImageInput{RepositoryName: new("app"), ImageIds: []api.ImageIdentifier{*id}}))(t)
	if len(got.Failures) != 1 || got.Failures[0].FailureCode != "ImageInaccessible" {
		t.Errorf("%+v", got)
	}
	i, _ := state.Images.Get(w.DB.Snapshot(), account+"/app@"+d)
	if _, err := w.GetDownloadUrlForLayer(w.ctx, &api.GetDownloadUrlForLayerInput{RepositoryName: new("app"), LayerDigest: &i.Layers[0]}); wire.Code(err) != "LayerInaccessibleException" {
		t.Error(err)
	}
	if l := ok(w.BatchCheckLayerAvailability(w.ctx, &api.BatchCheckLayerAvailabilityInput{RepositoryName: new("app"), LayerDigests: i.Layers}))(t).Layers[0]; l.LayerAvailability != "ARCHIVED" {
		t.Error(l.LayerAvailability)
	}
	if out := ok(move("STANDARD"))(t); out.ImageStatus != "ACTIVE" {
		t.Errorf("%+v", out)
	}
	det := ok(w.DescribeImages(w.ctx, &api.DescribeImagesInput{RepositoryName: new("app")}))(t).ImageDetails
	if len(det) != 1 || det[0].LastArchivedAt == nil || det[0].LastActivatedAt == nil || det[0].ImageStatus != "ACTIVE" {
		t.Errorf("%+v", det)
	}
}

func TestLifecyclePreview(t *testing.T) {
	w := newWorld(t)
	app := new("app")
	w.create("app")
	refused(w.StartLifecyclePolicyPreview(w.ctx, &api.StartLifecyclePolicyPreviewInput{RepositoryName: app}))(t, "LifecyclePolicyNotFoundException",
		"Lifecycle policy does not exist for the repository with name 'app' in the registry with id '123456789012'")
	refused(w.GetLifecyclePolicyPreview(w.ctx, &api.GetLifecyclePolicyPreviewInput{RepositoryName: app}))(t, "LifecyclePolicyPreviewNotFoundException",
		"Lifecycle policy preview does not exist for the repository with name 'app' in the registry with id '123456789012'")
	digests := []string{}
	for i := range 5 {
		digests = append(digests, w.image("app", []string{"a", "b", "", "d", "e"}[i], fmt.Sprint("image ", i)))
	}
	policy := `{"rules":[{"rulePriority":7,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}]}`
	if out := ok(w.StartLifecyclePolicyPreview(w.ctx, &api.StartLifecyclePolicyPreviewInput{RepositoryName: app, LifecyclePolicyText: &policy}))(t); out.Status != "COMPLETE" || *out.LifecyclePolicyText != policy {
		t.Errorf("%+v", out)
	}
	w.image("app", "late", "later") // is not part of it
	var seen []string
	in := &api.GetLifecyclePolicyPreviewInput{RepositoryName: app, MaxResults: new(int32(2))}
	for {
		out := ok(w.GetLifecyclePolicyPreview(w.ctx, in))(t)
		if out.Status != "COMPLETE" || *out.Summary.ExpiringImageTotalCount != 3 {
			t.Errorf("%+v", out.Summary)
		}
		for _, r := range out.PreviewResults {
			if r.Action.Type != "EXPIRE" || *r.AppliedRulePriority != 7 || r.StorageClass != "STANDARD" {
				t.Errorf("%+v", r)
			}
			seen = append(seen, *r.ImageDigest)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	want := slices.Sorted(slices.Values(digests[:3]))
	if !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
	filtered := ok(w.GetLifecyclePolicyPreview(w.ctx, &api.GetLifecyclePolicyPreviewInput{RepositoryName: app, Filter: &api.LifecyclePolicyPreviewFilter{TagStatus: "UNTAGGED"}}))(t)
	if len(filtered.PreviewResults) != 1 || *filtered.PreviewResults[0].ImageDigest != digests[2] {
		t.Errorf("%+v", filtered.PreviewResults)
	}
	named := ok(w.GetLifecyclePolicyPreview(w.ctx, &api.GetLifecyclePolicyPreviewInput{RepositoryName: app, ImageIds: []api.ImageIdentifier{{ImageTag: new("a")}, {ImageTag: new("e")}}}))(t)
	if len(named.PreviewResults) != 1 || *named.PreviewResults[0].ImageDigest != digests[0] {
		t.Errorf("%+v", named.PreviewResults)
	}
	// A preview takes nothing.
	if n := len(ok(w.ListImages(w.ctx, &api.ListImagesInput{RepositoryName: app}))(t).ImageIds); n != 6 {
		t.Errorf("%d images are left", n)
	}
}

func TestPullThroughRules(t *testing.T) {
	w := newWorld(t)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			w.WriteHeader(404)
		}
	}))
	host := strings.TrimPrefix(up.URL, "http://")
	create := func(prefix, url string, change ...func(*api.CreatePullThroughCacheRuleInput)) (*api.CreatePullThroughCacheRuleOutput, error) {
		in := &api.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: &prefix, UpstreamRegistryUrl: &url}
		for _, c := range change {
			c(in)
		}
		return w.CreatePullThroughCacheRule(w.ctx, in)
	}
	got := ok(create("hub", "registry-1.docker.io"))(t)
	if got.UpstreamRegistry != "docker-hub" || *got.UpstreamRepositoryPrefix != "ROOT" || *got.RegistryId != account || got.CredentialArn != nil {
		t.Errorf("%+v", got)
	}
	refused(create("hub/", "quay.io"))(t, "PullThroughCacheRuleAlreadyExistsException", "A pull through cache rule with repository prefix 'hub/' already exists in the registry with id '123456789012'")
	for _, bad := range []string{"ftp://x", "a/b", "user@host", "", "x?y"} {
		if _, err := create("bad", bad); wire.Code(err) != "UnsupportedUpstreamRegistryException" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := create("cred", "quay.io", func(in *api.CreatePullThroughCacheRuleInput) {
		in.CredentialArn = new("arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/x")
	}); wire.Code(err) != "UnableToAccessSecretException" {
		t.Error(err)
	}
	if _, err := create("ROOT", "quay.io", func(in *api.CreatePullThroughCacheRuleInput) { in.UpstreamRepositoryPrefix = new("x") }); wire.Code(err) != "ValidationException" {
		t.Error(err)
	}
	ok(create("mine", host))(t)
	valid := func() *api.ValidatePullThroughCacheRuleOutput {
		return ok(w.ValidatePullThroughCacheRule(w.ctx, &api.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("mine")}))(t)
	}
	if v := valid(); !*v.IsValid {
		t.Error(*v.Failure)
	}
	up.Close()
	if v := valid(); *v.IsValid || v.Failure == nil {
		t.Error("a registry that is gone is valid")
	}
	ok(w.UpdatePullThroughCacheRule(w.ctx, &api.UpdatePullThroughCacheRuleInput{EcrRepositoryPrefix: new("mine"), CustomRoleArn: new("arn:aws:iam::123456789012:role/r")}))(t)
	list := ok(w.DescribePullThroughCacheRules(w.ctx, &api.DescribePullThroughCacheRulesInput{}))(t).PullThroughCacheRules
	if len(list) != 2 || *list[0].EcrRepositoryPrefix != "hub" || *list[1].CustomRoleArn != "arn:aws:iam::123456789012:role/r" {
		t.Errorf("%+v", list)
	}
	refused(w.DescribePullThroughCacheRules(w.ctx, &api.DescribePullThroughCacheRulesInput{EcrRepositoryPrefixes: []string{"gone"}}))(t, "PullThroughCacheRuleNotFoundException",
		"Pull through cache rule with repository prefix 'gone' not found in the registry with id '123456789012'")
	ok(w.DeletePullThroughCacheRule(w.ctx, &api.DeletePullThroughCacheRuleInput{EcrRepositoryPrefix: new("mine")}))(t)
	if _, err := w.DescribePullThroughCacheRules(w.ctx, &api.DescribePullThroughCacheRulesInput{RegistryId: new(other)}); wire.Code(err) != "InvalidParameterException" {
		t.Error(err)
	}
	limit(t, w, "ecr/pull-through-rules", 1)
	if _, err := create("more", "quay.io"); wire.Code(err) != "LimitExceededException" {
		t.Error(err)
	}
}

func limit(t *testing.T, w *world, name string, n int) {
	t.Helper()
	if err := w.DB.Update(t.Context(), func(tx *store.Tx) error {
		state.Quotas.Put(tx, &state.Quota{Account: account, Name: name, Value: n})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestQuotas(t *testing.T) {
	w := newWorld(t)
	w.create("app")
	limit(t, w, "ecr/repositories", 1)
	refused(w.CreateRepository(w.ctx, &api.CreateRepositoryInput{RepositoryName: new("more")}))(t, "LimitExceededException", "The limit of 1 repositories is reached")
	ok(w.CreateRepository(w.as(other), &api.CreateRepositoryInput{RepositoryName: new("more")}))(t)
	w.image("app", "v1", "x")
	limit(t, w, "ecr/tags-per-image", 1)
	m := manifest(w.layer("app", []byte("y")))
	in := &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &m, ImageTag: new("a")}
	ok(w.PutImage(w.ctx, in))(t)
	in.ImageTag = new("b")
	refused(w.PutImage(w.ctx, in))(t, "LimitExceededException", "The limit of 1 tags per image is reached")
	limit(t, w, "ecr/images-per-repository", 2)
	z := manifest(w.layer("app", []byte("z")))
	refused(w.PutImage(w.ctx, &api.PutImageInput{RepositoryName: new("app"), ImageManifest: &z}))(t, "LimitExceededException", "The limit of 2 images per repository is reached")
	limit(t, w, "ecr/layer-mebibytes", 1)
	id := ok(w.InitiateLayerUpload(w.ctx, &api.InitiateLayerUploadInput{RepositoryName: new("app")}))(t).UploadId
	b := make([]byte, 1<<20+1)
	refused(w.UploadLayerPart(w.ctx, &api.UploadLayerPartInput{RepositoryName: new("app"), UploadId: id, PartFirstByte: new(int64(0)), PartLastByte: new(int64(1 << 20)), LayerPartBlob: b}))(t,
		"LimitExceededException", "A layer cannot be larger than 1 MiB")
}
