package iam

import (
	"context"
	"net/http"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
)

// What needs an organization, and what nobody can have asked for here, is
// answered as AWS answers an account that is in no organization, and that has
// delegated nothing.

var errNoOrganization = &api.OrganizationNotFoundException{Message: "Your account is not a member of an organization."}

// ListOrganizationsFeatures says that there is no organization.
func (s *Service) ListOrganizationsFeatures(context.Context, *api.ListOrganizationsFeaturesInput) (*api.ListOrganizationsFeaturesOutput, error) {
	return nil, errNoOrganization
}

// EnableOrganizationsRootCredentialsManagement says that there is no organization.
func (s *Service) EnableOrganizationsRootCredentialsManagement(context.Context, *api.EnableOrganizationsRootCredentialsManagementInput) (*api.EnableOrganizationsRootCredentialsManagementOutput, error) {
	return nil, errNoOrganization
}

// DisableOrganizationsRootCredentialsManagement says that there is no organization.
func (s *Service) DisableOrganizationsRootCredentialsManagement(context.Context, *api.DisableOrganizationsRootCredentialsManagementInput) (*api.DisableOrganizationsRootCredentialsManagementOutput, error) {
	return nil, errNoOrganization
}

// EnableOrganizationsRootSessions says that there is no organization.
func (s *Service) EnableOrganizationsRootSessions(context.Context, *api.EnableOrganizationsRootSessionsInput) (*api.EnableOrganizationsRootSessionsOutput, error) {
	return nil, errNoOrganization
}

// DisableOrganizationsRootSessions says that there is no organization.
func (s *Service) DisableOrganizationsRootSessions(context.Context, *api.DisableOrganizationsRootSessionsInput) (*api.DisableOrganizationsRootSessionsOutput, error) {
	return nil, errNoOrganization
}

// GenerateOrganizationsAccessReport is for the account that manages an organization.
func (s *Service) GenerateOrganizationsAccessReport(context.Context, *api.GenerateOrganizationsAccessReportInput) (*api.GenerateOrganizationsAccessReportOutput, error) {
	return nil, wire.NewError(http.StatusForbidden, "AccessDenied", "Your account is not a member of an organization.")
}

// GetOrganizationsAccessReport finds no report, as none can be made.
func (s *Service) GetOrganizationsAccessReport(_ context.Context, in *api.GetOrganizationsAccessReportInput) (*api.GetOrganizationsAccessReportOutput, error) {
	return nil, noSuch("Report with job id %s cannot be found.", *in.JobId)
}

// GetOutboundWebIdentityFederationInfo says that the feature is off. It cannot
// be switched on: that is not supported by Berth.
func (s *Service) GetOutboundWebIdentityFederationInfo(context.Context, *api.GetOutboundWebIdentityFederationInfoInput) (*api.GetOutboundWebIdentityFederationInfoOutput, error) {
	return nil, errFederation
}

// DisableOutboundWebIdentityFederation says that it is off already.
func (s *Service) DisableOutboundWebIdentityFederation(context.Context, *api.DisableOutboundWebIdentityFederationInput) (*api.DisableOutboundWebIdentityFederationOutput, error) {
	return nil, errFederation
}

var errFederation = &api.FeatureDisabledException{Message: "Outbound web identity federation is not enabled for the account."}

func noDelegation(id string) error { return noSuch("Delegation request %s does not exist.", id) }

// ListDelegationRequests lists none: they cannot be made here.
func (s *Service) ListDelegationRequests(context.Context, *api.ListDelegationRequestsInput) (*api.ListDelegationRequestsOutput, error) {
	return &api.ListDelegationRequestsOutput{DelegationRequests: []api.DelegationRequest{}}, nil
}

// GetDelegationRequest finds none.
func (s *Service) GetDelegationRequest(_ context.Context, in *api.GetDelegationRequestInput) (*api.GetDelegationRequestOutput, error) {
	return nil, noDelegation(*in.DelegationRequestId)
}

// AcceptDelegationRequest finds none.
func (s *Service) AcceptDelegationRequest(_ context.Context, in *api.AcceptDelegationRequestInput) (*api.AcceptDelegationRequestOutput, error) {
	return nil, noDelegation(*in.DelegationRequestId)
}

// AssociateDelegationRequest finds none.
func (s *Service) AssociateDelegationRequest(_ context.Context, in *api.AssociateDelegationRequestInput) (*api.AssociateDelegationRequestOutput, error) {
	return nil, noDelegation(*in.DelegationRequestId)
}

// RejectDelegationRequest finds none.
func (s *Service) RejectDelegationRequest(_ context.Context, in *api.RejectDelegationRequestInput) (*api.RejectDelegationRequestOutput, error) {
	return nil, noDelegation(*in.DelegationRequestId)
}

// SendDelegationToken finds none.
func (s *Service) SendDelegationToken(_ context.Context, in *api.SendDelegationTokenInput) (*api.SendDelegationTokenOutput, error) {
	return nil, noDelegation(*in.DelegationRequestId)
}

// UpdateDelegationRequest finds none.
func (s *Service) UpdateDelegationRequest(_ context.Context, in *api.UpdateDelegationRequestInput) (*api.UpdateDelegationRequestOutput, error) {
	return nil, noDelegation(*in.DelegationRequestId)
}

// GetHumanReadableSummary is about delegation requests, of which there are none.
func (s *Service) GetHumanReadableSummary(_ context.Context, in *api.GetHumanReadableSummaryInput) (*api.GetHumanReadableSummaryOutput, error) {
	return nil, noDelegation(*in.EntityArn)
}
