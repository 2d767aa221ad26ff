package iam

import (
	"context"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// oidcProvider finds a provider of the account by its ARN.
func oidcProvider(r store.Reader, account, arn string) (*state.OIDCProvider, error) {
	if !strings.HasPrefix(arn, "arn:aws:iam::"+account+":oidc-provider/") {
		if !strings.HasPrefix(arn, "arn:aws:iam::") || !strings.Contains(arn, ":oidc-provider/") {
			return nil, validation("Invalid ARN:  Could not be parsed!")
		}
	} else if p, ok := state.OIDCProviders.Get(r, arn); ok {
		return p, nil
	}
	return nil, noSuch("OpenIDConnect Provider not found for arn %s", arn)
}

// providerURL is the URL of a provider as its ARN has it.
func providerURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(text, " \t\r\n") {
		return "", validation("Invalid Open ID Connect Provider URL")
	}
	return text[len("https://"):], nil
}

func checkThumbprints(r store.Reader, account string, list []string) error {
	if len(list) > limit(r, account, "thumbprints-per-oidc-provider") {
		return invalidInput("Thumbprint list must contain fewer than 5 entries.")
	}
	for _, t := range list {
		if _, err := hex.DecodeString(t); err != nil {
			return invalidInput("Thumbprint %s must be 40 hexadecimal digits.", t)
		}
	}
	return nil
}

func checkClientIDs(r store.Reader, account string, list []string) error {
	if n := limit(r, account, "client-ids-per-oidc-provider"); len(list) > n {
		return quota("ClientIdsPerOpenIdConnectProvider", n)
	}
	return nil
}

