package registry_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-run/berth/registry"
	"github.com/berth-run/berth/store"
	"github.com/berth-run/berth/store/state"
)

// The conformance suite of the OCI distribution specification, all of it, as
// its authors publish it: pull, push, content discovery, content management.
// It is a program, built from the module that tools/go.mod names. What it
// passes over because a registry lacks it counts as failed here.
func TestConformance(t *testing.T) {
	w := newWorld(t)
	w.repo("conformance/repo1")
	w.repo("conformance/repo2")
	w.update(func(tx *store.Tx) {
		state.RegistrySettings.Put(tx, &state.RegistrySetting{Account: account, Name: registry.BlobMounting, Value: registry.Enabled})
	})
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tools/go.mod", "conformance")
	cmd.Dir = ".."
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0",
		"OCI_REGISTRY="+strings.TrimPrefix(w.server.URL, "http://"), "OCI_TLS=disabled",
		"OCI_USERNAME=AWS", "OCI_PASSWORD="+w.password(root()),
		"OCI_REPO1=conformance/repo1", "OCI_REPO2=conformance/repo2",
		"OCI_VERSION=1.1", "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
		"OCI_RESULTS_DIR="+t.TempDir())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	// The program ends well, too, when it could not begin.
	if !regexp.MustCompile(`Result: Pass\n(.*\n)?.*Skip\.+:\s+0\n\s+Pass\.+:\s+[89]\d\d\n`).Match(out.Bytes()) {
		t.Errorf("not all was passed:\n%s", out.Bytes())
	}
}
