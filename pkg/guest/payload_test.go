package guest_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestAgentFile tells the systems apart by the first bytes of a program.
func TestAgentFile(t *testing.T) {
	for _, c := range []struct {
		content string
		system  inventory.System
		name    string
	}{
		{"\x7fELF and more", inventory.Linux, "stillframe-agent"},
		{"MZ and more", inventory.Windows, "stillframe-agent.exe"},
		{"#!/bin/sh", "", ""},
		{"M", "", ""},
		{"", "", ""},
	} {
		file := filepath.Join(t.TempDir(), "agent")
		if err := os.WriteFile(file, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := guest.AgentFile(file)
		if p.System != c.system || p.Name != c.name || (err == nil) != (c.system != "") || err != nil && guest.CodeOf(err) != "SF1003" {
			t.Errorf("AgentFile of %q = %q for %q, %v", c.content, p.Name, p.System, err)
		}
	}
}

// TestUnpreempted wants the agent for Windows built so that Go suspends none of its threads: one that holds a guest could stand
// still for good (golang/go#80665).
func TestUnpreempted(t *testing.T) {
	agent, err := guest.EmbeddedAgent(guest.Platform{System: inventory.Windows, Arch: "amd64"})
	if err != nil {
		t.Fatalf("%v (make agent makes it)", err)
	}
	r, err := agent.Open()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte("asyncpreemptoff=1")) { // the words beside it in Go's runtime have no "=1"
		t.Error("the agent for Windows was built without GODEBUG's asyncpreemptoff=1")
	}
}

// TestSign signs a Windows program as "make agent SIGN_CERT= SIGN_KEY=" does, and wants one changed byte seen.
func TestSign(t *testing.T) {
	lab.Need(t, lab.Osslsigncode)
	dir := t.TempDir()
	run := func(name string, args ...string) error {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		t.Logf("%s %v: %v\n%s", name, args, err, out)
		return err
	}
	cert, key, program := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "agent.exe")
	for _, step := range [][]string{
		{
			"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Stillframe test",
			"-addext", "extendedKeyUsage=codeSigning", "-keyout", key, "-out", cert,
		},
		{"go", "build", "-trimpath", "-o", program, "../../cmd/agent"},
		{"../../scripts/sign", cert, key, program},
		{"osslsigncode", "verify", "-CAfile", cert, "-in", program},
	} {
		if err := run(step[0], step[1:]...); err != nil {
			t.Fatalf("%s: %v", step[0], err)
		}
	}
	if p, err := guest.AgentFile(program); err != nil || p.System != inventory.Windows {
		t.Errorf("AgentFile = %q, %v, want a signed program for Windows", p.System, err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(program, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if run("osslsigncode", "verify", "-CAfile", cert, "-in", program) == nil {
		t.Error("a program with one changed byte still verifies")
	}
	if run("../../scripts/sign", filepath.Join(dir, "none.pem"), key, program) == nil {
		t.Error("signing without a certificate succeeded")
	}
}
