package advice

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/errors.md anew")

func TestCodeAndNameBelongOneToOne(t *testing.T) {
	shape := regexp.MustCompile(`^SF[1-6][0-9]{3}$`)
	name := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	codeOf := map[string]Code{}
	for _, code := range Codes() { // that a code has one name is held by parse
		e, _ := Lookup(code)
		if !shape.MatchString(string(code)) || !name.MatchString(e.Name) {
			t.Errorf("%s %q is not SFnnnn with a snake_case name", code, e.Name)
		}
		if other, taken := codeOf[e.Name]; taken {
			t.Errorf("the name %s belongs to %s and to %s", e.Name, other, code)
		}
		codeOf[e.Name] = code
	}
}

func TestEveryEntryHelps(t *testing.T) {
	retryable := []string{"yes", "no", "once", "after-fix", "backoff-10m-x3", "nested", "n/a"}
	confidence := []string{"documented", "header", "inferred"}
	for _, code := range Codes() {
		e, _ := Lookup(code)
		if e.Meaning == "" || e.Phase == "" || e.Source == "" || len(e.Steps()) == 0 {
			t.Errorf("%s lacks a meaning, a phase, a source or advice: %+v", code, e)
		}
		if !slices.Contains(retryable, e.Retryable) || !slices.Contains(confidence, e.Confidence) {
			t.Errorf("%s has retryable %q, confidence %q", code, e.Retryable, e.Confidence)
		}
	}
}

// parse is the whole way of a registry.
func parse(text string) (map[Code]Entry, error) {
	rows, err := lines(text)
	if err != nil {
		return nil, err
	}
	return index(rows)
}

