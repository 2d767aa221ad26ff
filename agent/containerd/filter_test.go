package containerd_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/agent/runtime"
)

// TestFilterIsTheProfiles: a container that is given the seccomp filter of an
// earlier one has, byte for byte, the one that crun makes of its own profile.
func TestFilterIsTheProfiles(t *testing.T) {
	profiles := [][]string{{"SYS_TIME"}, {"SYS_PACCT", "SYS_BOOT"}}
	made := make([][]byte, len(profiles))
	for round := range 2 {
		for i, caps := range profiles {
			b := create(t, runtime.Spec{Command: []string{"about"}, CapAdd: caps})
			content, err := os.ReadFile(filepath.Join(lab.dirs.State(), "io.containerd.runtime.v2.task", "berth-"+lab.id, b.id, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			var spec specs.Spec
			if err := json.Unmarshal(content, &spec); err != nil {
				t.Fatal(err)
			}
			if spec.Linux.Seccomp == nil {
				t.Error("the profile is gone")
			}
			given := spec.Annotations["run.oci.seccomp_bpf_data"] != ""
			if want := round == 1 && ociRuntime == "crun"; given != want {
				t.Errorf("round %d: is given a filter: %v, want %v", round, given, want)
			}
			if ociRuntime == "crun" {
				has, err := os.ReadFile(filepath.Join(lab.run, "a", "oci", "berth-"+lab.id, b.id, "seccomp.bpf"))
				if err != nil {
					t.Fatal(err)
				}
				if round == 0 {
					made[i] = has
				} else if !bytes.Equal(has, made[i]) {
					t.Errorf("%v: a filter of %d bytes, want that of %d", caps, len(has), len(made[i]))
				}
			}
			if a := b.about(); a.Seccomp != "2" {
				t.Errorf("seccomp %s", a.Seccomp)
			}
		}
	}
	if ociRuntime == "crun" && bytes.Equal(made[0], made[1]) {
		t.Error("two profiles have one filter")
	}
}
