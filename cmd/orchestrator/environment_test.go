package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	known := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(known, []byte("other.example AA:BB\nvc.example CC:DD\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := map[string]string{"GOVC_URL": "vc.example", "GOVC_USERNAME": "u", "GOVC_PASSWORD": "p"}
	for _, tc := range []struct {
		name   string
		env    map[string]string
		target target
		url    string
		user   string
		check  func(t *testing.T, ca, thumbprint string, insecure bool)
		code   string
	}{
		{name: "bare host", env: full, url: "https://vc.example/sdk", user: "u:p"},
		{name: "account in the URL", env: map[string]string{"GOVC_URL": "https://a:b@vc.example/sdk"}, url: "https://vc.example/sdk", user: "a:b"},
		{name: "flag wins", env: full, target: target{vcenter: "https://esx.example"}, url: "https://esx.example/sdk", user: "u:p"},
		{name: "no address", env: map[string]string{}, code: "SF1002"},
		{name: "no account", env: map[string]string{"GOVC_URL": "vc.example"}, code: "SF1002"},
		{name: "not an address", env: map[string]string{"GOVC_URL": "https://u:secret@vc example/"}, code: "SF1003"},
		{name: "a password with a slash", env: map[string]string{"GOVC_URL": "https://u:12/secret@vc"}, code: "SF1003"},
		{name: "two trust flags", env: full, target: target{caFile: "x", thumbprint: "y"}, code: "SF1003"},
		{name: "known host", env: with(full, "GOVC_TLS_KNOWN_HOSTS", known), url: "https://vc.example/sdk", user: "u:p", check: func(t *testing.T, _, thumbprint string, _ bool) {
			t.Helper()
			if thumbprint != "CC:DD" {
				t.Errorf("thumbprint %q, want CC:DD", thumbprint)
			}
		}},
		{name: "known hosts unreadable", env: with(full, "GOVC_TLS_KNOWN_HOSTS", known+"x"), code: "SF1003"},
		{name: "CA flag wins over insecure", env: with(full, "GOVC_INSECURE", "1"), target: target{caFile: "ca.pem"}, url: "https://vc.example/sdk", user: "u:p", check: func(t *testing.T, ca, _ string, insecure bool) {
			t.Helper()
			if ca != "ca.pem" || insecure {
				t.Errorf("CA %q, insecure %v, want the CA only", ca, insecure)
			}
		}},
		{name: "insecure from the environment", env: with(full, "GOVC_INSECURE", "true"), url: "https://vc.example/sdk", user: "u:p", check: func(t *testing.T, _, _ string, insecure bool) {
			t.Helper()
			if !insecure {
				t.Error("not insecure")
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &cli{getenv: func(k string) string { return tc.env[k] }}
			o, err := c.options(tc.target)
			if tc.code != "" {
				if codeOf(err) != tc.code || strings.Contains(err.Error(), "secret") {
					t.Fatalf("options = %v, want %s without the password", err, tc.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			user, err := o.Login(t.Context())
			if err != nil || o.URL.String() != tc.url || user.String() != tc.user {
				t.Errorf("options = %s as %s (%v), want %s as %s", o.URL, user, err, tc.url, tc.user)
			}
			if tc.check != nil {
				tc.check(t, o.CAFile, o.Thumbprint, o.Insecure)
			}
		})
	}
}

func with(env map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for k, v := range env {
		out[k] = v
	}
	return out
}

func TestGuestAccount(t *testing.T) {
	for login, want := range map[string]string{"root:a:b": "root:a%3Ab", "root:": "root:", "root": "", ":x": "", "": ""} {
		c := &cli{getenv: func(string) string { return login }}
		u, err := c.guestAccount()
		if got := u.String(); (want == "") != (err != nil) || got != want {
			t.Errorf("guestAccount(%q) = %q, %v, want %q", login, got, err, want)
		}
	}
}
