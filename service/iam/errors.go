package iam

import (
	"fmt"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
)

func noSuch(format string, args ...any) error {
	return &api.NoSuchEntityException{Message: fmt.Sprintf(format, args...)}
}

func exists(format string, args ...any) error {
	return &api.EntityAlreadyExistsException{Message: fmt.Sprintf(format, args...)}
}

func conflict(what string) error {
	return &api.DeleteConflictException{Message: "Cannot delete entity, must " + what + " first."}
}

func quota(name string, n int) error {
	return &api.LimitExceededException{Message: fmt.Sprintf("Cannot exceed quota for %s: %d", name, n)}
}

func invalidInput(format string, args ...any) error {
	return &api.InvalidInputException{Message: fmt.Sprintf(format, args...)}
}

func validation(format string, args ...any) error {
	return wire.NewError(400, "ValidationError", fmt.Sprintf(format, args...))
}

// Quotas of an account, AWS's defaults.
const (
	maxUsers            = 5000
	maxGroups           = 300
	maxRoles            = 1000
	maxPolicies         = 1500
	maxProfiles         = 1000
	maxKeys             = 2
	maxVersions         = 5
	maxAttached         = 10
	maxGroupsOfUser     = 10
	maxTags             = 50
	maxManagedPolicy    = 6144
	maxTrust            = 2048
	maxInlineUser       = 2048
	maxInlineGroup      = 5120
	maxInlineRole       = 10240
	defaultSessionLimit = 3600
)
