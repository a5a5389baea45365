package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/audit"
)

const canary = "CANARY-Pa55w0rd!x9"

// spellings are the ways in which a password could show itself.
func spellings(secret string) []string {
	var wide []byte
	for _, r := range secret {
		wide = append(wide, byte(r), 0)
	}
	return []string{
		secret, strings.ToLower(secret), url.QueryEscape(secret), hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
		string(wide), strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
	}
}

// TestCanary sends a password to every operation in every place where somebody could put one by mistake. It never comes
// back, and neither log nor audit log has it.
func TestCanary(t *testing.T) {
	w := serve(t)
	enough := 0
	look := func(id string, got answer) {
		t.Helper()
		enough++
		for _, s := range spellings(canary) {
			if strings.Contains(got.text, s) {
				t.Errorf("%s answers %s", id, got.text)
			}
			for name, values := range got.header {
				if strings.Contains(strings.Join(values, " "), s) {
					t.Errorf("%s answers with %s: %q", id, name, values)
				}
			}
		}
	}
	escaped := url.PathEscape(canary)
	each(t, w, func(id string, op *huma.Operation, s sample) {
		path, query, _ := strings.Cut(Prefix+s.path, "?")
		key := []string{"Idempotency-Key", uuid.NewString()}
		for _, body := range []string{
			`{"password":"` + canary + `"}`, `{"` + canary + `":1}`, `{"vm":{"` + canary + `":"` + canary + `"}}`, `"` + canary + `"`, canary, `{"vm":"` + canary + `"}`,
			`{"vm":"exch-01","job":"` + canary + `","kind":"` + canary + `","ignore_windows":"` + canary + `"}`, `{"name":"` + canary + `","scopes":["` + canary + `"],"days":"` + canary + `"}`,
			`{"name":"x","scopes":["viewer"],"days":1,"x.` + canary + `.y":{"a":1}}`, `[` + canary,
		} {
			look(id, w.here(t, s.method, path+"?"+query, body, key...))
		}
		for _, q := range []string{escaped, "x=" + escaped, escaped + "=1", "limit=" + escaped, "since=" + escaped, "state=" + escaped, "run=" + escaped, "vm=" + escaped, "cursor=" + escaped, "road=" + escaped} {
			look(id, w.here(t, s.method, path+"?"+q, s.body, key...))
		}
		for _, h := range []string{"Idempotency-Key", "Content-Type", "Accept", "X-Request-Id", "Last-Event-ID", "Host", "Origin", "Referer", "User-Agent", "Cookie", "X-Forwarded-For"} {
			look(id, w.here(t, s.method, path+"?"+query, `{"vm":"exch-01"}`, append(key, h, canary)...))
		}
		for _, p := range []string{path + "/" + escaped, path + ":" + escaped, strings.Replace(path, "nightly", escaped, 1), Prefix + "/" + escaped, "/" + escaped, path + "//" + escaped, path + "/../" + escaped} {
			look(id, w.here(t, s.method, p, s.body, key...))
		}
		look(id, w.there(t, canary, s.method, path, s.body))
		look(id, w.there(t, tokenPrefix+canary, s.method, path, s.body))
	})
	// And what the backends say of it.
	each(t, w, func(id string, _ *huma.Operation, s sample) {
		w.memory.fail = errors.New("no road to the guest")
		look(id, w.here(t, s.method, Prefix+s.path, s.body, s.headers()...))
	})
	if enough < 500 {
		t.Errorf("only %d requests were sent", enough)
	}
	for place, text := range map[string]string{"log": w.logged.String(), "audit log": auditText(t, w)} {
		for _, s := range spellings(canary) {
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("the %s has it: %s", place, text[max(i-200, 0):i])
			}
		}
	}
}

