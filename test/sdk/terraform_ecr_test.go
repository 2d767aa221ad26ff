package sdk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
)

const pullPolicy = "{\n \"Version\": \"2012-10-17\",\n \"Statement\": [{\"Sid\": \"pull\", \"Effect\": \"Allow\", \"Principal\": \"*\", \"Action\": [\"ecr:BatchGetImage\", \"ecr:GetDownloadUrlForLayer\"]}]\n}"

func TestTerraformRepository(t *testing.T) {
	t.Parallel()
	c, ctx := w.ecr, t.Context()
	name := new("tf/repository")
	arn := new("arn:aws:ecr:us-east-1:" + w.Account + ":repository/tf/repository")
	r := resource{func() (any, error) {
		out, err := c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{*name}})
		if err != nil {
			return nil, err
		}
		v := out.Repositories[0]
		if v.CreatedAt == nil {
			t.Error("it does not say when")
		}
		v.CreatedAt = nil
		return v, nil
	}, "RepositoryNotFoundException"}
	tagged := resource{func() (any, error) {
		out, err := c.ListTagsForResource(ctx, &ecr.ListTagsForResourceInput{ResourceArn: arn})
		if err != nil {
			return nil, err
		}
		return out.Tags, nil
	}, "RepositoryNotFoundException"}
	r.isGone(t)
	tags := []types.Tag{{Key: new("zone"), Value: new("b")}, {Key: new("app"), Value: new("a")}}
	done(t)(c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: name, Tags: tags, ImageTagMutability: types.ImageTagMutabilityImmutable,
		ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: true}, EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeAes256}}))
	want := types.Repository{RepositoryName: name, RepositoryArn: arn, RegistryId: &w.Account, RepositoryUri: new(w.RegistryHost() + "/tf/repository"), ImageTagMutability: types.ImageTagMutabilityImmutable,
		ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: true}, EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeAes256}}
	r.same(t, want)
	tagged.same(t, tags)

	filters := []types.ImageTagMutabilityExclusionFilter{{FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard, Filter: new("latest*")}, {FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard, Filter: new("dev*")}}
	done(t)(c.PutImageTagMutability(ctx, &ecr.PutImageTagMutabilityInput{RepositoryName: name, ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion, ImageTagMutabilityExclusionFilters: filters}))
	done(t)(c.PutImageScanningConfiguration(ctx, &ecr.PutImageScanningConfigurationInput{RepositoryName: name, ImageScanningConfiguration: &types.ImageScanningConfiguration{}}))
	want.ImageTagMutability, want.ImageTagMutabilityExclusionFilters, want.ImageScanningConfiguration = types.ImageTagMutabilityImmutableWithExclusion, filters, &types.ImageScanningConfiguration{}
	r.same(t, want)
	done(t)(c.UntagResource(ctx, &ecr.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"zone"}}))
	tagged.same(t, tags[1:])

	// aws_ecr_repository_policy
	policy := resource{func() (any, error) {
		out, err := c.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: name})
		if err != nil {
			return nil, err
		}
		return out.PolicyText, nil
	}, "RepositoryPolicyNotFoundException"}
	policy.isGone(t)
	done(t)(c.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: name, PolicyText: new(pullPolicy)}))
	policy.same(t, pullPolicy)
	done(t)(c.DeleteRepositoryPolicy(ctx, &ecr.DeleteRepositoryPolicyInput{RepositoryName: name}))
	policy.isGone(t)

	// aws_ecr_lifecycle_policy
	lifecycle := resource{func() (any, error) {
		out, err := c.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: name})
		if err != nil {
			return nil, err
		}
		return out.LifecyclePolicyText, nil
	}, "LifecyclePolicyNotFoundException"}
	lifecycle.isGone(t)
	done(t)(c.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: name, LifecyclePolicyText: new(onlyOne)}))
	lifecycle.same(t, onlyOne)
	done(t)(c.DeleteLifecyclePolicy(ctx, &ecr.DeleteLifecyclePolicyInput{RepositoryName: name}))
	lifecycle.isGone(t)

	done(t)(c.DeleteRepository(ctx, &ecr.DeleteRepositoryInput{RepositoryName: name}))
	for _, r := range []resource{r, tagged, {policy.read, "RepositoryNotFoundException"}, {lifecycle.read, "RepositoryNotFoundException"}} {
		r.isGone(t)
	}

	// With nothing said.
	done(t)(c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: name}))
	want.ImageTagMutability, want.ImageTagMutabilityExclusionFilters = types.ImageTagMutabilityMutable, nil
	r.same(t, want)
	tagged.same(t, []types.Tag{})
}
