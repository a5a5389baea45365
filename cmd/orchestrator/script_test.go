package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// TestScript runs the program as testdata/script says, without any network. The command "status N" is exec, with the exit
// status that is wanted.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binaries.stillframe)+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("AGENT", binaries.agent)
			tree, err := filepath.Abs("../..")
			if err != nil {
				return err
			}
			e.Setenv("TREE", tree)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [argument...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // testscript hands it on as it is
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s ended with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// each calls f for every command of the tree.
func each(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, f)
	}
}

// TestBogusChild gives every command a child that does not exist: a typo must not look green.
func TestBogusChild(t *testing.T) {
	each((&cli{}).root(), func(cmd *cobra.Command) {
		args := append(strings.Fields(cmd.CommandPath())[1:], "no-such-child")
		if !cmd.HasSubCommands() { // what takes names gets one too many
			for _, word := range strings.Fields(cmd.Use)[1:] {
				if !strings.HasPrefix(strings.Trim(word, "[]"), "--") {
					args = append(args, "nor-such-a-one")
				}
			}
		}
		var stdout, stderr strings.Builder
		got := run(t.Context(), args, &stdout, &stderr, func(string) string { return "" })
		if got != exitUsage || stdout.Len() > 0 {
			t.Errorf("%q ends with %d and prints %q, want %d and nothing on standard output", args, got, stdout.String(), exitUsage)
		}
	})
}

// TestSettingsThatMislead are refused before anything is contacted, with a word that names the flag.
func TestSettingsThatMislead(t *testing.T) {
	for line, flag := range map[string]string{
		"recover --vm=": "--vm", "recover --forget --vm=": "--vm",
		"run --window-only --vm v --guest-address db01": "--guest-address", "run --window-only --vm v --guest-address 0.0.0.0": "--guest-address",
		"run --window-only --vm v --guest-address 192.0.2.7:6465": "--guest-address", "doctor --vm v --guest-address fe80::1": "--guest-address",
	} {
		var stdout, stderr strings.Builder
		status := run(t.Context(), strings.Fields(line), &stdout, &stderr, func(string) string { return "" })
		if status != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), flag+" ") || !strings.Contains(stderr.String(), "SF1003") {
			t.Errorf("%q ends with %d and says %q", line, status, stderr.String())
		}
	}
}

// TestOutputFlag wants -o on every command that prints what it found, and a row in docs/cli.md for every command.
func TestOutputFlag(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{"stillframe": true, "stillframe help": true, "stillframe daemon": true, "stillframe completion": true, "stillframe man": true, "stillframe config schema": true, "stillframe config example": true}
	each((&cli{}).root(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if !cmd.HasSubCommands() && !own[path] && cmd.Flags().Lookup("output") == nil {
			t.Errorf("%s has no -o", path)
		}
		if !cmd.HasSubCommands() && path != "stillframe help" && !strings.Contains(string(page), fmt.Sprintf("\n%s ", path)) {
			t.Errorf("docs/cli.md has no row for %s", path)
		}
	})
}
