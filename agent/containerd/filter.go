package containerd

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// filterAnnotation gives crun a seccomp filter as the kernel takes it, in place
// of the profile in the spec. A runtime that does not know it goes by the
// profile, which says the same.
const filterAnnotation = "run.oci.seccomp_bpf_data"

// Making the kernel's filter from a profile takes crun longer than all else
// that it does for a container, and containers hardly differ in their profiles.
// So the filter that crun has made for one is given to it for the next with the
// same profile. It is crun's own work, read from where only root can write.

// withFilter adds to a spec the filter of its profile, if there is one yet. Key
// is under which keepFilter is to keep it: "" if it has one, or can have none.
func (r *Runtime) withFilter(spec *specs.Spec) (key string, err error) {
	if filepath.Base(r.cfg.OCIRuntime) != "crun" || spec.Linux.Seccomp == nil {
		return "", nil
	}
	profile, err := json.Marshal(spec.Linux.Seccomp)
	if err != nil {
		return "", err
	}
	filter, ok := r.filters.get(string(profile))
	if !ok {
		return string(profile), nil
	}
	if filter != "" {
		spec.Annotations[filterAnnotation] = filter
	}
	return "", nil
}

// keepFilter keeps the filter that crun has just made for a container. A crun
// that keeps them itself needs no help, and might not take it.
func (r *Runtime) keepFilter(key, id string) {
	if key == "" {
		return
	}
	if _, err := os.Stat(filepath.Join(r.ociRoot(), ".cache", "seccomp")); err == nil {
		r.filters.put(key, "")
		return
	}
	// Without it the next container is merely slower.
	b, err := os.ReadFile(filepath.Join(r.ociRoot(), id, "seccomp.bpf"))
	if err == nil && isFilter(b) {
		r.filters.put(key, base64.StdEncoding.EncodeToString(b))
	}
}

// isFilter tells whether a file is a whole number of instructions, as many as
// the kernel takes.
func isFilter(b []byte) bool {
	const instruction, most = 8, 4096
	return len(b) > 0 && len(b)%instruction == 0 && len(b)/instruction <= most
}
