package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) env() *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print the lines that point AWS tools at the region",
		Long:  "Print shell lines that point the AWS CLI and SDKs at the region, as the account's\nroot user:\n\n  eval \"$(" + a.self + " env)\"",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			env, err := a.roles.Environment(c.Context(), a.dataDir)
			if err != nil {
				return a.needRoot(err, "env")
			}
			for _, v := range [][2]string{
				{"AWS_ENDPOINT_URL", env.Endpoint},
				{"AWS_ACCESS_KEY_ID", env.AccessKeyID},
				{"AWS_SECRET_ACCESS_KEY", env.SecretAccessKey},
				{"AWS_REGION", env.Region},
				{"AWS_DEFAULT_REGION", env.Region},
			} {
				a.out.printf("export %s=%s\n", v[0], shellQuote(v[1]))
			}
			if _, old := ignoresEndpoint(); old {
				a.out.printf("%s\n", endpointFunction)
			}
			return nil
		},
	}
}

// shellQuote makes s one word of a POSIX shell.
func shellQuote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
