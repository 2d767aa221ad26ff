package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/ec2"
	"github.com/berth-run/berth/aws/ecr"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/iam"
	"github.com/berth-run/berth/aws/logs"
	"github.com/berth-run/berth/aws/sts"
	"github.com/berth-run/berth/aws/wire"
)

// pipeDelay is how long a finished command's pipes may stay open.
const pipeDelay = 5 * time.Second

// The services, as clients see them.
var (
	ECS  = ecs.NewService(ecs.Unimplemented{})
	EC2  = ec2.NewService(ec2.Unimplemented{})
	ECR  = ecr.NewService(ecr.Unimplemented{})
	IAM  = iam.NewService(iam.Unimplemented{})
	STS  = sts.NewService(sts.Unimplemented{})
	Logs = logs.NewService(logs.Unimplemented{})
)

// Identity is somebody who calls a region.
type Identity struct {
	Region                     *Region
	AccessKeyID, Secret, Token string
}

// Env are the variables that make AWS tools call the region as i, and read
// nothing of this machine's owner.
func (i Identity) Env() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(),
		"AWS_ENDPOINT_URL=" + i.Region.Endpoint, "AWS_REGION=" + i.Region.Name, "AWS_DEFAULT_REGION=" + i.Region.Name,
		"AWS_ACCESS_KEY_ID=" + i.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + i.Secret,
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
	}
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		env = append(env, "PYENV_ROOT="+root)
	}
	if i.Token != "" {
		env = append(env, "AWS_SESSION_TOKEN="+i.Token)
	}
	return env
}

// Call calls an operation. A refusal is a wire.Error.
func (i Identity) Call(ctx context.Context, svc *wire.Service, operation string, in, out any) error {
	signer := sigv4.Signer{AccessKeyID: i.AccessKeyID, Secret: i.Secret, Token: i.Token}
	c := &wire.Client{Endpoint: i.Region.Endpoint, Sign: func(r *http.Request, body []byte) error {
		signer.Sign(r, body, svc.SigningName, i.Region.Name, time.Now())
		return nil
	}}
	return c.Call(ctx, svc, operation, in, out)
}

// Do is Call for who wants the output and not a variable.
func Do[Out any](ctx context.Context, i Identity, svc *wire.Service, operation string, in any) (*Out, error) {
	out := new(Out)
	if err := i.Call(ctx, svc, operation, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// AWS is the command line of an `aws` command that calls the region. A CLI
// that does not know AWS_ENDPOINT_URL yet, as Debian 12's, is told by a flag.
func (i Identity) AWS(args ...string) ([]string, error) {
	knows, err := knowsEndpointURL()
	if err != nil {
		return nil, err
	}
	line := []string{"aws"}
	if !knows {
		line = append(line, "--endpoint-url", i.Region.Endpoint)
	}
	return append(line, args...), nil
}

// Exec runs an aws command and returns what it printed.
func (i Identity) Exec(ctx context.Context, args ...string) (string, error) {
	line, err := i.AWS(args...)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = i.Env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(line, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

var cliVersion = regexp.MustCompile(`aws-cli/([0-9]+)\.([0-9]+)`)

// knowsEndpointURL looks at the CLI: the variable came with 1.29 and 2.13.
func knowsEndpointURL() (bool, error) {
	major, minor, err := CLIVersion()
	return major > 2 || major == 2 && minor >= 13 || major == 1 && minor >= 29, err
}

// CLIVersion is the version of this machine's aws CLI.
func CLIVersion() (major, minor int, err error) {
	v, err := askCLIVersion()
	return v[0], v[1], err
}

var askCLIVersion = sync.OnceValues(func() (v [2]int, err error) {
	out, err := exec.Command("aws", "--version").CombinedOutput()
	if err != nil {
		return v, fmt.Errorf("the aws CLI: %w: %s", err, out)
	}
	m := cliVersion.FindSubmatch(out)
	if m == nil {
		return v, fmt.Errorf("the aws CLI's version is %q", out)
	}
	v[0], _ = strconv.Atoi(string(m[1]))
	v[1], _ = strconv.Atoi(string(m[2]))
	return v, nil
})

// HTTP opens pages. Every request has a connection of its own, because a test
// of a firewall is one of new connections; and names below localhost are this
// machine, whatever its resolver thinks.
var HTTP = &http.Client{
	Timeout: 10 * time.Second,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".localhost") {
				addr = net.JoinHostPort("127.0.0.1", port)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	},
}

// ErrLate says that something did not become so in time.
var ErrLate = errors.New("it did not become so in time")

// Until calls f until it is done or has failed, as the waiters of the SDKs do.
func Until(ctx context.Context, f func(ctx context.Context) (done bool, err error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := f(ctx)
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrLate, ctx.Err())
		case <-tick.C:
		}
	}
}

// Impatience is how long an answer that must not come is waited for.
const Impatience = 700 * time.Millisecond
