package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/backup"
)

func (c *cli) tokenCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "token", Short: "Tokens for the daemon's TCP address", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.tokenCreateCommand(), c.tokenListCommand(), c.tokenRevokeCommand())
	return group
}

func (c *cli) tokenCreateCommand() *cobra.Command {
	var f socketFlags
	var words []string
	var days int
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a token and print it, once", Args: cobra.ExactArgs(1),
		Long: `Makes a token and prints it on standard output. It is shown now and never again: the daemon keeps only its hash. NAME says who or what will use it
and stands in the audit log.`,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			wanted := api.NewToken{Name: args[0], Days: days}
			for _, w := range words {
				wanted.Scopes = append(wanted.Scopes, api.Scope(w))
			}
			t, err := d.CreateToken(ctx, wanted)
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(c.stdout, struct {
					APIVersion string `json:"api_version"`
					api.IssuedToken
				}{backup.APIVersion, t})
			}
			say(c.stderr, fmt.Sprintf("token %s may %s until %s; it is not shown again", t.Name, scopesOf(t.Token), stamp(&t.ExpiresAt)))
			_, err = fmt.Fprintln(c.stdout, t.Secret)
			return err
		}),
	}
	f.flags(cmd)
	all := []string{string(api.Viewer), string(api.Operator), string(api.Restore), string(api.Credentials), string(api.Admin)}
	cmd.Flags().StringSliceVar(&words, "scope", []string{string(api.Viewer)}, "what it may do, separated by commas: "+strings.Join(all, ", "))
	cmd.Flags().IntVar(&days, "days", 90, "how many days it is valid, at most 366")
	if err := cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is there, and has no other completion
	}
	return cmd
}

func scopesOf(t api.Token) string {
	words := make([]string, len(t.Scopes))
	for n, s := range t.Scopes {
		words[n] = string(s)
	}
	return strings.Join(words, ",")
}

func (c *cli) tokenListCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the tokens; none is shown itself", Args: cobra.NoArgs,
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, _ []string) error {
			tokens, err := d.Tokens(ctx)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, t := range tokens {
				rows = append(rows, []string{t.Name, scopesOf(t), tokenState(t, c.now()), stamp(&t.CreatedAt), t.CreatedBy, stamp(&t.ExpiresAt), stamp(t.LastUsedAt)})
			}
			return c.printList(f.output, "tokens", some(tokens), "NAME|SCOPES|STATE|CREATED|BY|EXPIRES|LAST USED", rows)
		}),
	}
	f.flags(cmd)
	return cmd
}

func tokenState(t api.Token, now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked"
	case !now.Before(t.ExpiresAt):
		return "expired"
	}
	return "valid"
}

func (c *cli) tokenRevokeCommand() *cobra.Command {
	var f socketFlags
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Make a token invalid at once", Args: cobra.ExactArgs(1),
		RunE: c.asked(&f, func(ctx context.Context, d *client.Client, args []string) error {
			tokens, err := d.Tokens(ctx)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(tokens, func(t api.Token) bool { return t.Name == args[0] || t.ID == args[0] })
			if i < 0 {
				return &notThere{"SF1717", fmt.Sprintf("there is no token %q", args[0])}
			}
			if err := d.RevokeToken(ctx, tokens[i].ID); err != nil {
				return err
			}
			return c.printList(f.output, "revoked", []string{tokens[i].Name}, "REVOKED", [][]string{{tokens[i].Name}})
		}),
	}
	f.flags(cmd)
	cmd.ValidArgsFunction = c.completed(&f, 1, tokenNames)
	return cmd
}
