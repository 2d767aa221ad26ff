package ecr

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berth-run/berth/auth/policy"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// own is the caller's account, if that is whose registry a request names: what
// concerns a registry as a whole is its owner's business.
func own(ctx context.Context, registryID *string) (string, error) {
	account := caller(ctx).Account
	if registryID != nil && *registryID != "" && *registryID != account {
		return "", invalid("registryId", "only the registry of the caller can be managed")
	}
	return account, nil
}

func refuse(format string, args ...any) error {
	return &ecr.ValidationException{Message: fmt.Sprintf(format, args...)}
}

// config is what an account has said of its registry.
func config(r store.Reader, account string) *state.RegistryConfig {
	if c, ok := state.RegistryConfigs.Get(r, account); ok {
		return c
	}
	return &state.RegistryConfig{Account: account}
}

// configure writes a changed copy of it.
func (s *Service) configure(ctx context.Context, f func(*state.RegistryConfig) error) (*state.RegistryConfig, error) {
	account := caller(ctx).Account
	var out *state.RegistryConfig
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		next := *config(tx, account)
		if err := f(&next); err != nil {
			return err
		}
		state.RegistryConfigs.Put(tx, &next)
		out = &next
		return nil
	})
	return out, err
}

// PutRegistryPolicy says who else may use the registry.
func (s *Service) PutRegistryPolicy(ctx context.Context, in *ecr.PutRegistryPolicyInput) (*ecr.PutRegistryPolicyOutput, error) {
	if _, err := policy.Parse(*in.PolicyText, policy.Resource); err != nil {
		return nil, invalid("PolicyText", "Invalid registry policy provided")
	}
	c, err := s.configure(ctx, func(c *state.RegistryConfig) error {
		c.Policy = *in.PolicyText
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutRegistryPolicyOutput{RegistryId: new(c.Account), PolicyText: in.PolicyText}, nil
}

func noRegistryPolicy(account string) error {
	return &ecr.RegistryPolicyNotFoundException{Message: fmt.Sprintf("Registry policy does not exist in the registry with id '%s'", account)}
}

// GetRegistryPolicy returns the policy as it was put.
func (s *Service) GetRegistryPolicy(ctx context.Context, _ *ecr.GetRegistryPolicyInput) (*ecr.GetRegistryPolicyOutput, error) {
	c := config(s.DB.Snapshot(), caller(ctx).Account)
	if c.Policy == "" {
		return nil, noRegistryPolicy(c.Account)
	}
	return &ecr.GetRegistryPolicyOutput{RegistryId: new(c.Account), PolicyText: new(c.Policy)}, nil
}

// DeleteRegistryPolicy removes the policy and returns it.
func (s *Service) DeleteRegistryPolicy(ctx context.Context, _ *ecr.DeleteRegistryPolicyInput) (*ecr.DeleteRegistryPolicyOutput, error) {
	var text string
	c, err := s.configure(ctx, func(c *state.RegistryConfig) error {
		if c.Policy == "" {
			return noRegistryPolicy(c.Account)
		}
		text, c.Policy = c.Policy, ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRegistryPolicyOutput{RegistryId: new(c.Account), PolicyText: new(text)}, nil
}

// PutReplicationConfiguration says where images are copied to: to other
// accounts of this region, since it is the only one that there is.
func (s *Service) PutReplicationConfiguration(ctx context.Context, in *ecr.PutReplicationConfigurationInput) (*ecr.PutReplicationConfigurationOutput, error) {
	account := caller(ctx).Account
	var rules []state.ReplicationRule
	seen := map[state.ReplicationDestination]bool{}
	for _, r := range in.ReplicationConfiguration.Rules {
		var rule state.ReplicationRule
		if len(r.Destinations) == 0 {
			return nil, invalid("replicationConfiguration", "a rule has at least one destination")
		}
		for _, d := range r.Destinations {
			to := state.ReplicationDestination{Region: *d.Region, Account: *d.RegistryId}
			switch {
			case to.Region != s.Registry.Region:
				return nil, invalid("replicationConfiguration", fmt.Sprintf("replication to the region %s is not supported by Berth, which replicates within %s", to.Region, s.Registry.Region))
			case to.Account == account:
				return nil, invalid("replicationConfiguration", "Replication destination cannot be the same as the source registry")
			}
			seen[to] = true
			rule.Destinations = append(rule.Destinations, to)
		}
		for _, f := range r.RepositoryFilters {
			rule.Filters = append(rule.Filters, state.RepositoryFilter{Type: string(f.FilterType), Filter: *f.Filter})
		}
		rules = append(rules, rule)
	}
	if len(seen) > maxDestinations {
		return nil, invalid("replicationConfiguration", fmt.Sprintf("a configuration has at most %d destinations", maxDestinations))
	}
	c, err := s.configure(ctx, func(c *state.RegistryConfig) error {
		c.Replication = rules
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutReplicationConfigurationOutput{ReplicationConfiguration: replication(c)}, nil
}

// maxDestinations is how many registries one may replicate to, over all rules.
const maxDestinations = 25

func replication(c *state.RegistryConfig) *ecr.ReplicationConfiguration {
	out := &ecr.ReplicationConfiguration{Rules: []ecr.ReplicationRule{}}
	for _, r := range c.Replication {
		var rule ecr.ReplicationRule
		for _, d := range r.Destinations {
			rule.Destinations = append(rule.Destinations, ecr.ReplicationDestination{Region: new(d.Region), RegistryId: new(d.Account)})
		}
		for _, f := range r.Filters {
			rule.RepositoryFilters = append(rule.RepositoryFilters, ecr.RepositoryFilter{FilterType: ecr.RepositoryFilterType(f.Type), Filter: new(f.Filter)})
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

// DescribeRegistry describes the caller's registry.
func (s *Service) DescribeRegistry(ctx context.Context, _ *ecr.DescribeRegistryInput) (*ecr.DescribeRegistryOutput, error) {
	c := config(s.DB.Snapshot(), caller(ctx).Account)
	return &ecr.DescribeRegistryOutput{RegistryId: new(c.Account), ReplicationConfiguration: replication(c)}, nil
}

// DescribeImageReplicationStatus says what became of copying an image.
func (s *Service) DescribeImageReplicationStatus(ctx context.Context, in *ecr.DescribeImageReplicationStatusInput) (*ecr.DescribeImageReplicationStatusOutput, error) {
	snap := s.DB.Snapshot()
	repo, img, err := s.image(ctx, snap, in.RegistryId, in.RepositoryName, in.ImageId)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeImageReplicationStatusOutput{RepositoryName: new(repo.Name), ImageId: in.ImageId, ReplicationStatuses: []ecr.ImageReplicationStatus{}}
	for r := range state.Replicas.Prefix(snap, img.Key()+"/") {
		status := ecr.ImageReplicationStatus{Region: new(r.Destination.Region), RegistryId: new(r.Destination.Account), Status: ecr.ReplicationStatusComplete}
		if r.Failure != "" {
			status.Status, status.FailureCode = ecr.ReplicationStatusFailed, new(r.Failure)
		}
		out.ReplicationStatuses = append(out.ReplicationStatuses, status)
	}
	return out, nil
}

// GetAccountSetting returns a setting of the caller's registry.
func (s *Service) GetAccountSetting(ctx context.Context, in *ecr.GetAccountSettingInput) (*ecr.GetAccountSettingOutput, error) {
	if registry.Settings[*in.Name] == nil {
		return nil, unknownSetting(*in.Name)
	}
	return &ecr.GetAccountSettingOutput{Name: in.Name, Value: new(registry.Setting(s.DB.Snapshot(), caller(ctx).Account, *in.Name))}, nil
}

// PutAccountSetting changes a setting of the caller's registry.
func (s *Service) PutAccountSetting(ctx context.Context, in *ecr.PutAccountSettingInput) (*ecr.PutAccountSettingOutput, error) {
	values := registry.Settings[*in.Name]
	if values == nil {
		return nil, unknownSetting(*in.Name)
	}
	if !slices.Contains(values, *in.Value) {
		return nil, invalid("value", "must be one of "+strings.Join(values, ", "))
	}
	account := caller(ctx).Account
	err := s.DB.Update(ctx, func(tx *store.Tx) error {
		state.RegistrySettings.Put(tx, &state.RegistrySetting{Account: account, Name: *in.Name, Value: *in.Value})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutAccountSettingOutput{Name: in.Name, Value: in.Value}, nil
}

func unknownSetting(name string) error {
	return invalid("name", fmt.Sprintf("there is no account setting %s", name))
}
