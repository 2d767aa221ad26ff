package state

import (
	"time"

	"github.com/berth-run/berth/store"
)

// IAMSettings are what an account has set for all of its users.
type IAMSettings struct {
	Account      string
	Password     *PasswordPolicy // nil: AWS's default
	TokenVersion int             // of the global endpoint's tokens: 1 (also 0) or 2
}

// PasswordPolicy says what passwords an account takes. 0 is not set.
type PasswordPolicy struct {
	MinimumLength        int
	Symbols, Numbers     bool
	Uppercase, Lowercase bool
	UsersMayChange       bool
	MaxAge               int   // days
	ReusePrevention      int   // passwords
	HardExpiry           *bool // as it was sent
}

// IAMAccounts is keyed by account; an account without a row has the defaults.
var IAMAccounts = store.NewTable("iamaccount", func(s *IAMSettings) string { return s.Account })

// CredentialReport is the newest report of an account's credentials.
type CredentialReport struct {
	Account     string
	GeneratedAt time.Time
	CSV         []byte // compressed with gzip
}

// CredentialReports is keyed by account.
var CredentialReports = store.NewTable("credentialreport", func(r *CredentialReport) string { return r.Account })

// Use is when somebody, or an access key, was last seen. It is written now and
// then, not at every call: see service/iam.
type Use struct {
	Account string
	Who     string // id of an access key, or of a user or role
	What    string // the service; "" for an access key, which keeps one row
	Service string
	Region  string
	At      time.Time
}

// UseKey is the key of a Use.
func UseKey(who, what string) string { return who + "/" + what }

// Uses is keyed by who/what.
var Uses = store.NewTable("use", func(u *Use) string { return UseKey(u.Who, u.What) })

// AccessReport is a report on which services somebody has used.
type AccessReport struct {
	ID        string // UUID
	Account   string
	ARN       string // of the user, group, role or policy that was asked for
	CreatedAt time.Time
	Services  []ServiceAccess // those that may be used, by namespace
}

// ServiceAccess is how a service was used.
type ServiceAccess struct {
	Namespace string
	Entities  []EntityAccess // who used it, newest first
}

// EntityAccess is when somebody used a service.
type EntityAccess struct {
	ARN, Kind, Name, ID, Path string // Kind: USER or ROLE
	Region                    string
	At                        time.Time
}

// AccessReports is keyed by id; index "account".
var AccessReports = store.NewTable("accessreport", func(r *AccessReport) string { return r.ID },
	store.Index("account", func(r *AccessReport) []string { return []string{r.Account} }))

// RoleDeletion is how the deletion of a service-linked role went.
type RoleDeletion struct {
	Task    string // its id: task/aws-service-role/…
	Account string
	Needed  []string // ARNs of what needed the role: then it was not deleted
	At      time.Time
}

// RoleDeletions is keyed by task; index "account".
var RoleDeletions = store.NewTable("roledeletion", func(d *RoleDeletion) string { return d.Task },
	store.Index("account", func(d *RoleDeletion) []string { return []string{d.Account} }))
