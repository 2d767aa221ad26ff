package managed

import (
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/auth/policy"
)

func TestDocuments(t *testing.T) {
	files, err := documents.ReadDir("documents")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(policies) {
		t.Errorf("%d documents, %d policies", len(files), len(policies))
	}
	for _, p := range All() {
		if _, err := policy.Parse(p.Document, policy.Identity); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if found, ok := Find(p.ARN()); !ok || found != p {
			t.Errorf("%s is not found by its ARN", p.ARN())
		}
	}
	if !slices.IsSortedFunc(policies, func(a, b *Policy) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
}
