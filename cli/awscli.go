package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// The AWS CLI reads AWS_ENDPOINT_URL since 2.13 and 1.29. An older one, as in
// Debian 12, would take the region's keys to AWS: it has to be told on its
// command line.

// `aws --version` says the version, after most of a second. What the shell's
// next line waits for reads it from where its installers keep it.

// installed are the packages of version 1, below the folder that has bin/aws.
var installed = []string{"lib/python3/dist-packages", "lib/python3*/dist-packages", "lib/python3*/site-packages"}

var (
	cliVersion  = regexp.MustCompile(`__version__ = '([0-9.]+)'`)
	bundledPath = regexp.MustCompile(`/aws-cli/v2/([0-9]+\.[0-9]+\.[0-9]+)/`)
)

// ignoresEndpoint reports whether the `aws` that the shell would run is too
// old, as far as that is seen without running it, and its version.
func ignoresEndpoint() (version string, old bool) {
	p, err := exec.LookPath("aws")
	if err != nil {
		return "", false
	}
	version = installedVersion(p)
	return version, version != "" && tooOldCLI(version)
}

// installedVersion is the version of the CLI at a path, "" if it cannot be seen.
func installedVersion(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if m := bundledPath.FindStringSubmatch(real); m != nil {
			return m[1]
		}
	}
	prefix := filepath.Dir(filepath.Dir(path))
	if prefix == "/" {
		prefix = "/usr" // /bin is /usr/bin
	}
	for _, dir := range installed {
		files, err := filepath.Glob(filepath.Join(prefix, dir, "awscli", "__init__.py"))
		if err != nil || len(files) == 0 {
			continue
		}
		b, err := os.ReadFile(files[len(files)-1])
		if err != nil {
			return ""
		}
		if m := cliVersion.FindSubmatch(b); m != nil {
			return string(m[1])
		}
	}
	return ""
}

func tooOldCLI(version string) bool {
	v, known := leadingVersion(version)
	return known && (v[0] == 1 && older(v, [2]int{1, 29}) || v[0] == 2 && older(v, [2]int{2, 13}))
}

// endpointFunction is a line for any POSIX shell that gives the endpoint to an
// `aws` which does not read it from the environment.
const endpointFunction = `aws() { command aws ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"} "$@"; }`

var shownVersion = regexp.MustCompile(`^aws-cli/(\S+)`)

func checkCLI(ctx context.Context) finding {
	if _, err := exec.LookPath("aws"); err != nil {
		return finding{warn, "the AWS CLI is not installed", "A region works without it, and with any other client: apt-get install awscli"}
	}
	out, err := exec.CommandContext(ctx, "aws", "--version").CombinedOutput()
	m := shownVersion.FindStringSubmatch(string(out))
	if err != nil || m == nil {
		return finding{warn, "the AWS CLI does not say its version: " + strings.TrimSpace(string(out)), ""}
	}
	if tooOldCLI(m[1]) {
		hint := "Give it --endpoint-url \"$AWS_ENDPOINT_URL\", or install 2.13 or later."
		if _, seen := ignoresEndpoint(); seen { // berth env sees it as well, and helps
			hint = "In the shell that evaluates berth env it works all the same. In scripts, give it\n--endpoint-url, or install 2.13 or later."
		}
		return finding{warn, "the AWS CLI is of version " + m[1] + ", which does not read AWS_ENDPOINT_URL", hint}
	}
	return good("AWS CLI %s", m[1])
}
