package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/secret"
)

func (c *cli) credsCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "creds", Short: "Keep passwords where no file, log or command line shows them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.credsAddCommand(), c.credsListCommand(), c.credsRotateCommand(), c.credsRotateKeyCommand(), c.credsTestCommand(), c.credsRmCommand())
	return group
}

// credsFlags are those of every command of the group.
type credsFlags struct{ state, key, output string }

func (f *credsFlags) flags(cmd *cobra.Command) {
	stateFlag(cmd, &f.state)
	cmd.Flags().StringVar(&f.key, "store-key", "", "reference to the store's key, cred:NAME, file:/path or env:NAME (default STILLFRAME_STORE_KEY, else cred:store-key, else a key that the store makes)")
	outputFlag(cmd, &f.output)
}

// secrets names the store of secrets in the state folder.
func (c *cli) secrets(f credsFlags) (*secret.Store, error) {
	dir, err := c.stateDir(f.state)
	if err != nil {
		return nil, err
	}
	o := secret.StoreOptions{Getenv: c.getenv, Now: c.now}
	if text := first(f.key, c.getenv("STILLFRAME_STORE_KEY")); text != "" {
		if o.Key, err = secret.ParseRef(text); err != nil {
			return nil, fmt.Errorf("--store-key or STILLFRAME_STORE_KEY: %w", err)
		}
	}
	return secret.OpenStore(filepath.Join(dir, "creds"), o)
}

// oneName takes the name of a secret. What breaks the rule for names is not repeated: it may be the password.
func oneName(cmd *cobra.Command, args []string) error {
	err := cobra.ExactArgs(1)(cmd, args)
	if err == nil {
		_, err = secret.InStore(args[0])
	}
	if err != nil {
		return &usageError{err}
	}
	return nil
}

// names completes the names of the store.
func (c *cli) names(f *credsFlags) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		store, err := c.secrets(*f)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		entries, err := store.List()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for _, e := range entries {
			names = append(names, cobra.CompletionWithDesc(e.Name, e.Scope))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// credential is one secret of the store, as -o json prints it. Fields are only ever added.
type credential struct {
	APIVersion string       `json:"api_version"`
	Credential secret.Entry `json:"credential"`
}

// tell prints what was done to one secret.
func (c *cli) tell(f credsFlags, done string, e secret.Entry) error {
	if f.output == "json" {
		return writeJSON(c.stdout, credential{backup.APIVersion, e})
	}
	_, err := fmt.Fprintln(c.stdout, printable(fmt.Sprintf("%s store:%s, user %s", done, e.Name, cmp.Or(e.User, "-"))))
	return err
}

func (c *cli) credsAddCommand() *cobra.Command {
	var f credsFlags
	var user, scope string
	var piped bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Put a password into the store", Args: oneName,
		Long: `Asks the terminal for a password, twice and without echo, and seals it under NAME; store:NAME then leads to it. With
--password-stdin the password is all of standard input, one newline cut. It is never taken from the command line.

The first secret makes the store and, unless a key is named, a key beside it: docs/credentials.md says what that is worth.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := c.secrets(f)
			if err != nil {
				return err
			}
			before, err := store.Key()
			if err != nil {
				return err
			}
			password, err := c.password(cmd, args[0], piped)
			if err != nil {
				return err
			}
			entry, err := store.Add(cmd.Context(), secret.Entry{Name: args[0], User: user, Scope: scope}, password)
			if err != nil {
				return err
			}
			if before == "" {
				say(c.stderr, "note: a key was made in the folder of the secrets, so who reads that folder reads them; docs/credentials.md has better places")
				say(c.stderr, "note: there is no recovery key: stillframe creds rotate-key --recovery prints one, once")
			}
			return c.tell(f, "added", entry)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&user, "user", "", "the account's name")
	cmd.Flags().StringVar(&scope, "scope", "", "what it is for, in your words")
	pipedFlag(cmd, &piped)
	return cmd
}

func pipedFlag(cmd *cobra.Command, piped *bool) {
	cmd.Flags().BoolVar(piped, "password-stdin", false, "read the password from standard input")
}

func (c *cli) credsRotateCommand() *cobra.Command {
	var f credsFlags
	var user string
	var piped bool
	cmd := &cobra.Command{
		Use: "rotate NAME", Short: "Give a secret of the store a new password", Args: oneName, ValidArgsFunction: c.names(&f),
		Long: `Reads a password as "creds add" does and puts it in the place of the old one. Whoever uses store:NAME has it at the next
use; nothing needs a reload.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := c.secrets(f)
			if err != nil {
				return err
			}
			password, err := c.password(cmd, args[0], piped)
			if err != nil {
				return err
			}
			entry, err := store.Rotate(cmd.Context(), args[0], user, password)
			if err != nil {
				return err
			}
			return c.tell(f, "rotated", entry)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&user, "user", "", "the account's new name (default: the old one)")
	pipedFlag(cmd, &piped)
	return cmd
}

