package winrm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab"
	"github.com/stillframe/stillframe/pkg/lab/judge"
	"github.com/stillframe/stillframe/pkg/lab/winrm"
)

const password = "Kennwort-für-den-Richter"

func process(ctx context.Context, line string) *exec.Cmd {
	return exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+line)
}

func serve(t *testing.T, certificate *tls.Certificate) (*winrm.Server, judge.WinRMCommand) {
	t.Helper()
	s, err := winrm.Serve(t.Context(), winrm.Options{
		Address: "127.0.0.1:0", Certificate: certificate, Start: process,
		Accounts: []winrm.Account{{Name: "Administrator", Password: password}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	scheme := "http"
	if certificate != nil {
		scheme = "https"
	}
	return s, judge.WinRMCommand{Endpoint: scheme + "://" + s.Address() + "/wsman", User: "Administrator", Password: password, Encryption: "always", Command: "/bin/true"}
}

// TestJudge: an independent client finds in the double what it finds in Windows.
func TestJudge(t *testing.T) {
	lab.Need(t, lab.PythonWinRM)
	path := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"out $1\"; echo err >&2; sleep 0.2; seq 1 20000 >&2; exit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := "err\n"
	numbers, err := exec.CommandContext(t.Context(), "/usr/bin/seq", "1", "20000").Output()
	if err != nil {
		t.Fatal(err)
	}
	want += string(numbers)
	tests := map[string]struct {
		tls    bool
		set    winrm.Switches
		change func(*judge.WinRMCommand)
		want   judge.WinRMResult
	}{
		"output and status": {
			change: func(c *judge.WinRMCommand) { c.Command, c.Args = path, []string{"word"} },
			want:   judge.WinRMResult{Status: 7, Stdout: "out word\n", Stderr: want},
		},
		"wrong password": {
			change: func(c *judge.WinRMCommand) { c.Password = "falsch" },
			want:   judge.WinRMResult{Refused: "InvalidCredentialsError"},
		},
		"in clear": {
			change: func(c *judge.WinRMCommand) { c.Encryption = "never" },
			want:   judge.WinRMResult{Refused: "WinRMTransportError"},
		},
		"in clear, allowed": {
			set:    winrm.Switches{AllowUnencrypted: true},
			change: func(c *judge.WinRMCommand) { c.Encryption = "never" },
		},
		"bad signature":    {set: winrm.Switches{BadSignature: true}, want: judge.WinRMResult{Refused: "Exception"}},
		"TLS":              {tls: true},
		"TLS, its binding": {tls: true, set: winrm.Switches{StrictBinding: true}},
		"quota":            {set: winrm.Switches{CreateFault: 0x803381A5}, want: judge.WinRMResult{Refused: "WinRMError"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var own *tls.Certificate
			if tt.tls {
				own = certificate(t)
			}
			s, command := serve(t, own)
			s.Set(tt.set)
			if tt.change != nil {
				tt.change(&command)
			}
			v, got, err := judge.WinRM(t.Context(), command)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s %s", v.Version, got.Refused, got.Why)
			got.Why = ""
			if diff := cmp.Diff(tt.want, got); diff != "" || v.OK != (tt.want.Refused == "") {
				t.Errorf("OK %v, want minus got: %s; the double refused for %v", v.OK, diff, s.Refused())
			}
			if s.Shells() != 0 && !tt.set.BadSignature { // who believes no reply cannot know of his shell
				t.Errorf("%d shells left", s.Shells())
			}
		})
	}
}

func certificate(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