// CreateOpenIDConnectProvider makes an identity provider whose tokens roles may trust.
func (s *Service) CreateOpenIDConnectProvider(ctx context.Context, in *api.CreateOpenIDConnectProviderInput) (*api.CreateOpenIDConnectProviderOutput, error) {
	acct := account(ctx)
	u, err := providerURL(*in.Url)
	if err != nil {
		return nil, err
	}
	p := &state.OIDCProvider{Account: acct, URL: u, ClientIDs: once(in.ClientIDList), Thumbprints: slices.Clone(in.ThumbprintList), CreatedAt: s.now()}
	if p.Tags, err = newTags(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		if err := checkThumbprints(tx, acct, p.Thumbprints); err != nil {
			return err
		}
		if err := checkClientIDs(tx, acct, p.ClientIDs); err != nil {
			return err
		}
		if state.OIDCProviders.Has(tx, p.ARN()) {
			return exists("Provider with url %s already exists.", *in.Url)
		}
		if err := full(tx, acct, "OpenIdConnectProvidersPerAccount", "oidc-providers", len(oidcProviders(tx, acct))); err != nil {
			return err
		}
		state.OIDCProviders.Put(tx, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateOpenIDConnectProviderOutput{OpenIDConnectProviderArn: new(p.ARN()), Tags: viewTags(p.Tags)}, nil
}

// once drops what is said twice.
func once(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func oidcProviders(r store.Reader, account string) []*state.OIDCProvider {
	return byKey(slices.Collect(state.OIDCProviders.By(r, "account", account)), (*state.OIDCProvider).ARN)
}

// GetOpenIDConnectProvider shows a provider.
func (s *Service) GetOpenIDConnectProvider(ctx context.Context, in *api.GetOpenIDConnectProviderInput) (*api.GetOpenIDConnectProviderOutput, error) {
	p, err := oidcProvider(s.db.Snapshot(), account(ctx), *in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	return &api.GetOpenIDConnectProviderOutput{Url: &p.URL, ClientIDList: append([]string{}, p.ClientIDs...),
		ThumbprintList: append([]string{}, p.Thumbprints...), CreateDate: &p.CreatedAt, Tags: viewTags(p.Tags)}, nil
}

// ListOpenIDConnectProviders lists the account's providers by ARN.
func (s *Service) ListOpenIDConnectProviders(ctx context.Context, _ *api.ListOpenIDConnectProvidersInput) (*api.ListOpenIDConnectProvidersOutput, error) {
	out := &api.ListOpenIDConnectProvidersOutput{OpenIDConnectProviderList: []api.OpenIDConnectProviderListEntry{}}
	for _, p := range oidcProviders(s.db.Snapshot(), account(ctx)) {
		out.OpenIDConnectProviderList = append(out.OpenIDConnectProviderList, api.OpenIDConnectProviderListEntry{Arn: new(p.ARN())})
	}
	return out, nil
}

// DeleteOpenIDConnectProvider deletes a provider; one that is not there is deleted already.
func (s *Service) DeleteOpenIDConnectProvider(ctx context.Context, in *api.DeleteOpenIDConnectProviderInput) (*api.DeleteOpenIDConnectProviderOutput, error) {
	return &api.DeleteOpenIDConnectProviderOutput{}, s.update(ctx, func(tx *store.Tx) error {
		p, err := oidcProvider(tx, account(ctx), *in.OpenIDConnectProviderArn)
		if isNoSuch(err) {
			return nil
		}
		if err != nil {
			return err
		}
		state.OIDCProviders.Delete(tx, p.ARN())
		return nil
	})
}

// setOIDC changes a copy of a provider.
func (s *Service) setOIDC(ctx context.Context, arn string, change func(*store.Tx, *state.OIDCProvider) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		old, err := oidcProvider(tx, account(ctx), arn)
		if err != nil {
			return err
		}
		next := *old
		if err := change(tx, &next); err != nil {
			return err
		}
		state.OIDCProviders.Put(tx, &next)
		return nil
	})
}

// AddClientIDToOpenIDConnectProvider adds an audience; adding one twice changes nothing.
func (s *Service) AddClientIDToOpenIDConnectProvider(ctx context.Context, in *api.AddClientIDToOpenIDConnectProviderInput) (*api.AddClientIDToOpenIDConnectProviderOutput, error) {
	return &api.AddClientIDToOpenIDConnectProviderOutput{}, s.setOIDC(ctx, *in.OpenIDConnectProviderArn, func(tx *store.Tx, p *state.OIDCProvider) error {
		if slices.Contains(p.ClientIDs, *in.ClientID) {
			return nil
		}
		p.ClientIDs = append(slices.Clone(p.ClientIDs), *in.ClientID)
		return checkClientIDs(tx, p.Account, p.ClientIDs)
	})
}

// RemoveClientIDFromOpenIDConnectProvider removes an audience, if it is there.
func (s *Service) RemoveClientIDFromOpenIDConnectProvider(ctx context.Context, in *api.RemoveClientIDFromOpenIDConnectProviderInput) (*api.RemoveClientIDFromOpenIDConnectProviderOutput, error) {
	return &api.RemoveClientIDFromOpenIDConnectProviderOutput{}, s.setOIDC(ctx, *in.OpenIDConnectProviderArn, func(_ *store.Tx, p *state.OIDCProvider) error {
		p.ClientIDs = slices.DeleteFunc(slices.Clone(p.ClientIDs), func(id string) bool { return id == *in.ClientID })
		return nil
	})
}

// UpdateOpenIDConnectProviderThumbprint replaces the thumbprints.
func (s *Service) UpdateOpenIDConnectProviderThumbprint(ctx context.Context, in *api.UpdateOpenIDConnectProviderThumbprintInput) (*api.UpdateOpenIDConnectProviderThumbprintOutput, error) {
	return &api.UpdateOpenIDConnectProviderThumbprintOutput{}, s.setOIDC(ctx, *in.OpenIDConnectProviderArn, func(tx *store.Tx, p *state.OIDCProvider) error {
		p.Thumbprints = slices.Clone(in.ThumbprintList)
		return checkThumbprints(tx, p.Account, p.Thumbprints)
	})
}

// TagOpenIDConnectProvider adds tags.
func (s *Service) TagOpenIDConnectProvider(ctx context.Context, in *api.TagOpenIDConnectProviderInput) (*api.TagOpenIDConnectProviderOutput, error) {
	return &api.TagOpenIDConnectProviderOutput{}, s.setOIDC(ctx, *in.OpenIDConnectProviderArn, func(_ *store.Tx, p *state.OIDCProvider) (err error) {
		p.Tags, err = newTags(p.Tags, in.Tags)
		return err
	})
}

// UntagOpenIDConnectProvider removes tags.
func (s *Service) UntagOpenIDConnectProvider(ctx context.Context, in *api.UntagOpenIDConnectProviderInput) (*api.UntagOpenIDConnectProviderOutput, error) {
	return &api.UntagOpenIDConnectProviderOutput{}, s.setOIDC(ctx, *in.OpenIDConnectProviderArn, func(_ *store.Tx, p *state.OIDCProvider) error {
		p.Tags = withoutTags(p.Tags, in.TagKeys)
		return nil
	})
}

// ListOpenIDConnectProviderTags lists tags by key.
func (s *Service) ListOpenIDConnectProviderTags(ctx context.Context, in *api.ListOpenIDConnectProviderTagsInput) (*api.ListOpenIDConnectProviderTagsOutput, error) {
	p, err := oidcProvider(s.db.Snapshot(), account(ctx), *in.OpenIDConnectProviderArn)
	if err != nil {
		return nil, err
	}
	tags, more, marker, err := tagPage(ctx, s, in, p.Tags)
	return &api.ListOpenIDConnectProviderTagsOutput{Tags: tags, IsTruncated: more, Marker: marker}, err
}
