package vsphere

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the simulator's remarks
	goleak.VerifyTestMain(m)
}

// world is the stock simulator behind a TLS front that counts calls and may spoil them.
type world struct {
	t     *testing.T
	model *simulator.Model
	front *httptest.Server
	gate  gate

	mu    sync.Mutex
	calls []string
	// shortPolls ends each long poll after 1 s: the simulator does not end the polls of a session that is terminated, and
	// its server cannot be closed meanwhile.
	shortPolls bool
	spoil      func(method string, w http.ResponseWriter, serve func(http.ResponseWriter)) bool
}

var soapMethod = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)

func newWorld(t *testing.T, change func(*simulator.Model)) *world {
	t.Helper()
	w := &world{t: t, model: simulator.VPX()}
	w.model.Datacenter = 2
	w.model.Machine = 1
	w.model.Autostart = false
	if err := w.model.Create(); err != nil {
		t.Fatal(err)
	}
	w.model.Service.TLS = new(tls.Config)
	w.model.Service.Listen = &url.URL{User: url.UserPassword("user", "pass")}
	if change != nil {
		change(w.model)
	}
	back := w.model.Service.NewServer()
	w.gate.server = w.model.Service.ServeMux
	w.front = httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	w.front.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.front.StartTLS()
	t.Cleanup(func() {
		w.front.Close()
		back.Close()
		w.model.Remove()
	})
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	method := r.Method + " " + r.URL.Path
	if m := soapMethod.FindSubmatch(body); m != nil {
		method = string(m[1])
	}
	w.mu.Lock()
	w.calls = append(w.calls, method)
	if w.shortPolls {
		body = bytes.ReplaceAll(body, []byte("<maxWaitSeconds>50<"), []byte("<maxWaitSeconds>1<"))
	}
	spoil := w.spoil
	w.mu.Unlock()
	serve := func(rw http.ResponseWriter) { w.gate.serve(method, rw, r, body) }
	if spoil == nil || !spoil(method, rw, serve) {
		serve(rw)
	}
}

// setSpoil installs what may answer instead of the simulator, or answer nothing.
func (w *world) setSpoil(f func(method string, rw http.ResponseWriter, serve func(http.ResponseWriter)) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spoil = f
}

// refuse makes the simulator answer one method with a fault.
func (w *world) refuse(method string, f types.BaseMethodFault) {
	w.model.Service.Context.Map.Handler = func(_ *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		if m.Name == method {
			return nil, f
		}
		return nil, nil
	}
}

func (w *world) count(method string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.calls {
		if c == method {
			n++
		}
	}
	return n
}

// take empties and gives the calls so far.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

func (w *world) options() Options {
	u, err := url.Parse(w.front.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(w.front.Certificate().Raw)
	return Options{URL: u, Thumbprint: hex.EncodeToString(sum[:]), Login: login("user", "pass"), Agent: "test"}
}

func (w *world) sha1() string {
	sum := sha1.Sum(w.front.Certificate().Raw)
	var b []byte
	for i, c := range sum {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, []byte(hex.EncodeToString([]byte{c}))...)
	}
	return string(bytes.ToUpper(b))
}

func (w *world) caFile() string {
	path := filepath.Join(w.t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.front.Certificate().Raw})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func login(user, password string) func(context.Context) (*url.Userinfo, error) {
	return func(context.Context) (*url.Userinfo, error) { return url.UserPassword(user, password), nil }
}

// open opens an endpoint that the test's end closes.
func (w *world) open() *Endpoint {
	w.t.Helper()
	e, err := Open(w.t.Context(), w.options())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	return e
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var coded interface{ Code() string }
	if !errors.As(err, &coded) {
		t.Fatalf("error %v has no code, want %s", err, code)
	}
	if coded.Code() != code {
		t.Fatalf("error %v has code %s, want %s", err, coded.Code(), code)
	}
}

func without(all []string, drop ...string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(drop, s) })
}
