package vsphere

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

func TestOpenTrust(t *testing.T) {
	w := newWorld(t, nil)
	wrong := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name string
		set  func(*Options)
		code string
	}{
		{"thumbprint SHA-256", func(*Options) {}, ""},
		{"thumbprint SHA-1 with colons", func(o *Options) { o.Thumbprint = w.sha1() }, ""},
		{"CA file", func(o *Options) { o.Thumbprint, o.CAFile = "", w.caFile() }, ""},
		{"insecure, explicitly", func(o *Options) { o.Thumbprint, o.Insecure = "", true }, ""},
		{"system roots", func(o *Options) { o.Thumbprint = "" }, "SF2003"},
		{"wrong thumbprint", func(o *Options) { o.Thumbprint = wrong }, "SF2003"},
		{"wrong SHA-1 thumbprint", func(o *Options) { o.Thumbprint = wrong[:40] }, "SF2003"},
		{"CA file, before its dates", func(o *Options) { o.Thumbprint, o.CAFile, o.Now = "", w.caFile(), off(-100*year) }, "SF2011"},
		{"CA file, after its dates", func(o *Options) { o.Thumbprint, o.CAFile, o.Now = "", w.caFile(), off(100*year) }, "SF2011"},
		{"thumbprint, which has no dates", func(o *Options) { o.Now = off(100 * year) }, ""},
		{"wrong thumbprint, after its dates", func(o *Options) { o.Thumbprint, o.Now = wrong, off(100*year) }, "SF2003"},
		{"thumbprint cut short", func(o *Options) { o.Thumbprint = wrong[:50] }, "SF1003"},
		{"two trust roots", func(o *Options) { o.CAFile = "x" }, "SF1003"},
		{"no account", func(o *Options) { o.Login = nil }, "SF1002"},
		{"account that cannot be read", func(o *Options) {
			o.Login = func(context.Context) (*url.Userinfo, error) { return nil, os.ErrPermission }
		}, "SF1002"},
		{"plain http", func(o *Options) { o.URL = &url.URL{Scheme: "http", Host: o.URL.Host} }, "SF1003"},
		{"nobody there", func(o *Options) { o.URL = &url.URL{Scheme: "https", Host: "127.0.0.1:1"} }, "SF2004"},
		{"no vSphere there", func(o *Options) { u := *o.URL; u.Path = "/nowhere"; o.URL = &u }, "SF2004"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := w.options()
			c.set(&o)
			before := w.count("Login")
			e, err := Open(t.Context(), o)
			if c.code != "" {
				wantCode(t, err, c.code)
				if n := w.count("Login") - before; n != 0 {
					t.Errorf("%d logins went to a server without trust, want 0", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second does nothing
				if err := e.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if got, want := w.count("Logout"), 5; got != want {
		t.Errorf("%d logouts, want %d", got, want)
	}
}

// year is far from every date of httptest's certificate when there are a hundred of it.
const year = 365 * 24 * time.Hour

// off is a wall clock that differs from this machine's by d.
func off(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// TestHostOutsideOfItsDates: guest transfers go to a host, whose certificate is judged by the same clock, unless vCenter
// tells its thumbprint.
func TestHostOutsideOfItsDates(t *testing.T) {
	w := newWorld(t, nil)
	endpoint, err := newTrust(w.caFile(), "", false)
	if err != nil {
		t.Fatal(err)
	}
	endpoint.now = off(-100 * year)
	for thumbprint, want := range map[string]string{"": "SF2011", strings.Repeat("ab", 32): "SF2011", w.sha1(): ""} {
		host, err := endpoint.forHost(thumbprint)
		if err != nil {
			t.Fatal(err)
		}
		_, err = probe(t.Context(), host, w.options().URL.Host)
		if want == "" && err != nil {
			t.Errorf("thumbprint %q: %v", thumbprint, err)
		}
		if want != "" {
			wantCode(t, err, want)
		}
	}
}

func TestWrongPasswordIsOneAttempt(t *testing.T) {
	w := newWorld(t, nil)
	o := w.options()
	o.Login = login("user", "wrong-secret")
	_, err := Open(t.Context(), o)
	wantCode(t, err, "SF2001")
	if n := w.count("Login"); n != 1 {
		t.Errorf("%d login calls, want 1", n)
	}
	if strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("error %v shows the password", err)
	}
}

// TestRotatedPassword: the session ends, the password has become wrong: one attempt however many calls; once the secret
// changes, one more.
func TestRotatedPassword(t *testing.T) {
	w := newWorld(t, nil)
	var mu sync.Mutex
	password := "pass"
	o := w.options()
	o.Login = func(context.Context) (*url.Userinfo, error) {
		mu.Lock()
		defer mu.Unlock()
		return url.UserPassword("user", password), nil
	}
	set := func(p string) { mu.Lock(); password = p; mu.Unlock() }
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	endSession(t, w, e)
	set("wrong")
	w.take()
	for range 3 {
		wantCode(t, e.Ready(t.Context()), "SF2001")
	}
	if n := w.count("Login"); n != 1 {
		t.Errorf("%d login calls with one wrong secret, want 1", n)
	}
	set("pass")
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.count("Login"); n != 2 {
		t.Errorf("%d login calls after the secret changed, want 2", n)
	}
}

func TestReadyLogsInAgain(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	endSession(t, w, e)
	w.take()
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.count("Login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.count("Login"); n != 1 {
		t.Errorf("%d logins after a second Ready, want 1", n)
	}
}

// endSession ends e's session from another one.
func endSession(t *testing.T, w *world, e *Endpoint) {
	t.Helper()
	other := w.open()
	_, err := methods.TerminateSession(t.Context(), other.vim, &types.TerminateSession{
		This: *other.vim.ServiceContent.SessionManager, SessionId: []string{e.vim.SessionCookie().Value},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnlyReadsAreRepeated: a gateway's 502 is asked again for a read, never for a login or another change.
func TestOnlyReadsAreRepeated(t *testing.T) {
	w := newWorld(t, nil)
	e := w.open()
	failures := 2
	var mu sync.Mutex
	w.setSpoil(func(method string, rw http.ResponseWriter, _ func(http.ResponseWriter)) bool {
		mu.Lock()
		defer mu.Unlock()
		if failures == 0 || method != "CurrentTime" && method != "CreateContainerView" {
			return false
		}
		failures--
		rw.WriteHeader(http.StatusBadGateway)
		return true
	})
	if _, err := methods.GetCurrentTime(t.Context(), e.vim); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	failures = 1
	mu.Unlock()
	_, err := e.names(t.Context())
	if err == nil || w.count("CreateContainerView") != 1 {
		t.Errorf("a change was asked %d times with error %v, want 1 with an error", w.count("CreateContainerView"), err)
	}
}

func TestOptionsNeverShowPassword(t *testing.T) {
	w := newWorld(t, nil)
	o := w.options()
	u := *o.URL
	u.User, u.Path = url.UserPassword("user", "hidden-secret"), "/nowhere"
	o.URL, o.Login = &u, nil
	_, err := Open(t.Context(), o)
	if err == nil || strings.Contains(err.Error(), "hidden-secret") {
		t.Errorf("Open gave %v, want an error without the password", err)
	}
}
