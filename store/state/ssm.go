package state

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth/store"
)

// Parameter is a parameter of the Parameter Store. Its versions are rows of
// their own; Latest is the newest.
type Parameter struct {
	Account, Name string
	Latest        int
	Tags          []Tag
	CreatedAt     time.Time
}

// ParameterKey is the key of a parameter.
func ParameterKey(account, name string) string { return account + ":" + name }

// Parameters is keyed by account:name.
var Parameters = store.NewTable("parameter", func(p *Parameter) string { return ParameterKey(p.Account, p.Name) },
	store.Index("account", func(p *Parameter) []string { return []string{p.Account} }))

// ParameterVersion is one value of a parameter and what was said with it.
type ParameterVersion struct {
	Account, Name  string
	Version        int
	Type           string // String, StringList, SecureString
	Value          string
	KeyID          string // of SecureString, as it was given
	Description    string
	AllowedPattern string
	Tier           string // Standard, Advanced
	DataType       string // text, aws:ec2:image, aws:ssm:integration
	Policies       string // as they were given
	Labels         []string
	ModifiedBy     string // ARN
	ModifiedAt     time.Time
}

// ParameterVersionKey is the key of a version.
func ParameterVersionKey(account, name string, version int) string {
	return fmt.Sprintf("%s:%08d", ParameterKey(account, name), version)
}

// ParameterVersions is keyed by account:name:version. All values are sealed:
// there is nothing to win by keeping some of them readable.
var ParameterVersions = store.NewTable("parameter-version", func(v *ParameterVersion) string {
	return ParameterVersionKey(v.Account, v.Name, v.Version)
}, store.Index("parameter", func(v *ParameterVersion) []string { return []string{ParameterKey(v.Account, v.Name)} }), store.Sealed())

// FindParameter is the version of a parameter of the account that a selector
// (a number or a label, "" for the newest) names.
func FindParameter(r store.Reader, account, name, selector string) (p *ParameterVersion, exists bool) {
	row, ok := Parameters.Get(r, ParameterKey(account, name))
	if !ok {
		return nil, false
	}
	n := row.Latest
	if selector != "" {
		var err error
		if n, err = strconv.Atoi(selector); err != nil {
			for v := range ParameterVersions.By(r, "parameter", ParameterKey(account, name)) {
				for _, l := range v.Labels {
					if l == selector {
						return v, true
					}
				}
			}
			return nil, true
		}
	}
	v, _ := ParameterVersions.Get(r, ParameterVersionKey(account, name, n))
	return v, true
}

// ResolveImage is the id of the image that an ImageId names: itself, or what
// resolve:ssm:parameter says now.
func ResolveImage(r store.Reader, account, region, image string) (string, bool) {
	name, ok := strings.CutPrefix(image, "resolve:ssm:")
	if !ok {
		return image, true
	}
	if strings.HasPrefix(name, "arn:") {
		if AccountOf(name) != account && AccountOf(name) != "" {
			return "", false
		}
		_, path, _ := strings.Cut(name, ":parameter/")
		name = "/" + path
	}
	name, selector, _ := strings.Cut(name, ":")
	if p, ok := PublicParameterValue(region, name); ok && (selector == "" || selector == "1") {
		return p.Value, true
	}
	if v, _ := FindParameter(r, account, name, selector); v != nil && v.Type == "String" {
		return v.Value, true
	}
	return "", false
}