func TestWrongTokens(t *testing.T) {
	w := serve(t)
	good := w.token(t, Admin)
	expired, revoked := w.token(t, Admin), w.token(t, Admin)
	w.memory.mu.Lock()
	now := time.Now()
	w.memory.tokens[1].ExpiresAt, w.memory.tokens[2].RevokedAt = now, &now
	w.memory.mu.Unlock()
	flipped := []byte(good)
	flipped[20] ^= 1
	for name, header := range map[string]string{
		"none": "", "another scheme": "Basic " + good, "no prefix": "Bearer " + good[4:], "one bit": "Bearer " + string(flipped), "short": "Bearer " + good[:40], "long": "Bearer " + good + "A",
		"unknown": "Bearer " + newSecret(), "expired": "Bearer " + expired, "revoked": "Bearer " + revoked, "only a prefix": "Bearer sft_", "its hash": "Bearer " + hashOf(good),
	} {
		got := call(t, w.remote, "GET", w.base+Prefix+"/jobs", "", "Authorization", header)
		if p := got.problem(t); got.status != http.StatusUnauthorized || p.SF != "SF1713" || p.Detail != "a valid token is needed here" || got.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: answers %d %s", name, got.status, got.text)
		}
	}
	if got := call(t, w.remote, "GET", w.base+Prefix+"/jobs", "", "Authorization", "bearer "+good); got.status != http.StatusOK {
		t.Errorf("a good token is answered with %d", got.status)
	}
	uses := w.memory.uses
	if got := call(t, w.remote, "GET", w.base+Prefix+"/jobs", "", "Authorization", "Bearer "+string(flipped)); got.status != http.StatusUnauthorized || w.memory.uses != uses {
		t.Errorf("a mistyped token is answered with %d and the store was asked", got.status)
	}
	// A store that gives another row than the one that was asked for opens nothing.
	w.memory.mu.Lock()
	w.memory.tokens[0].SHA256 = strings.Repeat("0", 64)
	w.memory.mu.Unlock()
	if _, err := (&Server{b: Backends{Tokens: careless{w.memory}}, now: time.Now}).byToken(t.Context(), "Bearer "+good, "x"); !errors.Is(err, errRefused) {
		t.Errorf("the row of another token opens the door: %v", err)
	}
	// A store that fails is no refusal.
	w.memory.fail = errors.New("database locked")
	if got := w.there(t, newSecret(), "GET", Prefix+"/jobs", ""); got.status != http.StatusUnauthorized && got.status != http.StatusInternalServerError {
		t.Errorf("a failing store answers %d", got.status)
	}
	w.memory.fail = nil
	status := 0
	for range lockoutAfter + 1 {
		got := w.there(t, newSecret(), "GET", Prefix+"/jobs", "")
		status = got.status
		if status == http.StatusTooManyRequests && got.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	if status != http.StatusTooManyRequests {
		t.Errorf("after many wrong tokens the answer is %d", status)
	}
	if got := w.there(t, w.token(t, Viewer), "GET", Prefix+"/jobs", ""); got.status != http.StatusOK {
		t.Errorf("a good token from that address is answered with %d", got.status)
	}
}

// careless finds the first token whatever it is asked for.
type careless struct{ *memory }

func (c careless) UseToken(context.Context, string) (Token, error) {
	return Token{Name: "x", Scopes: []Scope{Admin}, SHA256: c.tokens[0].SHA256, ExpiresAt: time.Now().Add(time.Hour)}, nil
}

func TestLockoutIsBounded(t *testing.T) {
	l, now := lockout{wrong: map[string]strikes{}}, time.Now()
	for i := range 3 * maxAddresses {
		l.strike(strconv.Itoa(i), now)
	}
	if len(l.wrong) > maxAddresses+1 {
		t.Errorf("%d addresses are kept", len(l.wrong))
	}
	if n := l.strike("new", now.Add(lockoutFor)); n != 1 || len(l.wrong) != 1 {
		t.Errorf("after the time an address has %d strikes, %d are kept", n, len(l.wrong))
	}
	if n := l.strike("new", now); n != 1 {
		t.Errorf("after the clock was set back an address has %d strikes", n)
	}
}

func TestTokenForm(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s := newSecret()
		if !wellFormed(s) || len(s) != 52 || seen[s] {
			t.Fatalf("%q is not a token", s)
		}
		seen[s] = true
	}
	for _, s := range []string{"", "sft_", "sft_AAAA", strings.Repeat("x", 52)} {
		if wellFormed(s) {
			t.Errorf("%q is taken for a token", s)
		}
	}
}

