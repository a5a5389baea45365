package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// settled are the settings without their origins.
func settled(c *Config) map[string]string {
	all := map[string]string{}
	for _, s := range c.Settings() {
		all[s.Path] = s.Text()
	}
	return all
}

// TestLastGood: what was taken over can be loaded again without the files it came from, and says the same.
func TestLastGood(t *testing.T) {
	dir := write(t, map[string]string{
		"c.yaml":           base + "jobs:\n  - {name: a, select: {names: [\"*\"], custom_attributes: [\"Backup/Tier=0123\", \"yes\", \"null\"]}}\nwindow: {hold: 15s}\n",
		"conf.d/more.yaml": "jobs:\n  - {name: b, select: {folders: [\"/DC0/vm/ä \\\"x\\\" \\\\ #1: {}\"]}}\n",
	})
	first, problems := LoadWith(filepath.Join(dir, "c.yaml"), Options{Getenv: func(name string) string {
		return map[string]string{"STILLFRAME_LOG_LEVEL": "debug"}[name]
	}})
	if first == nil {
		t.Fatal(problems)
	}
	state := t.TempDir()
	for range 2 { // the second takes the place of the first
		if err := WriteLastGood(state, first); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(state, lastGoodName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	again, problems := LoadLastGood(state, Options{})
	if again == nil {
		t.Fatal(problems)
	}
	want := settled(first)
	want["log.level"] = "info" // a variable is not kept: it is there, or not, at the next start
	if d := cmp.Diff(want, settled(again)); d != "" {
		t.Errorf("the copy differs (-want +got):\n%s", d)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

// TestLastGoodRefuses: nothing kept, a damaged copy, a folder that cannot be written.
func TestLastGoodRefuses(t *testing.T) {
	state := t.TempDir()
	c, problems := LoadLastGood(state, Options{})
	if c != nil || len(problems) != 1 || problems[0].SF != codeUnreadable {
		t.Errorf("without a copy: %v", problems)
	}
	good := loaded(t, base)
	if err := WriteLastGood(state, good); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(state, lastGoodName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if c, problems := LoadLastGood(state, Options{}); c != nil || !refused(problems) {
		t.Errorf("half a copy: %v", problems)
	}
	if err := WriteLastGood(filepath.Join(state, "none"), good); err == nil || !strings.Contains(err.Error(), "keep the configuration") {
		t.Errorf("without a folder: %v", err)
	}
	// What a killed writer left does not hinder the next one.
	if err := os.WriteFile(filepath.Join(state, lastGoodNewName), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteLastGood(state, good); err != nil {
		t.Error(err)
	}
}

// FuzzLastGood: whatever a text of the configuration holds, it is kept as it is.
func FuzzLastGood(f *testing.F) {
	for _, text := range []string{"", " ", "0123", "yes", "null", "a: b # c", "\"\\\n", "- x", "*a", "!t", "<<", "\ttab\t", "ä€𝄞", "%TAG", "---", "...", "a\r\nb", "{{x}}", "'", "https://h/?a=b&c=<d>"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		written := map[string]any{"a": text, "b": []any{text, true}, "c": map[string]any{"x" + strings.Map(keyable, text): "1"}}
		if got, err := lastGoodText(written); err != nil && utf8.ValidString(text) {
			t.Errorf("%q: %v\n%s", text, err, got)
		}
	})
}

// keyable leaves what a key may hold.
func keyable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}
