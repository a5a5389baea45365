package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files that are made from the schema anew")

// base is a configuration without a mistake, to which tests add one.
const base = `vcenters:
  - name: main
    url: https://vcenter.example/sdk
    username: stillframe
    password: cred:vcenter-main
guests:
  defaults: {username: root, password: "store:root"}
`

// write makes files of a txtar-like map in a fresh folder and gives the folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// lines are the problems without the folder.
func lines(dir string, problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(strings.ReplaceAll(p.String(), dir+"/", "") + "\n")
	}
	return b.String()
}

// load loads one text.
func load(t *testing.T, text string) (*Config, string) {
	t.Helper()
	dir := write(t, map[string]string{"c.yaml": text})
	c, problems := Load(filepath.Join(dir, "c.yaml"))
	return c, lines(dir, problems)
}

// loaded loads one text that has no mistake.
func loaded(t *testing.T, text string) *Config {
	t.Helper()
	c, problems := load(t, text)
	if c == nil {
		t.Fatalf("refused:\n%s", problems)
	}
	return c
}
