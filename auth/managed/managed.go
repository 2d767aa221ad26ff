// Package managed holds the policies that AWS itself manages, as far as the
// services of this region use them: name, path, version and document.
//
// ReadOnlyAccess lists only the actions of services that exist here; the other
// documents are whole. The package must never decide anything with them.
package managed

import (
	"embed"
	"slices"
	"strings"
	"time"
)

// Prefix begins the ARN of every AWS managed policy.
const Prefix = "arn:aws:iam::aws:policy"

// A Policy is one AWS managed policy.
type Policy struct {
	Name, Path string
	Version    string // id of the default version, the only one kept
	Document   string
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// ARN is the policy's ARN.
func (p *Policy) ARN() string { return Prefix + p.Path + p.Name }

//go:embed documents/*.json
var documents embed.FS

var policies = []*Policy{
	define("AdministratorAccess", "/", "v1", "2015-02-06T18:39:46Z", "2015-02-06T18:39:46Z"),
	define("AmazonEC2ContainerRegistryFullAccess", "/", "v3", "2015-12-21T17:06:48Z", "2020-12-05T00:04:19Z"),
	define("AmazonEC2ContainerRegistryPowerUser", "/", "v3", "2015-12-21T17:05:33Z", "2019-12-10T20:48:08Z"),
	define("AmazonEC2ContainerRegistryPullOnly", "/", "v1", "2024-10-04T16:58:49Z", "2024-10-04T16:58:49Z"),
	define("AmazonEC2ContainerRegistryReadOnly", "/", "v3", "2015-12-21T17:04:15Z", "2019-12-10T20:56:32Z"),
	define("AmazonEC2ContainerServiceforEC2Role", "/service-role/", "v10", "2015-03-19T18:45:18Z", "2026-02-12T17:59:52Z"),
	define("AmazonECSTaskExecutionRolePolicy", "/service-role/", "v1", "2017-11-16T18:48:22Z", "2017-11-16T18:48:22Z"),
	define("AmazonECS_FullAccess", "/", "v21", "2017-11-07T21:36:54Z", "2024-08-13T19:39:37Z"),
	define("AmazonSSMManagedInstanceCore", "/", "v2", "2019-03-15T17:22:12Z", "2019-05-23T16:54:21Z"),
	define("CloudWatchLogsFullAccess", "/", "v8", "2015-02-06T18:40:02Z", "2026-02-12T18:00:33Z"),
	define("IAMFullAccess", "/", "v2", "2015-02-06T18:40:38Z", "2019-06-21T19:40:00Z"),
	define("PowerUserAccess", "/", "v12", "2015-02-06T18:39:47Z", "2026-02-12T17:59:14Z"),
	define("ReadOnlyAccess", "/", "v182", "2015-02-06T18:39:48Z", "2026-04-03T15:27:12Z"),
}

var byARN = func() map[string]*Policy {
	m := make(map[string]*Policy, len(policies))
	for _, p := range policies {
		m[p.ARN()] = p
	}
	return m
}()

// Find is the policy with the ARN.
func Find(arn string) (*Policy, bool) {
	if !strings.HasPrefix(arn, Prefix) {
		return nil, false
	}
	p, ok := byARN[arn]
	return p, ok
}

// All is every policy, sorted by name.
func All() []*Policy { return slices.Clone(policies) }

// define reads a document that is part of the program; a test covers them all.
func define(name, path, version, created, updated string) *Policy {
	doc, err := documents.ReadFile("documents/" + name + ".json")
	if err != nil {
		panic(err)
	}
	at := func(s string) time.Time {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			panic(err)
		}
		return t
	}
	return &Policy{Name: name, Path: path, Version: version, Document: string(doc), CreatedAt: at(created), UpdatedAt: at(updated)}
}
