package cli

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// The AWS CLI reads AWS_ENDPOINT_URL since 2.13 and 1.29. An older one, as in
// Debian 12, would take the region's keys to AWS: it has to be told on its
// command line.

// debianCLI is where Debian's package keeps the version, which can be read a
// thousand times faster than `aws --version` says it.
const debianCLI = "/usr/lib/python3/dist-packages/awscli/__init__.py"

var cliVersion = regexp.MustCompile(`__version__ = '([0-9.]+)'`)

// ignoresEndpoint reports whether the `aws` that the shell would run is one
// from a package and too old, and its version.
func ignoresEndpoint(initFile string) (version string, old bool) {
	if p, err := exec.LookPath("aws"); err != nil || p != "/usr/bin/aws" && p != "/bin/aws" {
		return "", false
	}
	b, err := os.ReadFile(initFile)
	if err != nil {
		return "", false
	}
	m := cliVersion.FindSubmatch(b)
	if m == nil {
		return "", false
	}
	return string(m[1]), tooOldCLI(string(m[1]))
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
		return finding{warn, "the AWS CLI is of version " + m[1] + ", which does not read AWS_ENDPOINT_URL",
			"In the shell that evaluates berth env it works all the same. In scripts, give it\n--endpoint-url, or install 2.13 or later."}
	}
	return good("AWS CLI %s", m[1])
}
