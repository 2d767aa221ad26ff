// Package ecr answers the Amazon ECR API: repositories, their images and
// policies, layers by the API, and the password of the registry.
//
// It validates and writes rows; bytes and what images are made of belong to
// package registry, which serves the same repositories to OCI clients. It must
// never authorize: Authorize says what the front door has to check.
package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/berth-run/berth/auth"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// Config is what the service is made of. All but Now is required.
type Config struct {
	DB       *store.DB
	Registry *registry.Registry
	// Endpoint is where an account's registry is reached: scheme and host, such
	// as http://000000000000.dkr.ecr.us-east-1.localhost:4566.
	Endpoint func(ctx context.Context, account string) string
	Now      func() time.Time // nil: time.Now
}

// Service is Amazon ECR. What it does not implement is answered by Unimplemented.
type Service struct {
	ecr.Unimplemented
	Config
}

var _ ecr.Handler = (*Service)(nil)

// New makes the service.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Registry == nil || c.Endpoint == nil {
		return nil, errors.New("ecr: incomplete configuration")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{Config: c}, nil
}

// caller is who calls. The front door lets nobody in without.
func caller(ctx context.Context) *auth.Caller {
	if c := auth.FromContext(ctx); c != nil {
		return c
	}
	return &auth.Caller{}
}

// account is whose registry a request is about.
func (s *Service) account(ctx context.Context, registryID *string) string {
	if registryID != nil && *registryID != "" {
		return *registryID
	}
	return caller(ctx).Account
}

// repository finds the repository that a request names.
func (s *Service) repository(ctx context.Context, r store.Reader, registryID, name *string) (*state.Repository, error) {
	account := s.account(ctx, registryID)
	repo, ok := state.Repositories.Get(r, state.RepositoryKey(account, *name))
	if !ok {
		return nil, noRepository(account, *name)
	}
	return repo, nil
}

func noRepository(account, name string) error {
	e := &image.NoRepositoryError{Account: account, Name: name}
	return &ecr.RepositoryNotFoundException{Message: e.Error()}
}

// where ends a message about a repository.
func where(repo *state.Repository) string {
	return fmt.Sprintf("the repository with name '%s' in the registry with id '%s'", repo.Name, repo.Account)
}

func invalid(parameter, constraint string) error {
	return &ecr.InvalidParameterException{Message: fmt.Sprintf("Invalid parameter at '%s' failed to satisfy constraint: '%s'", parameter, constraint)}
}

// password lives for as long as ECR's.
const passwordFor = 12 * time.Hour

// GetAuthorizationToken gives the caller a password for the registry.
func (s *Service) GetAuthorizationToken(ctx context.Context, in *ecr.GetAuthorizationTokenInput) (*ecr.GetAuthorizationTokenOutput, error) {
	until := s.Now().Add(passwordFor)
	password, err := s.Registry.Password(ctx, until)
	if err != nil {
		return nil, err
	}
	token := base64.StdEncoding.EncodeToString([]byte("AWS:" + password))
	accounts := in.RegistryIds
	if len(accounts) == 0 {
		accounts = []string{caller(ctx).Account}
	}
	out := &ecr.GetAuthorizationTokenOutput{}
	for _, a := range accounts {
		out.AuthorizationData = append(out.AuthorizationData, ecr.AuthorizationData{
			AuthorizationToken: new(token), ExpiresAt: new(until), ProxyEndpoint: new(s.Endpoint(ctx, a)),
		})
	}
	return out, nil
}
