package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth/docs"
)

func (a *app) coverage() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "coverage [service]",
		Short: "List the AWS operations that this version answers",
		Long:  "List the AWS operations that this version answers, and the fields that it keeps\nwithout acting on them. All other operations answer an error that names them.",
		Args:  func(c *cobra.Command, args []string) error { return asUsage(cobra.MaximumNArgs(1)(c, args)) },
		RunE: func(c *cobra.Command, args []string) error {
			all, err := docs.Coverage()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				i := slices.IndexFunc(all, func(s docs.Service) bool { return s.Name == args[0] })
				if i < 0 {
					return usage{fmt.Errorf("no service %q", args[0])}
				}
				all = all[i : i+1]
			}
			if asJSON {
				e := json.NewEncoder(a.out.w)
				e.SetIndent("", "  ")
				return e.Encode(all)
			}
			if len(args) == 0 {
				w := tabwriter.NewWriter(a.out.w, 0, 0, 2, ' ', 0)
				t := console{w: w}
				t.printf("SERVICE\tANSWERED\tOF\tFIELDS ONLY KEPT\n")
				for _, s := range all {
					t.printf("%s\t%d\t%d\t%d\n", s.Name, len(s.Answered), len(s.Answered)+len(s.Missing), len(s.Stored))
				}
				if err := w.Flush(); err != nil {
					return err
				}
				a.out.printf("\n%s lists the operations of one, --json all of it.\n", a.self+" coverage ecs")
				return nil
			}
			for _, s := range all {
				a.out.printf("%s\n", a.out.bold(s.Title))
				for _, op := range s.Answered {
					a.out.printf("  %s %s\n", a.out.green("✓"), op)
				}
				for _, op := range s.Missing {
					a.out.printf("  %s %s\n", a.out.dim("-"), a.out.dim(op))
				}
				if len(s.Stored) > 0 {
					a.out.printf("Kept without being acted on:\n")
				}
				for _, f := range slices.Sorted(maps.Keys(s.Stored)) {
					a.out.printf("  %s: %s\n", f, s.Stored[f])
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
