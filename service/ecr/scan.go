package ecr

import (
	"context"
	"fmt"
	"slices"

	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/registry/image"
	"github.com/berth-run/berth/store/state"
)

// Nothing here scans or signs. What says when to scan is kept, so that it can
// be read back; who asks for a scan or a signature is told that there is none.

// PutRegistryScanningConfiguration keeps when repositories are to be scanned.
func (s *Service) PutRegistryScanningConfiguration(ctx context.Context, in *ecr.PutRegistryScanningConfigurationInput) (*ecr.PutRegistryScanningConfigurationOutput, error) {
	if in.ScanType == ecr.ScanTypeEnhanced {
		return nil, refuse("The scan type ENHANCED is not supported by Berth, which has no Amazon Inspector")
	}
	var rules []state.ScanRule
	for _, r := range in.Rules {
		if r.ScanFrequency == ecr.ScanFrequencyContinuousScan {
			return nil, refuse("The scan frequency CONTINUOUS_SCAN is only allowed with the scan type ENHANCED")
		}
		if slices.ContainsFunc(rules, func(have state.ScanRule) bool { return have.Frequency == string(r.ScanFrequency) }) {
			return nil, refuse("Each scan frequency can have one rule")
		}
		rule := state.ScanRule{Frequency: string(r.ScanFrequency)}
		for _, f := range r.RepositoryFilters {
			rule.Filters = append(rule.Filters, state.RepositoryFilter{Type: string(f.FilterType), Filter: *f.Filter})
		}
		rules = append(rules, rule)
	}
	c, err := s.configure(ctx, func(c *state.RegistryConfig) error {
		// Without a word of the type it stays what it is, and BASIC is all there is.
		c.ScanType, c.ScanRules = string(ecr.ScanTypeBasic), rules
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutRegistryScanningConfigurationOutput{RegistryScanningConfiguration: scanning(c)}, nil
}

func scanFilters(in []state.RepositoryFilter) []ecr.ScanningRepositoryFilter {
	out := []ecr.ScanningRepositoryFilter{}
	for _, f := range in {
		out = append(out, ecr.ScanningRepositoryFilter{FilterType: ecr.ScanningRepositoryFilterType(f.Type), Filter: new(f.Filter)})
	}
	return out
}

func scanning(c *state.RegistryConfig) *ecr.RegistryScanningConfiguration {
	out := &ecr.RegistryScanningConfiguration{ScanType: ecr.ScanTypeBasic, Rules: []ecr.RegistryScanningRule{}}
	for _, r := range c.ScanRules {
		out.Rules = append(out.Rules, ecr.RegistryScanningRule{ScanFrequency: ecr.ScanFrequency(r.Frequency), RepositoryFilters: scanFilters(r.Filters)})
	}
	return out
}

// GetRegistryScanningConfiguration returns it as it was put.
func (s *Service) GetRegistryScanningConfiguration(ctx context.Context, _ *ecr.GetRegistryScanningConfigurationInput) (*ecr.GetRegistryScanningConfigurationOutput, error) {
	c := config(s.DB.Snapshot(), caller(ctx).Account)
	return &ecr.GetRegistryScanningConfigurationOutput{RegistryId: new(c.Account), ScanningConfiguration: scanning(c)}, nil
}

// BatchGetRepositoryScanningConfiguration says which rule each repository has.
func (s *Service) BatchGetRepositoryScanningConfiguration(ctx context.Context, in *ecr.BatchGetRepositoryScanningConfigurationInput) (*ecr.BatchGetRepositoryScanningConfigurationOutput, error) {
	snap, account := s.DB.Snapshot(), caller(ctx).Account
	c := config(snap, account)
	out := &ecr.BatchGetRepositoryScanningConfigurationOutput{ScanningConfigurations: []ecr.RepositoryScanningConfiguration{}, Failures: []ecr.RepositoryScanningConfigurationFailure{}}
	for _, name := range in.RepositoryNames {
		repo, ok := state.Repositories.Get(snap, state.RepositoryKey(account, name))
		if !ok {
			out.Failures = append(out.Failures, ecr.RepositoryScanningConfigurationFailure{
				RepositoryName: new(name), FailureCode: ecr.ScanningConfigurationFailureCodeRepositoryNotFound, FailureReason: new((&image.NoRepositoryError{Account: account, Name: name}).Error()),
			})
			continue
		}
		r := ecr.RepositoryScanningConfiguration{
			RepositoryArn: new(repo.ARN), RepositoryName: new(name), ScanOnPush: new(repo.ScanOnPush), ScanFrequency: ecr.ScanFrequencyManual,
			AppliedScanFilters: []ecr.ScanningRepositoryFilter{},
		}
		for _, rule := range c.ScanRules {
			for _, f := range rule.Filters {
				if !image.Match(f.Filter, name) {
					continue
				}
				r.AppliedScanFilters = append(r.AppliedScanFilters, scanFilters([]state.RepositoryFilter{f})...)
				r.ScanOnPush = new(*r.ScanOnPush || rule.Frequency == string(ecr.ScanFrequencyScanOnPush))
			}
		}
		if *r.ScanOnPush {
			r.ScanFrequency = ecr.ScanFrequencyScanOnPush
		}
		out.ScanningConfigurations = append(out.ScanningConfigurations, r)
	}
	return out, nil
}

// StartImageScan refuses.
func (s *Service) StartImageScan(ctx context.Context, in *ecr.StartImageScanInput) (*ecr.StartImageScanOutput, error) {
	if _, _, err := s.image(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName, in.ImageId); err != nil {
		return nil, err
	}
	return nil, refuse("Image scans are not supported by Berth, which has no scanner")
}

// DescribeImageScanFindings knows of no scan.
func (s *Service) DescribeImageScanFindings(ctx context.Context, in *ecr.DescribeImageScanFindingsInput) (*ecr.DescribeImageScanFindingsOutput, error) {
	repo, _, err := s.image(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName, in.ImageId)
	if err != nil {
		return nil, err
	}
	return nil, &ecr.ScanNotFoundException{Message: fmt.Sprintf("Image scan does not exist for the image with '%s' in %s", show(*in.ImageId), where(repo))}
}

// PutSigningConfiguration refuses.
func (s *Service) PutSigningConfiguration(_ context.Context, in *ecr.PutSigningConfigurationInput) (*ecr.PutSigningConfigurationOutput, error) {
	if len(in.SigningConfiguration.Rules) > 0 {
		return nil, refuse("Managed signing is not supported by Berth, which has no AWS Signer")
	}
	return nil, refuse("A signing configuration without rules signs nothing, as it is already")
}

func noSigning(account string) error {
	return &ecr.SigningConfigurationNotFoundException{Message: fmt.Sprintf("Signing configuration does not exist in the registry with id '%s'", account)}
}

// GetSigningConfiguration knows of none.
func (s *Service) GetSigningConfiguration(ctx context.Context, _ *ecr.GetSigningConfigurationInput) (*ecr.GetSigningConfigurationOutput, error) {
	return nil, noSigning(caller(ctx).Account)
}

// DeleteSigningConfiguration knows of none.
func (s *Service) DeleteSigningConfiguration(ctx context.Context, _ *ecr.DeleteSigningConfigurationInput) (*ecr.DeleteSigningConfigurationOutput, error) {
	return nil, noSigning(caller(ctx).Account)
}

// DescribeImageSigningStatus knows of no signature by ECR.
func (s *Service) DescribeImageSigningStatus(ctx context.Context, in *ecr.DescribeImageSigningStatusInput) (*ecr.DescribeImageSigningStatusOutput, error) {
	repo, img, err := s.image(ctx, s.DB.Snapshot(), in.RegistryId, in.RepositoryName, in.ImageId)
	if err != nil {
		return nil, err
	}
	return &ecr.DescribeImageSigningStatusOutput{
		RepositoryName: new(repo.Name), RegistryId: new(repo.Account), ImageId: identifier(img.Digest, tagOf(in.ImageId)), SigningStatuses: []ecr.ImageSigningStatus{},
	}, nil
}
