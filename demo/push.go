package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/test/image"
)

// pullPolicy lets a user log in to the registry, look and pull; pushPolicy is
// that and what it takes to push to one repository, and no more.
const (
	pullStatement = `{"Effect":"Allow","Resource":"*","Action":["ecr:Describe*","ecr:Get*","ecr:BatchCheckLayerAvailability","ecr:BatchGetImage"]}`
	pushStatement = `{"Effect":"Allow","Resource":"%s","Action":["ecr:PutImage","ecr:InitiateLayerUpload","ecr:UploadLayerPart","ecr:CompleteLayerUpload","ecr:BatchDeleteImage"]}`
	pullPolicy    = `{"Version":"2012-10-17","Statement":[` + pullStatement + `]}`
	pushPolicy    = `{"Version":"2012-10-17","Statement":[` + pullStatement + `,` + pushStatement + `]}`
)

func (d *demo) push(ctx context.Context) error {
	d.show.doing("building the image from test/image/web …")
	img, err := image.Web(ctx)
	if err != nil {
		return err
	}
	// A build of its own, so that every run has something to push.
	if img, err = mutate.CreatedAt(img, v1.Time{Time: time.Now()}); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	size, err := imageSize(img)
	if err != nil {
		return err
	}
	d.show.done("built an image of %.1f MB", float64(size)/1e6)

	repo, err := d.repository(ctx)
	if err != nil {
		return err
	}
	d.repositoryName = wire.Value(repo.RepositoryUri)
	d.show.done("repository %s", d.repositoryName)

	user, err := d.user(ctx)
	if err != nil {
		return err
	}
	d.show.done("user %s, with an access key and no permission", userName)
	switch _, err := d.login(ctx, user); {
	case err == nil:
		return fmt.Errorf("user %s has no permission and could log in to the registry", userName)
	case wire.Code(err) != "AccessDeniedException":
		return err
	default:
		d.show.refused("log in: %v", err)
	}

	if err := d.allow(ctx, pullPolicy); err != nil {
		return err
	}
	password, err := d.login(ctx, user)
	if err != nil {
		return err
	}
	d.show.done("it may log in and pull, now")
	err = d.upload(ctx, img, password)
	var denied *transport.Error
	switch {
	case err == nil:
		return fmt.Errorf("user %s may not push and could", userName)
	case !errors.As(err, &denied) || len(denied.Errors) == 0:
		return fmt.Errorf("push: %w", err)
	}
	d.show.refused("push: %s: %s", strings.ToLower(string(denied.Errors[0].Code)), denied.Errors[0].Message)

	if err := d.allow(ctx, fmt.Sprintf(pushPolicy, wire.Value(repo.RepositoryArn))); err != nil {
		return err
	}
	began := time.Now()
	if err := d.upload(ctx, img, password); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	d.show.done("it may push, now: pushed %s:latest in %.1f s", repository, time.Since(began).Seconds())

	var list ecr.DescribeImagesOutput
	if err := d.region.call(ctx, user, ecrAPI, "DescribeImages", &ecr.DescribeImagesInput{RepositoryName: new(repository)}, &list); err != nil {
		return err
	}
	for _, i := range list.ImageDetails {
		d.show.done("aws ecr describe-images: %s %s %.1f MB", wire.Value(i.ImageDigest), strings.Join(i.ImageTags, ","), float64(wire.Value(i.ImageSizeInBytes))/1e6)
	}
	return nil
}

func imageSize(img v1.Image) (sum int64, err error) {
	m, err := img.Manifest()
	if err != nil {
		return 0, err
	}
	for _, l := range m.Layers {
		sum += l.Size
	}
	return sum, nil
}

// repository makes sure that it is there.
func (d *demo) repository(ctx context.Context) (*ecr.Repository, error) {
	if err := d.region.do(ctx, ecrAPI, "CreateRepository", &ecr.CreateRepositoryInput{RepositoryName: new(repository)}, nil, "RepositoryAlreadyExistsException"); err != nil {
		return nil, err
	}
	var out ecr.DescribeRepositoriesOutput
	if err := d.region.do(ctx, ecrAPI, "DescribeRepositories", &ecr.DescribeRepositoriesInput{RepositoryNames: []string{repository}}, &out); err != nil {
		return nil, err
	}
	if len(out.Repositories) != 1 {
		return nil, fmt.Errorf("DescribeRepositories shows %d repositories of the name %s", len(out.Repositories), repository)
	}
	return &out.Repositories[0], nil
}

// user makes sure that the user is there with one key and no policy, whatever
// an earlier run has left.
func (d *demo) user(ctx context.Context) (sigv4.Signer, error) {
	var none sigv4.Signer
	if err := d.region.do(ctx, iamAPI, "CreateUser", &iam.CreateUserInput{UserName: new(userName)}, nil, "EntityAlreadyExists"); err != nil {
		return none, err
	}
	var keys iam.ListAccessKeysOutput
	if err := d.region.do(ctx, iamAPI, "ListAccessKeys", &iam.ListAccessKeysInput{UserName: new(userName)}, &keys); err != nil {
		return none, err
	}
	for _, k := range keys.AccessKeyMetadata {
		if err := d.region.do(ctx, iamAPI, "DeleteAccessKey", &iam.DeleteAccessKeyInput{UserName: new(userName), AccessKeyId: k.AccessKeyId}, nil); err != nil {
			return none, err
		}
	}
	if err := d.region.do(ctx, iamAPI, "DeleteUserPolicy", &iam.DeleteUserPolicyInput{UserName: new(userName), PolicyName: new(policyName)}, nil, "NoSuchEntity"); err != nil {
		return none, err
	}
	var key iam.CreateAccessKeyOutput
	if err := d.region.do(ctx, iamAPI, "CreateAccessKey", &iam.CreateAccessKeyInput{UserName: new(userName)}, &key); err != nil {
		return none, err
	}
	return sigv4.Signer{AccessKeyID: wire.Value(key.AccessKey.AccessKeyId), Secret: wire.Value(key.AccessKey.SecretAccessKey)}, nil
}

const policyName = "push"

// allow gives the user a policy in place of the one it had. It holds from the
// next request on.
func (d *demo) allow(ctx context.Context, document string) error {
	return d.region.do(ctx, iamAPI, "PutUserPolicy", &iam.PutUserPolicyInput{UserName: new(userName), PolicyName: new(policyName), PolicyDocument: new(document)}, nil)
}

// login is `aws ecr get-login-password`.
func (d *demo) login(ctx context.Context, user sigv4.Signer) (string, error) {
	var out ecr.GetAuthorizationTokenOutput
	if err := d.region.call(ctx, user, ecrAPI, "GetAuthorizationToken", &ecr.GetAuthorizationTokenInput{}, &out); err != nil {
		return "", err
	}
	if len(out.AuthorizationData) == 0 {
		return "", errors.New("GetAuthorizationToken returned no token")
	}
	b, err := base64.StdEncoding.DecodeString(wire.Value(out.AuthorizationData[0].AuthorizationToken))
	if err != nil {
		return "", fmt.Errorf("authorization token: %w", err)
	}
	_, password, _ := strings.Cut(string(b), ":")
	return password, nil
}

// upload is `docker push`.
func (d *demo) upload(ctx context.Context, img v1.Image, password string) error {
	ref, err := name.NewTag(d.repositoryName+":latest", name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx), remote.WithTransport(httpTransport),
		remote.WithAuth(&authn.Basic{Username: "AWS", Password: password}))
}
