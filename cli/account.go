package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// Accounts and quotas are asked for on the socket that gives away the root
// keys: whoever may open that may do everything already.

const (
	accountsPath = "/_berth/accounts"
	quotasPath   = "/_berth/quotas"
)

// ask makes a request of the owner and decodes the answer into out.
func (a *app) ask(ctx context.Context, line, method, path string, in, out any) error {
	res, err := a.request(ctx, line, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// request is ask for those who read the answer themselves.
func (a *app) request(ctx context.Context, line, method, path string, in any) (*http.Response, error) {
	if a.roles.Owner == nil {
		return nil, errors.New("this build has no region to ask")
	}
	res, err := a.roles.Owner(ctx, a.dataDir, method, path, in)
	if err != nil {
		return nil, a.needRoot(err, line)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	var problem struct {
		Message string `json:"message"`
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil || json.Unmarshal(b, &problem) != nil || problem.Message == "" {
		return nil, fmt.Errorf("the server answers %s", res.Status)
	}
	return nil, errors.New(problem.Message)
}

// oneArg is one argument, called name.
func oneArg(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage{fmt.Errorf("give one %s", name)}
		}
		return nil
	}
}

func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(commands...)
	return c
}

func (a *app) account() *cobra.Command {
	return group("account", "Make, list and delete accounts",
		"A region holds as many accounts as you like, and nothing of one is seen from\nanother: one for each test, for instance.",
		a.accountCreate(), a.accountList(), a.accountDelete())
}

func (a *app) accountCreate() *cobra.Command {
	var id string
	c := &cobra.Command{
		Use:   "create",
		Short: "Make an account; prints access key, secret key and account id",
		Long: "Make an account with what an AWS account begins with, and print the access key\nand secret key of its root user and its id, on one line:\n\n" +
			"  read -r AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY account < <(" + a.self + " account create)",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("id") {
				if err := checkAccount(id); err != nil {
					return usage{fmt.Errorf("--id: %w", err)}
				}
			}
			var made struct{ ID, AccessKeyID, SecretAccessKey string }
			if err := a.ask(c.Context(), "account create", http.MethodPost, accountsPath, map[string]string{"id": id}, &made); err != nil {
				return err
			}
			a.out.printf("%s %s %s\n", made.AccessKeyID, made.SecretAccessKey, made.ID)
			return nil
		},
	}
	c.Flags().StringVar(&id, "id", "", "id of the account, 12 digits; without it, one that is free")
	return c
}

func (a *app) accountList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the accounts and what they hold",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []struct {
				ID        string
				CreatedAt time.Time
				Closing   bool
				First     bool
				Holds     map[string]int
			}
			if err := a.ask(c.Context(), "account list", http.MethodGet, accountsPath, nil, &list); err != nil {
				return err
			}
			w := tabwriter.NewWriter(a.out.w, 0, 0, 2, ' ', 0)
			t := console{w: w}
			t.printf("ACCOUNT\tCREATED\tSERVICES\tTASKS\tREPOSITORIES\tLOG GROUPS\tROWS\t\n")
			for _, x := range list {
				rows := 0
				for _, n := range x.Holds {
					rows += n
				}
				note := ""
				switch {
				case x.Closing:
					note = "is being deleted"
				case x.First:
					note = "the region's own"
				}
				t.printf("%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", x.ID, x.CreatedAt.UTC().Format(time.RFC3339), x.Holds["service"], x.Holds["task"],
					x.Holds["repository"], x.Holds["loggroup"], rows, note)
			}
			return w.Flush()
		},
	}
}

