package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
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

// region is how to call a region.
type region struct {
	endpoint, name string
	root           sigv4.Signer
}

// start makes sure that a region runs and learns how to reach it.
func (d *demo) start(ctx context.Context) error {
	if r, err := d.environment(ctx); err == nil {
		d.region = r
		d.show.done("a region runs already at %s", r.endpoint)
	} else {
		args := []string{"up", "--detach"}
		if d.dataDir != "" {
			args = append(args, "--data-dir", d.dataDir)
		}
		if d.listen != "" {
			args = append(args, "--listen", d.listen)
		}
		d.show.doing("%s %s", d.berth, strings.Join(args, " "))
		began := time.Now()
		cmd := exec.CommandContext(ctx, d.berth, args...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s up: %w\n%s", d.berth, err, out)
		}
		if d.region, err = d.environment(ctx); err != nil {
			return err
		}
		d.show.done("region %s is up at %s after %.1f s", d.region.name, d.region.endpoint, time.Since(began).Seconds())
	}
	var me sts.GetCallerIdentityOutput
	if err := d.region.call(ctx, d.region.root, stsAPI, "GetCallerIdentity", &sts.GetCallerIdentityInput{}, &me); err != nil {
		return err
	}
	d.show.done("we are %s", wire.Value(me.Arn))
	return nil
}

// environment reads what `berth env` prints.
func (d *demo) environment(ctx context.Context) (*region, error) {
	args := []string{"env"}
	if d.dataDir != "" {
		args = append(args, "--data-dir", d.dataDir)
	}
	cmd := exec.CommandContext(ctx, d.berth, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s env: %w: %s", d.berth, err, bytes.TrimSpace(stderr.Bytes()))
	}
	env := map[string]string{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "="); ok {
			env[name] = strings.Trim(value, "'")
		}
	}
	r := &region{endpoint: env["AWS_ENDPOINT_URL"], name: env["AWS_REGION"],
		root: sigv4.Signer{AccessKeyID: env["AWS_ACCESS_KEY_ID"], Secret: env["AWS_SECRET_ACCESS_KEY"]}}
	if r.endpoint == "" || r.name == "" || r.root.AccessKeyID == "" {
		return nil, fmt.Errorf("%s env printed no region", d.berth)
	}
	return r, nil
}

var (
	ec2API  = ec2.NewService(ec2.Unimplemented{})
	ecrAPI  = ecr.NewService(ecr.Unimplemented{})
	ecsAPI  = ecs.NewService(ecs.Unimplemented{})
	iamAPI  = iam.NewService(iam.Unimplemented{})
	logsAPI = logs.NewService(logs.Unimplemented{})
	stsAPI  = sts.NewService(sts.Unimplemented{})
)

// call calls an operation as the owner of a key.
func (r *region) call(ctx context.Context, who sigv4.Signer, api *wire.Service, operation string, in, out any) error {
	c := &wire.Client{Endpoint: r.endpoint, HTTP: &http.Client{Transport: httpTransport}, Sign: func(req *http.Request, body []byte) error {
		who.Sign(req, body, api.SigningName, r.name, time.Now())
		return nil
	}}
	return c.Call(ctx, api, operation, in, out)
}

// do calls an operation as the root user. An error with the code in fine is
// none: what was to be made is there.
func (r *region) do(ctx context.Context, api *wire.Service, operation string, in, out any, fine ...string) error {
	err := r.call(ctx, r.root, api, operation, in, out)
	for _, code := range fine {
		if err != nil && wire.Code(err) == code {
			return nil
		}
	}
	return err
}

// httpTransport finds names under localhost on this machine, as browsers and curl
// do; the system's resolver need not.
var httpTransport = func() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	var dialer net.Dialer
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(address); err == nil && strings.HasSuffix(host, ".localhost") {
			address = net.JoinHostPort("127.0.0.1", port)
		}
		return dialer.DialContext(ctx, network, address)
	}
	return t
}()

// get returns the text at a URL.
func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: httpTransport, Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return strings.TrimSpace(string(b)), nil
}