func TestParseRefuses(t *testing.T) {
	row := func(domain, code, name string) string {
		return domain + ",c,s," + code + "," + name + ",meaning,any,no,advice,source,documented\n"
	}
	for _, tc := range []struct{ name, text, want string }{
		{"no header", row("a", "SF1001", "one"), "first line"},
		{"nothing", "", "first line"},
		{"a short row", columns + "\na,b\n", "wrong number of fields"},
		{"two names", columns + "\n" + row("a", "SF1001", "one") + row("b", "SF1001", "two"), "two names"},
		{"two own rows", columns + "\n" + row(ownDomain, "SF1001", "one") + row(ownDomain, "SF1001", "one"), "two rows"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parse(tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("parse = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestOwnRowWins(t *testing.T) {
	foreign := "vsphere_fault,F,F,SF1001,one,foreign meaning,any,no,foreign advice,elsewhere,header\n"
	own := "stillframe,SF1001,ONE,SF1001,one,own meaning,any,yes,own advice,here,documented\n"
	for _, text := range []string{foreign + own, own + foreign} {
		entries, err := parse(columns + "\n" + text)
		if err != nil {
			t.Fatal(err)
		}
		e := entries["SF1001"]
		if e.Meaning != "own meaning" || e.Retryable != "yes" || len(e.Causes) != 1 || e.Causes[0].Code != "F" {
			t.Errorf("entry = %+v, want our own row with the foreign one as its only cause", e)
		}
	}
}

func TestForeignNumbers(t *testing.T) {
	for hr, want := range map[string]Foreign{
		"800423F2": {Symbol: "VSS_E_WRITERERROR_TIMEOUT", Code: "SF4422"},
		"80042314": {Symbol: "VSS_E_HOLD_WRITES_TIMEOUT", Code: "SF4003"},
		"0004230a": {Symbol: "VSS_S_ASYNC_FINISHED"},
		"800706ba": {Symbol: "RPC_S_SERVER_UNAVAILABLE", Code: "SF3407"},
		"deadbeef": {},
	} {
		if got := HRESULT(hr); got.Code != want.Code && want.Code != "" || !strings.Contains(got.Symbol, want.Symbol) {
			t.Errorf("HRESULT(%s) = %+v, want %+v", hr, got, want)
		}
	}
	if got := WriterState(9); got.Code != "SF4409" || got.Phase != "freeze" {
		t.Errorf("WriterState(9) = %+v, want the failure at freeze", got)
	}
	if got := WriterState(5); got.Code != "" || got.Symbol != "VSS_WS_WAITING_FOR_BACKUP_COMPLETE" {
		t.Errorf("WriterState(5) = %+v, want no failure", got)
	}
}

func TestWriters(t *testing.T) {
	if w := WriterOf("{76FE1AC4-15F7-4BCD-987E-8E1ACB462FB7}", ""); w.FreezeLimit != 20*time.Second || w.Code != "SF4530" {
		t.Errorf("Exchange is %+v, want 20 s and a code of its own", w)
	}
	if w := WriterOf("{00000000-1111-2222-3333-444444444444}", "Other"); w.FreezeLimit != DefaultFreezeLimit || w.Code != "SF4500" || w.Name != "Other" {
		t.Errorf("an unknown writer is %+v", w)
	}
	for _, text := range []string{"", "a,b\n", writerColumns + "\na,b,SF4501,,,many,,,,,\n", writerColumns + "\na,b,SF4501,,,1,,,,,\na,b,SF4501,,,1,,,,,\n"} {
		if _, err := parseWriters(text); err == nil {
			t.Errorf("parseWriters(%q) found nothing wrong", text)
		}
	}
}

func TestExplain(t *testing.T) {
	f := Explain("SF2010", "/DC0/vm/a", " ", "/DC0/vm/b\n")
	if want := []string{"/DC0/vm/a", "/DC0/vm/b"}; f.Code != "SF2010" || !slices.Equal(f.Evidence, want) {
		t.Errorf("Explain = %+v, want the evidence %q", f, want)
	}
	if e, _ := Lookup("SF2010"); f.Title != e.Meaning || !slices.Equal(f.Next, e.Steps()) {
		t.Errorf("Explain = %+v, want title and steps of %+v", f, e)
	}
	f = Explain("SF9999")
	if f.Code != "SF9999" || f.Title == "" || f.Evidence == nil || len(f.Next) == 0 {
		t.Errorf("Explain of an unknown code = %+v, want an honest finding", f)
	}
	if got, want := Page("SF2010"), "docs/errors.md#sf2010"; got != want {
		t.Errorf("Page = %s, want %s", got, want)
	}
}

// TestErrorPages holds docs/errors.md to the catalogue; -update writes it.
func TestErrorPages(t *testing.T) {
	const file = "../../docs/errors.md"
	got := pages()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("docs/errors.md is not what the catalogue says; run: go test ./pkg/advice -update")
	}
	for _, code := range Codes() {
		anchor := fmt.Sprintf("<a id=%q></a>\n", strings.ToLower(string(code)))
		if strings.Count(string(want), anchor) != 1 {
			t.Errorf("docs/errors.md has not exactly one anchor for %s", code)
		}
	}
}

// pages renders the whole catalogue for people.
func pages() string {
	var b strings.Builder
	b.WriteString(`# Errors

Every code that Stillframe can print has its place here. A code never changes its meaning, and a retired one is never
used again. The page is made from the tables in ` + "`pkg/advice/data`" + ` by ` + "`go test ./pkg/advice -update`" + `; change the
catalogue, not the page. Codes of parts that are not built yet are listed too: the registry is older than the parts.

"Again?" says whether trying again can help: *yes*; *no*; *once*; *after-fix*, when the cause is gone;
*backoff-10m-x3*, three times with ten minutes between; *nested*, the inner cause decides; *n/a*, information only.
`)
	areas := map[byte]string{
		'1': "Configuration, usage", '2': "vSphere", '3': "Access to the guest", '4': "Freeze", '5': "Transfer", '6': "Repository",
	}
	var area byte
	for _, code := range Codes() {
		if code[2] != area {
			area = code[2]
			fmt.Fprintf(&b, "\n## SF%cxxx %s\n", area, areas[area])
		}
		e, _ := Lookup(code)
		page(&b, e)
	}
	return b.String()
}

func page(b *strings.Builder, e Entry) {
	fmt.Fprintf(b, "\n<a id=%q></a>\n### %s %s\n\n", strings.ToLower(string(e.Code)), e.Code, strings.ReplaceAll(e.Name, "_", " "))
	fmt.Fprintf(b, "%s\n\nMet in: %s. Again? *%s*. Source: %s (%s).\n\n", plain(e.Meaning), plain(e.Phase), e.Retryable, plain(e.Source), e.Confidence)
	for _, step := range e.Steps() {
		fmt.Fprintf(b, "- %s\n", plain(step))
	}
	if len(e.Causes) == 0 {
		return
	}
	b.WriteString("\n| from | number | name | meaning | hint |\n|---|---|---|---|---|\n")
	for _, c := range e.Causes {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", c.Domain, plain(c.Code), plain(c.Symbol), plain(c.Meaning), plain(c.Advice))
	}
}

// plain keeps text of the catalogue from being read as markup.
func plain(s string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, ">", `\>`, "*", `\*`, "_", `\_`, "\n", " ").Replace(s)
}
