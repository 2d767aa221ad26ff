package iam

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/berth-run/berth/auth"
	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// credentialServices are those that AWS has such credentials for. Whether a
// credential is a key, and not a user name and password, is the value.
var credentialServices = map[string]bool{
	"codecommit.amazonaws.com": false,
	"cassandra.amazonaws.com":  false,
	"bedrock.amazonaws.com":    true,
	"logs.amazonaws.com":       true,
}

func unsupportedService(name string) error {
	return &api.ServiceNotSupportedException{Message: fmt.Sprintf("No such service %s is supported for Service Specific Credentials", name)}
}

func serviceCredentials(r store.Reader, u *state.User) []*state.ServiceCredential {
	return byKey(slices.Collect(state.ServiceCredentials.By(r, "user", u.ID)), func(c *state.ServiceCredential) string { return c.ID })
}

// credentialStatus tells Active from Expired, which no row says.
func (s *Service) credentialStatus(c *state.ServiceCredential) api.StatusType {
	if !c.Expires.IsZero() && !s.clock().Before(c.Expires) {
		return api.StatusTypeExpired
	}
	return status(c.Active)
}

// expiry is when a credential ends, nil if it does not.
func expiry(c *state.ServiceCredential) *time.Time {
	if c.Expires.IsZero() {
		return nil
	}
	return &c.Expires
}

// viewServiceCredential shows a credential with its secret: at its making, and when it is made anew.
func (s *Service) viewServiceCredential(u *state.User, c *state.ServiceCredential, secret string) *api.ServiceSpecificCredential {
	v := &api.ServiceSpecificCredential{CreateDate: &c.CreatedAt, ExpirationDate: expiry(c), ServiceName: &c.Service,
		ServiceSpecificCredentialId: &c.ID, UserName: &u.Name, Status: s.credentialStatus(c)}
	if credentialServices[c.Service] {
		v.ServiceCredentialAlias, v.ServiceCredentialSecret = &c.Name, &secret
	} else {
		v.ServiceUserName, v.ServicePassword = &c.Name, &secret
	}
	return v
}

