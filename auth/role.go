package auth

import (
	"strings"
	"time"

	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// ForRole mints credentials of a session of the role, as AWS's services do for
// the roles that were passed to them. Whether the service may assume the role
// is for Authorizer.ServiceMayAssume to say.
func (s *Sessions) ForRole(role *state.Role, sessionName string, now time.Time, lasting time.Duration) (Credentials, error) {
	return s.Mint(Session{Kind: AssumedRole, Account: role.Account, Name: role.Name, ARN: role.ARN(),
		PrincipalID: role.ID, SessionName: sessionName}, now, now.Add(lasting))
}

// RoleByARN finds the role with exactly this ARN, path included.
func RoleByARN(r store.Reader, arn string) (*state.Role, bool) {
	_, name, ok := strings.Cut(arn, ":role/")
	if !ok {
		return nil, false
	}
	name = name[strings.LastIndexByte(name, '/')+1:]
	role, ok := state.Roles.Get(r, state.IAMKey(accountOfARN(arn), name))
	if !ok || role.ARN() != arn {
		return nil, false
	}
	return role, true
}
