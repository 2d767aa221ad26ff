package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) up() *cobra.Command {
	var o UpOptions
	var listen, region, account, throttle string
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a region on this machine",
		Long: "Start a region on this machine: the API, the container runtime, the network.\n\n" +
			"Without --detach it runs until interrupted. A region that was started before\nstarts again with what it had; its running tasks are left alone.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			flags := c.Flags()
			for _, f := range []struct {
				name  string
				value string
				to    *string
				check func(string) error
			}{
				{"listen", listen, &o.Listen, checkListen},
				{"region", region, &o.Region, checkRegion},
				{"account", account, &o.Account, checkAccount},
				{"throttle", throttle, &o.Throttle, checkThrottle},
			} {
				if !flags.Changed(f.name) {
					continue
				}
				if err := f.check(f.value); err != nil {
					return usage{fmt.Errorf("--%s: %w", f.name, err)}
				}
				*f.to = f.value
			}
			if o.HealthyAfter < 0 {
				return usage{errors.New("--healthy-after: a time cannot be negative")}
			}
			if os.Geteuid() != 0 {
				return WithHint(errors.New("a region needs root: it makes containers and networks"), "sudo "+a.command("up"))
			}
			o.DataDir = a.dataDir
			o.Progress = a.err.progress()
			start := time.Now()
			o.Ready = func() { a.ready(c, time.Since(start), false) }
			err := a.roles.Up(c.Context(), o)
			switch {
			case errors.Is(err, ErrRunning):
				a.running(c)
			case err != nil:
				return a.explain(err)
			case o.Detach:
				a.ready(c, time.Since(start), true)
			}
			return nil
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.Detach, "detach", "d", false, "return once the region answers, and leave it running")
	f.StringVar(&listen, "listen", DefaultListen, "address and port of the API, HTTP and HTTPS alike")
	f.StringVar(&region, "region", DefaultRegion, "name of the region")
	f.StringVar(&account, "account", DefaultAccount, "id of the account")
	f.StringVar(&throttle, "throttle", "100", "how often an account may call: aws for what AWS allows, a factor of that, or off; the region remembers it")
	f.StringVar(&o.Containerd, "containerd", "", "use the machine's containerd at this address instead of Berth's own")
	f.DurationVar(&o.HealthyAfter, "healthy-after", DefaultHealthyAfter, "how long a container without a health check must run to count as healthy")
	return c
}

// ready says that the region answers, and what to do with it.
func (a *app) ready(c *cobra.Command, took time.Duration, detached bool) {
	env, err := a.roles.Environment(c.Context(), a.dataDir)
	if err != nil { // it is up, but who looks may not ask
		a.err.printf("The region is up (%s).\n", seconds(took))
		return
	}
	a.err.printf("%s Region %s is up at %s (%s).\n\n", a.err.green("✓"), a.err.bold(env.Region), a.err.bold(env.Endpoint), seconds(took))
	if !detached {
		a.err.printf("In another terminal:\n")
	}
	a.err.printf("  eval \"$(%s)\"\n  aws ecs list-clusters\n\n", a.command("env"))
	if detached {
		a.err.printf("%s shows it, %s stops it.\n", a.command("status"), a.command("down"))
	} else {
		a.err.printf("Interrupt stops it.\n")
	}
}

// running says that there was nothing to start.
func (a *app) running(c *cobra.Command) {
	where := "on " + a.dataDir
	if env, err := a.roles.Environment(c.Context(), a.dataDir); err == nil {
		where = "at " + a.err.bold(env.Endpoint)
	}
	a.err.printf("%s The region is already running %s; nothing was changed.\n%s shows it, %s stops it.\n",
		a.err.green("✓"), where, a.command("status"), a.command("down"))
}

// explain adds a hint to what usually goes wrong at the start.
func (a *app) explain(err error) error {
	var h *hinted
	if errors.As(err, &h) {
		return err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "listen" {
		return WithHint(err, "Another program has the address. "+a.command("up --listen 127.0.0.1:4567")+" takes another port.")
	}
	return WithHint(err, a.command("doctor")+" checks this machine, "+a.command("logs")+" shows what the processes said.")
}

func (a *app) down() *cobra.Command {
	var purge bool
	c := &cobra.Command{
		Use:   "down",
		Short: "Stop the region and its tasks; its data stays",
		Long:  "Stop everything that the region runs on this machine and take what it put into\nthe kernel out of it. The data stays, unless --purge is given.",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return WithHint(errors.New("stopping a region needs root"), "sudo "+a.command("down"))
			}
			start := time.Now()
			err := a.roles.Down(c.Context(), a.dataDir, purge, a.err.progress())
			switch {
			case errors.Is(err, ErrNotRunning):
				a.err.printf("No region is running on %s.\n", a.dataDir)
				return nil
			case err != nil:
				return err
			}
			what := "Its data stays in " + a.dataDir + "; " + a.command("down --purge") + " removes it."
			if purge {
				what = "Its data is removed."
			}
			a.err.printf("%s The region is down (%s). %s\n", a.err.green("✓"), seconds(time.Since(start)), what)
			return nil
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "remove the data too")
	return c
}

func checkListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return err
	}
	return nil
}

// regions are those of AWS's partition aws. Tools look a region up in lists of
// their own, and refuse or misroute what is in none.
var regions = []string{
	"us-east-1", "us-east-2", "us-west-1", "us-west-2", "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2",
	"ap-northeast-3", "ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5",
	"ap-southeast-6", "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2",
	"eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1",
}

func checkRegion(s string) error {
	if slices.Contains(regions, s) {
		return nil
	}
	if strings.HasPrefix(s, "us-gov-") || strings.HasPrefix(s, "cn-") {
		return fmt.Errorf("%q is of another partition: Berth's names all begin with arn:aws:", s)
	}
	return fmt.Errorf("AWS has no region %q; it has %s", s, strings.Join(regions, ", "))
}

func checkThrottle(s string) error {
	if s == "aws" || s == "off" {
		return nil
	}
	if f, err := strconv.ParseFloat(s, 64); err != nil || !(f >= 0.01 && f <= 1e6) {
		return fmt.Errorf("%q is not aws, off, or a factor from 0.01 to 1000000", s)
	}
	return nil
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

func checkAccount(s string) error {
	if !accountID.MatchString(s) {
		return fmt.Errorf("%q is not an account id of 12 digits", s)
	}
	return nil
}
