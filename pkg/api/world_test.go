package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stillframe/stillframe/pkg/audit"
)

var update = flag.Bool("update", false, "write api/openapi.yaml anew")

func TestMain(m *testing.M) {
	if path := os.Getenv("STILLFRAME_TEST_DIAL"); path != "" {
		os.Exit(dialAs(path))
	}
	goleak.VerifyTestMain(m)
}

// world is a served API.
type world struct {
	*Server
	memory *memory
	trail  *audit.Log
	// file is the audit log, socket the unix socket, logged what the daemon logged.
	file, socket string
	logged       *buffer
	// local calls the socket, remote the TLS address.
	local, remote *http.Client
	base          string
}

// serve starts the API on a unix socket and, with TLS, on a loopback address.
func serve(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{memory: newMemory(), file: filepath.Join(dir, "audit.jsonl"), socket: filepath.Join(dir, "s"), logged: &buffer{}}
	w.trail = audit.New(w.file, audit.Options{})
	config, pool := certificate(t)
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(w.logged), zap.DebugLevel))
	w.Server, err = New(w.memory.backends(w.trail), Options{Socket: w.socket, Address: "127.0.0.1:0", TLS: config, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.base = "https://" + w.Addr().String()
	w.local = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
	}}}
	w.remote = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Serve(ctx) }()
	t.Cleanup(func() {
		w.local.CloseIdleConnections()
		w.remote.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve ended with %v", err)
		}
		w.trail.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return w
}

// token keeps a token with the scopes and gives its secret.
func (w *world) token(t *testing.T, scopes ...Scope) string {
	t.Helper()
	secret := newSecret()
	_, err := w.memory.AddToken(t.Context(), Token{Name: "t" + uuid.NewString()[:4], Scopes: scopes, SHA256: hashOf(secret), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
}

func (a answer) problem(t *testing.T) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(a.text), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the answer %d %q %q is no problem document: %v", a.status, a.header.Get("Content-Type"), a.text, err)
	}
	return p
}

// call sends one request; header is name and value by turns.
func call(t *testing.T, c *http.Client, method, url, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		req.Body = nil
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	got, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer{got.StatusCode, got.Header, string(text)}
}

// here calls the socket.
func (w *world) here(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	return call(t, w.local, method, "http://stillframe"+path, body, header...)
}

// there calls the TLS address with a token.
func (w *world) there(t *testing.T, secret, method, path, body string, header ...string) answer {
	t.Helper()
	if secret != "" {
		header = append(header, "Authorization", "Bearer "+secret)
	}
	return call(t, w.remote, method, w.base+path, body, header...)
}

// audited are the entries of the audit log, the newest first.
func (w *world) audited(t *testing.T) []audit.Entry {
	t.Helper()
	entries, _, err := w.trail.Entries(0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// breakAudit makes the audit log unwritable.
func (w *world) breakAudit(t *testing.T) {
	t.Helper()
	if err := w.trail.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.file); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.file, 0o700); err != nil {
		t.Fatal(err)
	}
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// dialAs is the child of TestPeers: it asks a change of the daemon as the user that it runs as.
func dialAs(path string) int {
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	got, err := c.Post("http://stillframe"+Prefix+"/jobs/nightly:pause", "", nil)
	if err != nil || got.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, got, err)
		return 1
	}
	if err := got.Body.Close(); err != nil {
		return 1
	}
	return 0
}