func (c *cli) credsRmCommand() *cobra.Command {
	var f credsFlags
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Take a secret out of the store", Args: oneName, ValidArgsFunction: c.names(&f),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := c.secrets(f)
			if err != nil {
				return err
			}
			if err := store.Remove(cmd.Context(), args[0]); err != nil {
				return err
			}
			return c.tell(f, "removed", secret.Entry{Name: args[0]})
		},
	}
	f.flags(cmd)
	return cmd
}

// credentials is the store's list, as -o json prints it. Fields are only ever added.
type credentials struct {
	APIVersion  string         `json:"api_version"`
	Credentials []secret.Entry `json:"credentials"`
}

func (c *cli) credsListCommand() *cobra.Command {
	var f credsFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the secrets of the store: names, users, times, nothing secret", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			store, err := c.secrets(f)
			if err != nil {
				return err
			}
			entries, err := store.List()
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(c.stdout, credentials{backup.APIVersion, entries})
			}
			return c.listed(entries)
		},
	}
	f.flags(cmd)
	return cmd
}

func (c *cli) listed(entries []secret.Entry) error {
	day := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	var b strings.Builder
	for _, e := range append([]secret.Entry{{}}, entries...) {
		row := []any{e.Name, cmp.Or(e.User, "-"), day(e.Created), day(e.Rotated), cmp.Or(e.Scope, "-")}
		if e.Name == "" {
			row = []any{"NAME", "USER", "CREATED", "ROTATED", "SCOPE"}
		}
		b.WriteString(printable(fmt.Sprintf("%-24s %-32s %-20s %-20s %s", row...)) + "\n")
	}
	_, err := fmt.Fprint(c.stdout, b.String())
	return err
}

// rotation is a change of the key, as -o json prints it. Fields are only ever added.
type rotation struct {
	APIVersion  string `json:"api_version"`
	Secrets     int    `json:"secrets"`
	Key         string `json:"key"`
	NextKey     string `json:"next_key"`
	RecoveryKey string `json:"recovery_key"`
}