func newServiceSecret() string {
	var b [33]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// CreateServiceSpecificCredential makes a credential and shows its secret, once.
func (s *Service) CreateServiceSpecificCredential(ctx context.Context, in *api.CreateServiceSpecificCredentialInput) (*api.CreateServiceSpecificCredentialOutput, error) {
	key, known := credentialServices[*in.ServiceName]
	if !known {
		return nil, unsupportedService(*in.ServiceName)
	}
	if in.CredentialAgeDays != nil && !key {
		return nil, invalidInput("CredentialAgeDays is not supported for the service %s.", *in.ServiceName)
	}
	acct, secret := account(ctx), newServiceSecret()
	c := state.ServiceCredential{ID: auth.NewKeyID(auth.PrefixServiceCredential, acct), Account: acct, Service: *in.ServiceName,
		Hash: s.hash(secret), Active: true, CreatedAt: s.now()}
	if days := wire.Value(in.CredentialAgeDays); days > 0 {
		c.Expires = c.CreatedAt.AddDate(0, 0, int(days))
	}
	var u *state.User
	var next state.ServiceCredential
	err := s.update(ctx, func(tx *store.Tx) (err error) {
		if u, err = user(tx, acct, *in.UserName); err != nil {
			return err
		}
		next = c
		next.UserID = u.ID
		have, taken := 0, map[string]bool{}
		for _, o := range serviceCredentials(tx, u) {
			if o.Service == c.Service {
				have++
			}
			taken[o.Name] = true
		}
		if err := full(tx, acct, "ServiceSpecificCredentialsPerUser", "service-credentials-per-service", have); err != nil {
			return err
		}
		for n := 0; next.Name == "" || taken[next.Name]; n++ {
			next.Name = u.Name + "-at-" + acct
			if n > 0 {
				next.Name = fmt.Sprintf("%s+%d-at-%s", u.Name, n, acct)
			}
		}
		state.ServiceCredentials.Put(tx, new(next))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateServiceSpecificCredentialOutput{ServiceSpecificCredential: s.viewServiceCredential(u, &next, secret)}, nil
}

// ListServiceSpecificCredentials lists the credentials of a user, or of all.
func (s *Service) ListServiceSpecificCredentials(ctx context.Context, in *api.ListServiceSpecificCredentialsInput) (*api.ListServiceSpecificCredentialsOutput, error) {
	snap := s.db.Snapshot()
	if in.ServiceName != nil {
		if _, known := credentialServices[*in.ServiceName]; !known {
			return nil, unsupportedService(*in.ServiceName)
		}
	}
	var all []*state.ServiceCredential
	if wire.Value(in.AllUsers) {
		if in.UserName != nil {
			return nil, invalidInput("UserName and AllUsers cannot both be given.")
		}
		all = slices.Collect(state.ServiceCredentials.By(snap, "account", account(ctx)))
	} else {
		u, err := named(ctx, snap, in.UserName)
		if err != nil {
			return nil, err
		}
		all = serviceCredentials(snap, u)
	}
	all = slices.DeleteFunc(all, func(c *state.ServiceCredential) bool { return in.ServiceName != nil && c.Service != *in.ServiceName })
	all, more, marker, err := cut(ctx, s, in, all, func(c *state.ServiceCredential) string { return c.ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListServiceSpecificCredentialsOutput{IsTruncated: more, Marker: marker, ServiceSpecificCredentials: []api.ServiceSpecificCredentialMetadata{}}
	for _, c := range all {
		u := userByID(snap, c.UserID)
		if u == nil {
			continue
		}
		v := api.ServiceSpecificCredentialMetadata{UserName: &u.Name, Status: s.credentialStatus(c), CreateDate: &c.CreatedAt,
			ExpirationDate: expiry(c), ServiceSpecificCredentialId: &c.ID, ServiceName: &c.Service}
		if credentialServices[c.Service] {
			v.ServiceCredentialAlias = &c.Name
		} else {
			v.ServiceUserName = &c.Name
		}
		out.ServiceSpecificCredentials = append(out.ServiceSpecificCredentials, v)
	}
	return out, nil
}

// setServiceCredential changes a copy of a credential of the user meant.
func (s *Service) setServiceCredential(ctx context.Context, name *string, id string, change func(tx *store.Tx, u *state.User, c *state.ServiceCredential)) error {
	return s.update(ctx, func(tx *store.Tx) error {
		u, err := named(ctx, tx, name)
		if err != nil {
			return err
		}
		old, ok := state.ServiceCredentials.Get(tx, id)
		if !ok || old.UserID != u.ID {
			return noSuch("No such credential %s exists", id)
		}
		next := *old
		state.ServiceCredentials.Delete(tx, id)
		change(tx, u, &next)
		return nil
	})
}

// ResetServiceSpecificCredential gives a credential a new secret.
func (s *Service) ResetServiceSpecificCredential(ctx context.Context, in *api.ResetServiceSpecificCredentialInput) (*api.ResetServiceSpecificCredentialOutput, error) {
	secret := newServiceSecret()
	hash := s.hash(secret)
	var whose *state.User
	var reset *state.ServiceCredential
	err := s.setServiceCredential(ctx, in.UserName, *in.ServiceSpecificCredentialId, func(tx *store.Tx, u *state.User, c *state.ServiceCredential) {
		c.Hash = hash
		state.ServiceCredentials.Put(tx, c)
		whose, reset = u, c
	})
	if err != nil {
		return nil, err
	}
	return &api.ResetServiceSpecificCredentialOutput{ServiceSpecificCredential: s.viewServiceCredential(whose, reset, secret)}, nil
}

// UpdateServiceSpecificCredential switches a credential on or off.
func (s *Service) UpdateServiceSpecificCredential(ctx context.Context, in *api.UpdateServiceSpecificCredentialInput) (*api.UpdateServiceSpecificCredentialOutput, error) {
	active, err := switched(in.Status)
	if err != nil {
		return nil, err
	}
	return &api.UpdateServiceSpecificCredentialOutput{}, s.setServiceCredential(ctx, in.UserName, *in.ServiceSpecificCredentialId,
		func(tx *store.Tx, _ *state.User, c *state.ServiceCredential) {
			c.Active = active
			state.ServiceCredentials.Put(tx, c)
		})
}

// DeleteServiceSpecificCredential deletes a credential.
func (s *Service) DeleteServiceSpecificCredential(ctx context.Context, in *api.DeleteServiceSpecificCredentialInput) (*api.DeleteServiceSpecificCredentialOutput, error) {
	return &api.DeleteServiceSpecificCredentialOutput{}, s.setServiceCredential(ctx, in.UserName, *in.ServiceSpecificCredentialId,
		func(*store.Tx, *state.User, *state.ServiceCredential) {})
}