// TestPeers calls the socket as another user, if this one may become another, and wants the record to say which.
func TestPeers(t *testing.T) {
	w := serve(t)
	if err := os.Chmod(w.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(w.socket), "dial")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	as := func(attr *syscall.SysProcAttr) string {
		t.Helper()
		child := exec.CommandContext(t.Context(), program)
		child.Dir, child.Env, child.SysProcAttr = "/", []string{"STILLFRAME_TEST_DIAL=" + w.socket}, attr
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		e := w.audited(t)[0]
		if want := fmt.Sprintf("socket, pid %d", child.Process.Pid); e.Where != want {
			t.Errorf("the record says %q, want %q", e.Where, want)
		}
		return e.Who
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if who, want := as(nil), fmt.Sprintf("uid %s (%s)", me.Uid, me.Username); who != want {
		t.Errorf("the record says %q, want %q", who, want)
	}
	if os.Geteuid() != 0 {
		return
	}
	if who := as(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}); who != "uid 65534 (nobody)" {
		t.Errorf("the record says %q, want nobody", who)
	}
	if who := as(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4_000_000, Gid: 65534}}); who != "uid 4000000" {
		t.Errorf("the record says %q, want a user without a name", who)
	}
	// The mode that the daemon gave the socket keeps others out.
	if err := os.Chmod(w.socket, socketMode); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), program)
	child.Env, child.SysProcAttr = []string{"STILLFRAME_TEST_DIAL=" + w.socket}, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := child.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("permission denied")) {
		t.Errorf("somebody of no group opened the socket: %v %s", err, out)
	}
}

func TestSocketFile(t *testing.T) {
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a test's folder
	path := filepath.Join(dir, "s")
	open := func(group, address string) (*Server, error) {
		t.Helper()
		s, err := New(newMemory().backends(audit.New(filepath.Join(dir, "a"), audit.Options{})), Options{Socket: path, Group: group, Address: address})
		if err != nil {
			t.Fatal(err)
		}
		return s, s.Listen(t.Context())
	}
	shut := func(s *Server) {
		for _, l := range s.open {
			l.Close()
		}
	}
	one, err := open("", "")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("the socket has the mode %v, want %o", info.Mode(), socketMode)
	}
	var refused *ListenError
	if _, err := open("", ""); !errors.As(err, &refused) || refused.Code() != "SF1712" || !strings.Contains(err.Error(), "another daemon answers") {
		t.Errorf("a second daemon: %v", err)
	}
	one.open[0].(*boundedListener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	shut(one) // as a daemon that was killed leaves it
	two, err := open("", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("the socket of a dead daemon is in the way: %v", err)
	}
	if two.Addr() == nil {
		t.Error("a loopback address without TLS is not served")
	}
	shut(two)
	for group, want := range map[string]string{"no-such-group": "unknown group"} {
		if _, err := open(group, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("group %q: %v", group, err)
		}
	}
	if g, err := user.LookupGroup("nogroup"); err == nil && os.Geteuid() == 0 {
		s, err := open("nogroup", "")
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || fmt.Sprint(info.Sys().(*syscall.Stat_t).Gid) != g.Gid {
			t.Errorf("the socket is of another group: %v %v", info, err)
		}
		shut(s)
	}
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "[::]:0", "example.org:443", "127.0.0.1", "10.0.0.1:8443"} {
		if _, err := open("", address); !errors.As(err, &refused) {
			t.Errorf("%s without TLS: %v, want it refused", address, err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was refused, but the socket stayed", address)
		}
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open("", ""); !errors.As(err, &refused) {
		t.Errorf("a file in the place of the socket: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file was touched: %q %v", text, err)
	}
}

func TestTLS(t *testing.T) {
	w := serve(t)
	if got := w.there(t, w.token(t, Viewer), "GET", Prefix+"/jobs", ""); got.status != 200 {
		t.Errorf("over TLS: %d", got.status)
	}
	at := w.Addr().String()
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12} //nolint:gosec // the point of the test
	if c, err := tls.Dial("tcp", at, old); err == nil {
		c.Close()
		t.Error("TLS 1.2 was taken")
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	text, err := io.ReadAll(c)
	if err != nil || strings.Contains(string(text), "alive") {
		t.Errorf("in clear the TLS port says %q %v", text, err)
	}
}

// TestHostHeader wants nothing that is made from it.
func TestHostHeader(t *testing.T) {
	w := serve(t)
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://stillframe"+Prefix+"/runs", strings.NewReader(`{"vm":"exch-01"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	req.Header.Set("Idempotency-Key", uuid.NewString())
	got, err := w.local.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil || got.StatusCode != http.StatusAccepted || strings.Contains(string(text)+fmt.Sprint(got.Header), "evil") {
		t.Errorf("answers %d %s %v", got.StatusCode, text, got.Header)
	}
}

func TestConnectionCap(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &boundedListener{Listener: inner, slots: make(chan struct{}, 1), closed: make(chan struct{})}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Error("two connections are open, one is the cap")
	case <-time.After(20 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives back one slot only
	second := <-accepted
	second.Close()
	l.Close()
	for range accepted {
		t.Error("a connection after Close")
	}
}

func TestLacks(t *testing.T) {
	if _, err := New(Backends{}, Options{}); err == nil {
		t.Error("an API without backends was made")
	}
}