func (c *cli) credsRotateKeyCommand() *cobra.Command {
	var f credsFlags
	var next string
	var want secret.Rotation
	cmd := &cobra.Command{
		Use: "rotate-key", Short: "Seal every secret of the store for another key", Args: noArgs,
		Long: `Without flags: a key that the store made gives place to a new one; with any other key everything is sealed for that one
alone, which ends a change that --next began.

--next REF seals everything for the key at hand and for the one of REF; a file that is not there is made. Then put that key in
the place of the old one and say "creds rotate-key" with it. --recovery makes one more key that opens everything and prints
it, once: keep it where this machine is not. A change that was killed is ended by saying the same again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := c.secrets(f)
			if err != nil {
				return err
			}
			if next != "" {
				if want.Next, err = secret.ParseRef(next); err != nil {
					return fmt.Errorf("--next: %w", err)
				}
			}
			done, err := store.RotateKey(cmd.Context(), want)
			if err != nil {
				return err
			}
			return c.rotated(f, done)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&next, "next", "", "reference to the key that is to come")
	cmd.Flags().BoolVar(&want.Recovery, "recovery", false, "make a recovery key and print it; an earlier one opens nothing any more")
	return cmd
}

func (c *cli) rotated(f credsFlags, done secret.Rotated) error {
	if done.Made {
		say(c.stderr, "note: made the key "+done.Next)
	}
	if done.Next != "" {
		say(c.stderr, "next: put that key in the place of the old one, then say: stillframe creds rotate-key --store-key "+done.Next)
	}
	recovery := done.Recovery.Reveal()
	if f.output == "json" {
		return writeJSON(c.stdout, rotation{backup.APIVersion, done.Secrets, done.Key, done.Next, recovery})
	}
	text := fmt.Sprintf("sealed %d secrets anew, key %s", done.Secrets, done.Key)
	if done.Next != "" {
		text += " and " + done.Next
	}
	text = printable(text) + "\n"
	if recovery != "" {
		text += "recovery key, shown this once: " + recovery + "\n"
	}
	_, err := fmt.Fprint(c.stdout, text)
	return err
}

// readable is what "creds test" says of one reference. Fields are only ever added.
type readable struct {
	Ref      string `json:"ref"`
	Readable bool   `json:"readable"`
	User     string `json:"user"`
	Code     string `json:"code"`
	Text     string `json:"text"`
}

func (c *cli) credsTestCommand() *cobra.Command {
	var f credsFlags
	cmd := &cobra.Command{
		Use: "test [REF]", Short: "Say whether a secret can be read, without using it", Args: cobra.MaximumNArgs(1), ValidArgsFunction: c.names(&f),
		Long: `Reads the secret of a reference, such as cred:vc or store:vc, and says whether that went well; a word without a colon is a
name of the store. Without one every secret of the store is read. Nobody is contacted and nothing secret is printed.
The exit status is that of the first that cannot be read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := c.secrets(f)
			if err != nil {
				return err
			}
			refs, err := tested(store, args)
			if err != nil {
				return err
			}
			return c.test(cmd, f, secret.NewResolver(secret.Options{Getenv: c.getenv, Store: store}), refs)
		},
	}
	f.flags(cmd)
	return cmd
}

// tested are the references to read.
func tested(store *secret.Store, args []string) ([]secret.Ref, error) {
	if len(args) == 1 && strings.Contains(args[0], ":") {
		ref, err := secret.ParseRef(args[0])
		return []secret.Ref{ref}, err
	}
	names := args
	if len(args) == 0 {
		entries, err := store.List()
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			names = append(names, e.Name)
		}
	}
	var refs []secret.Ref
	for _, name := range names {
		ref, err := secret.InStore(name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func (c *cli) test(cmd *cobra.Command, f credsFlags, resolver *secret.Resolver, refs []secret.Ref) error {
	results := []readable{}
	var failed []error
	for _, ref := range refs {
		got, err := resolver.Resolve(cmd.Context(), ref)
		if errors.Is(err, errInterrupted) {
			return err
		}
		r := readable{Ref: ref.String(), Readable: err == nil, User: got.User}
		if err != nil {
			r.Code, r.Text = codeOf(err), err.Error()
			failed = append(failed, err)
		}
		results = append(results, r)
	}
	if len(failed) > 0 {
		c.exit = exitOf(failed[0])
	}
	if f.output == "json" {
		return writeJSON(c.stdout, struct {
			APIVersion string     `json:"api_version"`
			Results    []readable `json:"results"`
		}{backup.APIVersion, results})
	}
	var b strings.Builder
	for _, r := range results {
		text := fmt.Sprintf("%-8s %-40s user %s", "ok", r.Ref, cmp.Or(r.User, "-"))
		if !r.Readable {
			text = fmt.Sprintf("%-8s %-40s %s", "FAILED", r.Ref, r.Code)
		}
		b.WriteString(printable(text) + "\n")
	}
	if _, err := fmt.Fprint(c.stdout, b.String()); err != nil {
		return err
	}
	for _, err := range failed {
		explain(c.stderr, err)
	}
	return nil
}
