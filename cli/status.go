package cli

import (
	"context"
	"errors"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/auth/sigv4"
	"github.com/berth-run/berth/aws/ecs"
	"github.com/berth-run/berth/aws/wire"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the region's processes and what runs",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			st, err := a.roles.Status(c.Context(), a.dataDir)
			if err != nil {
				return a.needRoot(err, "status")
			}
			env, envErr := a.roles.Environment(c.Context(), a.dataDir)
			if errors.Is(envErr, os.ErrPermission) && os.Geteuid() != 0 {
				return a.needRoot(envErr, "status")
			}
			if envErr == nil {
				a.out.printf("Region %s, account %s, at %s, data in %s\n\n", a.out.bold(env.Region), env.Account, a.out.bold(env.Endpoint), a.dataDir)
			}
			a.processes(st.Processes, time.Now())
			if st.Runtime.Name != "" {
				a.out.printf("\nContainers are made by %s", st.Runtime.Name)
				if st.Runtime.Why != "" {
					a.out.printf(" (%s)", st.Runtime.Why)
				}
				a.out.printf(".\n")
			}
			if envErr != nil {
				a.err.printf("\n%s The server does not answer: %v\n", a.err.red("✗"), envErr)
				a.err.printf("  %s says why.\n", a.command("logs server"))
				return errReported
			}
			clusters, err := describeClusters(c.Context(), env)
			if err != nil {
				return WithHint(err, a.command("logs server")+" says why.")
			}
			a.out.printf("\n")
			w := tabwriter.NewWriter(a.out.w, 0, 0, 2, ' ', 0)
			t := console{w: w}
			t.printf("CLUSTER\tSERVICES\tRUNNING\tPENDING\n")
			for _, cl := range clusters {
				t.printf("%s\t%d\t%d\t%d\n", wire.Value(cl.ClusterName), wire.Value(cl.ActiveServicesCount), wire.Value(cl.RunningTasksCount), wire.Value(cl.PendingTasksCount))
			}
			return w.Flush()
		},
	}
}

func (a *app) processes(ps []Process, now time.Time) {
	w := tabwriter.NewWriter(a.out.w, 0, 0, 2, ' ', 0)
	t := console{w: w}
	t.printf("PROCESS\tPID\tMEMORY\tUP FOR\tRESTARTS\n")
	var sum uint64
	for _, p := range ps {
		if p.PID == 0 {
			t.printf("%s\t-\t-\t-\t%d\n", p.Name, p.Restarts)
			continue
		}
		up := "-"
		if !p.Started.IsZero() {
			up = seconds(now.Sub(p.Started))
		}
		t.printf("%s\t%d\t%s\t%s\t%d\n", p.Name, p.PID, mebibytes(p.RSS), up, p.Restarts)
		sum += p.RSS
	}
	t.printf("\t\t%s\t\t\n", mebibytes(sum))
	_ = w.Flush() // as printf
}

// describeClusters lists every cluster of the region.
func describeClusters(ctx context.Context, env Environment) (all []ecs.Cluster, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, api := client(env, "ecs"), ecs.NewService(ecs.Unimplemented{})
	in := &ecs.ListClustersInput{}
	for {
		var list ecs.ListClustersOutput
		if err := client.Call(ctx, api, "ListClusters", in, &list); err != nil {
			return nil, err
		}
		if len(list.ClusterArns) > 0 {
			var out ecs.DescribeClustersOutput
			if err := client.Call(ctx, api, "DescribeClusters", &ecs.DescribeClustersInput{Clusters: list.ClusterArns}, &out); err != nil {
				return nil, err
			}
			all = append(all, out.Clusters...)
		}
		if wire.Value(list.NextToken) == "" {
			return all, nil
		}
		in.NextToken = list.NextToken
	}
}

// client calls a service of the region as its root user.
func client(env Environment, service string) *wire.Client {
	signer := sigv4.Signer{AccessKeyID: env.AccessKeyID, Secret: env.SecretAccessKey}
	return &wire.Client{Endpoint: env.Endpoint, Sign: func(r *http.Request, body []byte) error {
		signer.Sign(r, body, service, env.Region, time.Now())
		return nil
	}}
}

// needRoot is a hint for what only the owner of the region may see.
func (a *app) needRoot(err error, line string) error {
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		return WithHint(errors.New("only the owner of the region may ask it that"), "sudo "+a.command(line))
	}
	return err
}
