package main

import (
	"strings"
	"testing"
)

// TestRedaction takes out what is called a secret and leaves references; what a reference leads to goes wherever it stands.
func TestRedaction(t *testing.T) {
	const line = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
	var r redactor
	if r.add("env:SHORT", "abc") || !r.add("env:PIN", "4711") || !r.add("file:/key", "-----BEGIN X-----\n"+line+"\n-----END X-----\n") || !r.add("env:ODD", `p<&"\ ü+/w`) {
		t.Error("secrets of 4 bytes and more are searched for, others are not")
	}
	for text, want := range map[string]string{
		`{"password": "env:A", "db_token":"a\"b", "tokens": "c"}`:             `{"password": "env:A", "db_token":"[removed]", "tokens": "c"}`,
		`["--api-key", "x", "--password=y", "z"]`:                             `["--api-key", "[removed]", "--password=[removed]", "z"]`,
		"https://u:pw@host/p https://host/p":                                  "https://u:[removed]@host/p https://host/p",
		"a Bearer abcdefgh12 b":                                               "a Bearer [removed] b",
		"is sft_abcdefghijkl it":                                              "is [removed] it",
		"password: store:linux-root, secret=hunter2;":                         "password: store:linux-root, secret=[removed];",
		"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----.": "[removed].",
		"abc 4711 and 34373131, [52 55 49 49], 0x34, 0x37, 0x31, 0x31":        "abc [removed] and [removed], [[removed]], 0x[removed]",
		"key " + line[:24] + " cut":                                           "key [removed] cut",
		`"p\u003c\u0026\"\\ ü+/w" "p<&\"\\ ü+/w" p%3C%26%22%5C+%C3%BC%2B%2Fw`: `"[removed]" "[removed]" [removed]`,
		"nothing": "nothing",
	} {
		if got, _ := r.redact("f", []byte(text)); string(got) != want {
			t.Errorf("redact(%q) = %q, want %q", text, got, want)
		}
	}
	if _, removed := r.redact("f", []byte(strings.Repeat("4711,", 3))); len(removed) != 1 || removed[0] != (removal{"f", "value", "env:PIN", 3}) {
		t.Errorf("removed = %+v, want env:PIN three times", removed)
	}
}
