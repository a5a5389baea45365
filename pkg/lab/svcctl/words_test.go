package svcctl

import "testing"

func TestWords(t *testing.T) {
	words := []string{labEnv, "A=b", labEnv, `B=C:\x y\`, labEnv, `C=say "a"`, labEnv, ""}
	for _, tc := range []struct{ path, inside string }{
		{`"C:\a b\x.exe" service -service`, `"C:\a b\x.exe" --lab-env A=b --lab-env "B=C:\x y\\" --lab-env "C=say \"a\"" --lab-env "" service -service`},
		{`C:\x.exe service`, `C:\x.exe --lab-env A=b --lab-env "B=C:\x y\\" --lab-env "C=say \"a\"" --lab-env "" service`},
		{`C:\x.exe`, `C:\x.exe --lab-env A=b --lab-env "B=C:\x y\\" --lab-env "C=say \"a\"" --lab-env ""`},
	} {
		got := splice(tc.path, words)
		if got != tc.inside {
			t.Errorf("splice(%s) = %s, want %s", tc.path, got, tc.inside)
		}
		if back := withoutWords(got); back != tc.path {
			t.Errorf("withoutWords(%s) = %s, want %s", got, back, tc.path)
		}
	}
}

func TestLastText(t *testing.T) {
	session := append([]byte("NPAM\x07\x00\x00\x00..."), 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 'b', 'o', 'b', 0)
	for _, tc := range []struct{ name, body, want string }{
		{"name", string(session), "bob"},
		{"longer than said", string(session) + "x", ""},
		{"no end", string(session[:len(session)-1]) + "x", ""},
		{"short", "NPAM", ""},
	} {
		if got := lastText([]byte(tc.body)); got != tc.want {
			t.Errorf("%s: lastText() = %q, want %q", tc.name, got, tc.want)
		}
	}
}
