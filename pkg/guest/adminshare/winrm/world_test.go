package winrm_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"go.uber.org/goleak"

	"github.com/stillframe/stillframe/pkg/guest/adminshare/winrm"
	double "github.com/stillframe/stillframe/pkg/lab/winrm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	password = "Tr0ub4dor-und-3-Pferde"
	stdin    = "fingerprint-0123456789abcdef\n"
)

var accounts = []double.Account{
	{Name: "Administrator", Password: password},
	{Name: "gone", Password: password, State: double.Disabled},
	{Name: "shut", Password: password, State: double.Locked},
	{Domain: "CORP", Name: "backup", Password: "zweites-Kennwort-ß€"},
}

// startLimit bounds how long a test waits for its command to have begun.
const startLimit = 20 * time.Second

// process runs a command line as a program of this machine, with no shell in between that would outlive it.
func process(ctx context.Context, line string) *exec.Cmd {
	return exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+line)
}

func serve(t testing.TB, certificate *tls.Certificate) *double.Server {
	t.Helper()
	s, err := double.Serve(t.Context(), double.Options{Address: "127.0.0.1:0", Certificate: certificate, Accounts: accounts, Start: process})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the double: %v", err)
		}
	})
	return s
}

func asAdministrator(address string) winrm.Options {
	return winrm.Options{Address: address, User: "Administrator", Password: password}
}

func open(t testing.TB, o winrm.Options) *winrm.Client {
	t.Helper()
	c, err := winrm.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return c
}

// script is a program whose text is body.
func script(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// announced is a command that runs for a minute, and a function that waits until it does.
func announced(t *testing.T) (command string, started func()) {
	t.Helper()
	pipe := filepath.Join(t.TempDir(), "started")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0) // both ways, so that it does not wait for the other side
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(startLimit)); err != nil {
		t.Fatal(err)
	}
	return script(t, "echo >"+pipe+"; exec sleep 60"), func() {
		if _, err := f.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
}

// relay is a man in the middle: it keeps every byte, and drops the connection at request number drop, if that is not 0.
type relay struct {
	listener net.Listener
	target   string
	drop     int
	serving  sync.WaitGroup

	mu       sync.Mutex
	seen     bytes.Buffer
	requests int
}

func between(t testing.TB, target string, drop int) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target, drop: drop}
	r.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.serving.Go(func() { r.pass(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.serving.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(b)
}

func (r *relay) recorded() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.seen.Bytes())
}

// count is how many requests have come by.
func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// pass hands requests over one by one, replies as they come.
func (r *relay) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	var replies sync.WaitGroup
	replies.Go(func() {
		io.Copy(client, io.TeeReader(server, r)) //nolint:errcheck // its end is the end of the connection
		client.Close()
	})
	defer replies.Wait()
	defer server.Close()
	var raw bytes.Buffer
	reader := bufio.NewReader(io.TeeReader(client, io.MultiWriter(&raw, r)))
	for {
		raw.Reset()
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err != nil {
			return
		}
		r.mu.Lock()
		r.requests++
		dropped := r.requests == r.drop
		r.mu.Unlock()
		if dropped {
			return
		}
		if _, err := server.Write(raw.Bytes()); err != nil {
			return
		}
	}
}

var token = regexp.MustCompile(`(?:Negotiate|Basic) ([0-9A-Za-z+/]+=*)`)

// leaks are the secrets that can be read in what went over a wire, in any of the forms that a client or server gives them.
func leaks(wire []byte, secrets ...string) []string {
	texts := [][]byte{wire}
	for _, m := range token.FindAllSubmatch(wire, -1) {
		if decoded, err := base64.StdEncoding.DecodeString(string(m[1])); err == nil {
			texts = append(texts, decoded)
		}
	}
	var found []string
	for _, secret := range secrets {
		var wide []byte
		for _, unit := range utf16.Encode([]rune(secret)) {
			wide = binary.LittleEndian.AppendUint16(wide, unit)
		}
		coded := base64.StdEncoding.EncodeToString([]byte(secret)[:len(secret)/3*3])
		for _, text := range texts {
			if bytes.Contains(text, []byte(secret)) || bytes.Contains(text, wide) || bytes.Contains(text, []byte(coded)) {
				found = append(found, secret)
				break
			}
		}
	}
	return found
}

// certificate is a self-signed one for 127.0.0.1.
func certificate(t testing.TB) (*tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, leaf
}

func has(err error, parts ...string) bool {
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			return false
		}
	}
	return true
}
