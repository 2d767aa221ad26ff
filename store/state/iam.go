package state

import (
	"strings"
	"time"

	"github.com/berth-run/berth/store"
)

// Account is an AWS account. Its root user has no row of its own: its access
// keys are the AccessKey rows with User "".
type Account struct {
	ID        string // 12 digits
	Alias     string
	CreatedAt time.Time
	ClosingAt time.Time // since when nobody may do anything in it and all of it goes; zero while it is open
}

// Closing reports whether the account is on its way out.
func (a *Account) Closing() bool { return !a.ClosingAt.IsZero() }

// Accounts is keyed by id; index "closing" has those that are on their way out, under "".
var Accounts = store.NewTable("account", func(a *Account) string { return a.ID },
	store.Index("closing", func(a *Account) []string {
		if !a.Closing() {
			return nil
		}
		return []string{""}
	}))

// IAMKey is the key of a named IAM entity. Names that differ only in case are
// one name to IAM.
func IAMKey(account, name string) string { return account + "/" + strings.ToLower(name) }

// InlinePolicy is a policy that lives and dies with its entity.
type InlinePolicy struct{ Name, Document string }

// User is an IAM user.
type User struct {
	Account, Path, Name string
	ID                  string // AIDA…
	Boundary            string // ARN of a managed policy, "" for none
	Inline              []InlinePolicy
	Attached            []string // ARNs of managed policies, in the order they were attached
	Groups              []string // names
	Tags                []Tag
	CreatedAt           time.Time
}

// ARN is the user's ARN.
func (u *User) ARN() string { return iamARN(u.Account, "user", u.Path, u.Name) }

// Users is keyed by account/name.
var Users = store.NewTable("user", func(u *User) string { return IAMKey(u.Account, u.Name) },
	store.Index("id", func(u *User) []string { return []string{u.ID} }),
	store.Index("policy", func(u *User) []string { return attachments(u.Attached, u.Boundary) }),
	store.Index("group", func(u *User) []string {
		keys := make([]string, len(u.Groups))
		for i, g := range u.Groups {
			keys[i] = IAMKey(u.Account, g)
		}
		return keys
	}))

// AccessKey is a long-term key of a user, or of the account's root user.
type AccessKey struct {
	ID, Account string
	User        string // name, "" for the root user
	Secret      string
	Active      bool
	CreatedAt   time.Time
}

// AccessKeys is keyed by the key's id, and sealed: it holds secrets.
var AccessKeys = store.NewTable("accesskey", func(k *AccessKey) string { return k.ID },
	store.Sealed(),
	store.Index("user", func(k *AccessKey) []string { return []string{IAMKey(k.Account, k.User)} }))

// Role is an IAM role.
type Role struct {
	Account, Path, Name string
	ID                  string // AROA…
	Trust               string // the document that says who may assume it
	Description         string
	MaxSessionDuration  int // seconds
	Boundary            string
	Inline              []InlinePolicy
	Attached            []string
	Tags                []Tag
	CreatedAt           time.Time
}

// ARN is the role's ARN.
func (r *Role) ARN() string { return iamARN(r.Account, "role", r.Path, r.Name) }

// Roles is keyed by account/name.
var Roles = store.NewTable("role", func(r *Role) string { return IAMKey(r.Account, r.Name) },
	store.Index("id", func(r *Role) []string { return []string{r.ID} }),
	store.Index("policy", func(r *Role) []string { return attachments(r.Attached, r.Boundary) }))

// ManagedPolicy is a customer managed policy. Those of AWS are not stored.
type ManagedPolicy struct {
	Account, Path, Name  string
	ID                   string // ANPA…
	Description          string
	Versions             []PolicyVersion // in the order they were made
	Default              string          // id of a version
	LastVersion          int             // numbering never restarts
	Tags                 []Tag
	CreatedAt, UpdatedAt time.Time
}

// PolicyVersion is one document of a managed policy.
type PolicyVersion struct {
	ID, Document string // v1
	CreatedAt    time.Time
}

// ARN is the policy's ARN.
func (p *ManagedPolicy) ARN() string { return iamARN(p.Account, "policy", p.Path, p.Name) }

// Document is the document of the default version.
func (p *ManagedPolicy) Document() string {
	for _, v := range p.Versions {
		if v.ID == p.Default {
			return v.Document
		}
	}
	return ""
}

// ManagedPolicies is keyed by account/name; index "arn".
var ManagedPolicies = store.NewTable("policy", func(p *ManagedPolicy) string { return IAMKey(p.Account, p.Name) },
	store.Index("arn", func(p *ManagedPolicy) []string { return []string{p.ARN()} }))

// Group is a set of users. Its members name it.
type Group struct {
	Account, Path, Name string
	ID                  string // AGPA…
	Inline              []InlinePolicy
	Attached            []string
	CreatedAt           time.Time
}

// ARN is the group's ARN.
func (g *Group) ARN() string { return iamARN(g.Account, "group", g.Path, g.Name) }

// Groups is keyed by account/name.
var Groups = store.NewTable("group", func(g *Group) string { return IAMKey(g.Account, g.Name) },
	store.Index("policy", func(g *Group) []string { return attachments(g.Attached, "") }))

// InstanceProfile hands a role to instances.
type InstanceProfile struct {
	Account, Path, Name string
	ID                  string // AIPA…
	Role                string // name, "" for none
	Tags                []Tag
	CreatedAt           time.Time
}

// ARN is the profile's ARN.
func (p *InstanceProfile) ARN() string { return iamARN(p.Account, "instance-profile", p.Path, p.Name) }

// InstanceProfiles is keyed by account/name.
var InstanceProfiles = store.NewTable("profile", func(p *InstanceProfile) string { return IAMKey(p.Account, p.Name) },
	store.Index("role", func(p *InstanceProfile) []string {
		if p.Role == "" {
			return nil
		}
		return []string{IAMKey(p.Account, p.Role)}
	}))

// iamARN builds the ARN of an entity; path begins and ends with a slash.
func iamARN(account, kind, path, name string) string {
	return "arn:aws:iam::" + account + ":" + kind + path + name
}

// attachments are the values of the "policy" indexes: the ARNs of attached
// policies, and that of the boundary behind a mark of its own.
func attachments(attached []string, boundary string) []string {
	if boundary == "" {
		return attached
	}
	return append(append([]string(nil), attached...), BoundaryIndex+boundary)
}

// BoundaryIndex precedes an ARN in the "policy" indexes where it is a boundary.
const BoundaryIndex = "boundary:"
