package config

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCheckHere finds all that is named and not there, and nothing else; what a secret's file holds is not looked at.
func TestCheckHere(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	server.Close()
	dir := write(t, map[string]string{"ca.pem": string(certificate), "none.pem": "CANARY", "secret": "CANARY", "mover": "#!/bin/sh\n", "text": ""})
	if err := os.Chmod(filepath.Join(dir, "mover"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(`vcenters:
  - {name: a, url: "https://a/sdk", username: u, password: "file:DIR/secret", ca: DIR/ca.pem}
  - {name: b, url: "https://b/sdk", username: u, password: "file:DIR/no", ca: DIR/none.pem, host_road: {username: r, password: "file:DIR"}}
guests:
  defaults: {username: root, password: "file:DIR/secret", agent: DIR/agent}
  rules: [{match: {names: [x]}, username: root, password: "file:DIR/rule"}]
store: {kind: postgres, dsn: "file:DIR/dsn"}
listen: {address: "0.0.0.0:6464", tls: {cert: DIR/cert, key: "cred:key"}}
jobs:
  - {name: good, select: {names: [x]}, mover: {kind: exec, command: [DIR/mover]}}
  - {name: bad, select: {names: [x]}, mover: {kind: exec, command: [DIR/text]}}
`, "DIR", dir)
	var b strings.Builder
	for _, p := range loaded(t, text).CheckHere() {
		b.WriteString(p.Path + " " + strings.ReplaceAll(p.Message, dir, "DIR") + "\n")
	}
	want := `vcenters[1].ca "DIR/none.pem": there is no PEM certificate in it
vcenters[1].password "DIR/no": no such file or directory
vcenters[1].host_road.password "DIR": it is not a regular file
guests.defaults.agent "DIR/agent": no such file or directory
guests.rules[0].password "DIR/rule": no such file or directory
store.dsn "DIR/dsn": no such file or directory
listen.tls.cert "DIR/cert": no such file or directory
jobs[1].mover.command[0] "DIR/text": it cannot be executed
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("it differs (-want +got):\n%s", d)
	}
}
