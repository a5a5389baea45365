package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/audit"
)

// FuzzRequest sends any path, query and body as an administrator: it is never the daemon's fault, every refusal is a problem
// document, and nothing that was sent comes back in it.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"/api/v1/runs", "", `{"vm":"exch-01"}`},
		{"/api/v1/runs", "state=running", `{"vm":1,"` + canary + `":[{}]}`},
		{"/api/v1/tokens", "", `{"name":"a","scopes":["viewer"],"days":1e99}`},
		{"/api/v1/jobs/nightly:run", canary, "[[[[[["},
		{"/api/v1/jobs/x:y:pause", "a=1&a=2;b", "{}"},
		{"/api/v1/snapshots/../runs", "run=%zz", "null"},
		{"/api/v1/config:reload", "", "\x00"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	s, err := New(newMemory().backends(audit.New(filepath.Join(f.TempDir(), "audit.jsonl"), audit.Options{})), Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path, query, body string) {
		if !strings.HasPrefix(path, "/") || path == Prefix+"/events" {
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			r := httptest.NewRequest(method, "http://x/", strings.NewReader(body))
			r.URL = &url.URL{Path: path, RawQuery: query}
			r.Header.Set("Idempotency-Key", "12345678")
			w := httptest.NewRecorder()
			s.http.Handler.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), peerKey, Caller{Name: "uid 0", Scopes: []Scope{Admin}})))
			if w.Code < 400 {
				continue
			}
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || w.Code == http.StatusInternalServerError || strings.Contains(w.Body.String(), canary) {
				t.Errorf("%s %q ? %q with %q answers %d %s", method, path, query, body, w.Code, w.Body)
			}
		}
	})
}