func (a *app) accountDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID",
		Short: "Delete an account and everything of it",
		Long: "Delete an account: its keys are refused at once, its tasks are stopped, and when\n" +
			"the command returns nothing of it is left. If it is interrupted the region goes\non by itself, and the same command waits for the end again.",
		Args: oneArg("account id"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkAccount(args[0]); err != nil {
				return usage{err}
			}
			start := time.Now()
			res, err := a.request(c.Context(), "account delete "+args[0], http.MethodDelete, accountsPath+"/"+args[0], nil)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			progress := a.err.progress()
			lines := json.NewDecoder(res.Body)
			for {
				var p struct {
					Services, Tasks, Interfaces int
					Done                        bool
					Error                       string
				}
				if err := lines.Decode(&p); err != nil {
					if c.Context().Err() != nil {
						return c.Context().Err()
					}
					return WithHint(fmt.Errorf("the server went away while account %s was being deleted", args[0]),
						"It goes on when the server is back; "+a.command("account delete "+args[0])+" waits for the end.")
				}
				switch {
				case p.Error != "":
					return WithHint(fmt.Errorf("account %s is gone, but its files are not: %s", args[0], p.Error), "The region tries again by itself.")
				case p.Done:
					a.err.printf("%s Account %s is gone (%s).\n", a.err.green("✓"), args[0], seconds(time.Since(start)))
					return nil
				case p.Tasks > 0:
					progress(fmt.Sprintf("stopping tasks: %d left", p.Tasks))
				case p.Interfaces > 0:
					progress(fmt.Sprintf("removing network interfaces: %d left", p.Interfaces))
				default:
					progress("removing what is left of account " + args[0])
				}
			}
		},
	}
}

func (a *app) quota() *cobra.Command {
	return group("quota", "List and set quotas",
		"Quotas are as AWS gives them to a new account, unless they are set. One that is\nset for an account holds there; one that is set without holds everywhere else.",
		a.quotaList(), a.quotaSet(), a.quotaReset())
}

// quotaPath is a quota's path, for an account or, with "", for all.
func quotaPath(name, account string) string {
	p := quotasPath
	if name != "" {
		p += "/" + (&url.URL{Path: name}).EscapedPath()
	}
	if account != "" {
		p += "?account=" + url.QueryEscape(account)
	}
	return p
}

// accountFlag adds --account. It returns the flag's check, too.
func accountFlag(c *cobra.Command, to *string, what string) func() error {
	c.Flags().StringVar(to, "account", "", what)
	return func() error {
		if *to == "" && !c.Flags().Changed("account") {
			return nil
		}
		if err := checkAccount(*to); err != nil {
			return usage{fmt.Errorf("--account: %w", err)}
		}
		return nil
	}
}

func (a *app) quotaList() *cobra.Command {
	var account string
	c := &cobra.Command{Use: "list", Short: "List the quotas", Args: noArgs}
	check := accountFlag(c, &account, "as they hold for this account")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := check(); err != nil {
			return err
		}
		var list []struct {
			Name           string
			Value, Default int
			Set            string
		}
		if err := a.ask(c.Context(), "quota list", http.MethodGet, quotaPath("", account), nil, &list); err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.out.w, 0, 0, 2, ' ', 0)
		t := console{w: w}
		t.printf("QUOTA\tVALUE\tON AWS\tSET FOR\n")
		for _, q := range list {
			set := map[string]string{"": "-", "account": "this account", "region": "all accounts"}[q.Set]
			t.printf("%s\t%d\t%d\t%s\n", q.Name, q.Value, q.Default, set)
		}
		return w.Flush()
	}
	return c
}

func (a *app) quotaSet() *cobra.Command {
	var account string
	c := &cobra.Command{Use: "set NAME VALUE", Short: "Set a quota", Args: func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usage{errors.New("give a quota and its value")}
		}
		return nil
	}}
	check := accountFlag(c, &account, "for this account only")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		n, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil || n < 0 {
			return usage{fmt.Errorf("%q is not a quota's value: a whole number from 0 to 2147483647", args[1])}
		}
		return a.ask(c.Context(), "quota set", http.MethodPut, quotaPath(args[0], account), map[string]int64{"value": n}, &struct{}{})
	}
	return c
}

func (a *app) quotaReset() *cobra.Command {
	var account string
	c := &cobra.Command{Use: "reset [NAME]", Short: "Give quotas AWS's values again", Args: func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage{errors.New("give one quota, or none for all")}
		}
		return nil
	}}
	check := accountFlag(c, &account, "what was set for this account only")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		name := ""
		if len(args) == 1 {
			name = args[0]
		}
		return a.ask(c.Context(), "quota reset", http.MethodDelete, quotaPath(name, account), nil, &struct{}{})
	}
	return c
}
