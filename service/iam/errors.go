package iam

import (
	"errors"
	"fmt"

	api "github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/wire"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
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

// limit is one of the account's quotas.
func limit(r store.Reader, account, name string) int { return state.Limit(r, account, "iam/"+name) }

// Limits that nobody can change.
const (
	maxTags             = 50
	defaultSessionLimit = 3600
)

// full says that an account, or whoever, has as many of something as a quota
// lets it. name is AWS's of the quota, key ours.
func full(r store.Reader, account, name, key string, have int) error {
	if n := limit(r, account, key); have >= n {
		return quota(name, n)
	}
	return nil
}

// count is how many rows of an account a table has whose keys begin with it.
func count[T any](r store.Reader, t *store.Table[T], account string) int {
	n := 0
	for range t.Prefix(r, account+"/") {
		n++
	}
	return n
}

func isNoSuch(err error) bool {
	_, is := errors.AsType[*api.NoSuchEntityException](err)
	return is
}
