package sdk

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// onlyOne is a lifecycle policy that keeps the newest image.
const onlyOne = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`

func TestECRPaginators(t *testing.T) {
	t.Parallel()
	c, ctx := w.ecr, t.Context()
	repositories, prefixes := five("paged/repo"), five("paged")
	for i := range repositories {
		done(t)(c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repositories[i]}))
		done(t)(c.CreatePullThroughCacheRule(ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: &prefixes[i], UpstreamRegistryUrl: new("public.ecr.aws")}))
		done(t)(c.CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: &prefixes[i], AppliedFor: []types.RCTAppliedFor{types.RCTAppliedForPullThroughCache}}))
	}
	repo := &repositories[0]
	var tags, digests []string
	for i := range 6 {
		img, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, fmt.Sprint("v", i))
		if err := w.Push(ctx, *repo+":"+tags[i], w.password, img); err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	done(t)(c.StartLifecyclePolicyPreview(ctx, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: repo, LifecyclePolicyText: new(onlyOne)}))

	paginate(t, "ecr", []listing{
		pages(c, ecr.NewDescribeRepositoriesPaginator, &ecr.DescribeRepositoriesInput{}, 2, "Repositories.RepositoryName", repositories),
		pages(c, ecr.NewDescribeImagesPaginator, &ecr.DescribeImagesInput{RepositoryName: repo}, 2, "ImageDetails.ImageDigest", digests),
		pages(c, ecr.NewListImagesPaginator, &ecr.ListImagesInput{RepositoryName: repo}, 2, "ImageIds.ImageTag", tags),
		pages(c, ecr.NewGetLifecyclePolicyPreviewPaginator, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: repo}, 2, "PreviewResults.ImageDigest", digests[:5]),
		pages(c, ecr.NewDescribePullThroughCacheRulesPaginator, &ecr.DescribePullThroughCacheRulesInput{}, 2, "PullThroughCacheRules.EcrRepositoryPrefix", prefixes),
		pages(c, ecr.NewDescribeRepositoryCreationTemplatesPaginator, &ecr.DescribeRepositoryCreationTemplatesInput{}, 2, "RepositoryCreationTemplates.Prefix", prefixes),
	})
}
