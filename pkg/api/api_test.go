package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/audit"
)

// sample is a request of one operation that succeeds on a fresh memory.
type sample struct{ method, path, body, key string }

// samples has one of each operation; a test wants it to be whole.
func (w *world) samples(t *testing.T) map[string]sample {
	t.Helper()
	w.token(t, Viewer)
	tokens, err := w.memory.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := uuid.NewString()
	return map[string]sample{
		"jobs:list": {"GET", "/jobs", "", ""}, "jobs:get": {"GET", "/jobs/nightly", "", ""},
		"jobs:run": {"POST", "/jobs/nightly:run", "", key}, "jobs:pause": {"POST", "/jobs/nightly:pause", "", ""},
		"jobs:resume": {"POST", "/jobs/nightly:resume", "", ""},
		"runs:list":   {"GET", "/runs?state=running&limit=3&job=nightly&unfinished=true", "", ""},
		"runs:get":    {"GET", "/runs/" + runOne, "", ""}, "runs:start": {"POST", "/runs", `{"vm":"exch-01","job":"nightly"}`, key + "2"},
		"runs:cancel": {"POST", "/runs/" + runOne + ":cancel", "", ""}, "runs:timeline": {"GET", "/runs/" + runOne + "/timeline", "", ""},
		"runs:findings": {"GET", "/runs/" + runOne + "/findings", "", ""}, "runs:log": {"GET", "/runs/" + runOne + "/log", "", ""},
		"vms:list": {"GET", "/vms?protection=overdue", "", ""}, "vms:get": {"GET", "/vms/" + vmOne, "", ""},
		"vms:history": {"GET", "/vms/" + vmOne + "/history", "", ""}, "vms:protection": {"GET", "/protection", "", ""},
		"windows:list": {"GET", "/windows", "", ""}, "snapshots:list": {"GET", "/snapshots?orphans=true", "", ""},
		"snapshots:remove": {"DELETE", "/snapshots/" + snapOf + "?run=" + runOne, "", ""},
		"doctor:examine":   {"GET", "/doctor?vm=exch-01&road=auto", "", ""}, "tokens:list": {"GET", "/tokens", "", ""},
		"tokens:create": {"POST", "/tokens", `{"name":"monitor","scopes":["viewer"]}`, ""},
		"tokens:revoke": {"DELETE", "/tokens/" + tokens[len(tokens)-1].ID, "", ""},
		"audit:list":    {"GET", "/audit", "", ""}, "config:reload": {"POST", "/config:reload", "", ""},
		"events:follow": {"GET", "/events", "", ""},
	}
}

func (s sample) headers() []string {
	if s.key == "" {
		return nil
	}
	return []string{"Idempotency-Key", s.key}
}

// each calls f for every operation but the endless one, in order.
func each(t *testing.T, w *world, f func(id string, op *huma.Operation, s sample)) {
	t.Helper()
	ops, samples := operations(w.huma.OpenAPI()), w.samples(t)
	var ids []string
	for id := range ops {
		ids = append(ids, id)
		if _, ok := samples[id]; !ok {
			t.Errorf("there is no sample of %s", id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if id != "events:follow" {
			f(id, ops[id], samples[id])
		}
	}
}

// TestEveryOperation calls each by the socket, where it succeeds, with JSON and without null in a list.
func TestEveryOperation(t *testing.T) {
	w := serve(t)
	each(t, w, func(id string, op *huma.Operation, s sample) {
		got := w.here(t, s.method, Prefix+s.path, s.body, s.headers()...)
		if got.status != op.DefaultStatus {
			t.Errorf("%s answers %d %s, want %d", id, got.status, got.text, op.DefaultStatus)
		}
		if strings.Contains(got.text, "null") || strings.Contains(got.text, "$schema") || got.header.Get("Link") != "" {
			t.Errorf("%s answers %s with the header %v", id, got.text, got.header)
		}
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" || got.header.Get("X-Request-Id") == "" {
			t.Errorf("%s answers with the header %v", id, got.header)
		}
	})
	if len(w.memory.started) != 1 || w.memory.started[0].VMID != vmOne || w.memory.started[0].Kind != KindBackup || !strings.HasPrefix(w.memory.started[0].By, "uid ") {
		t.Errorf("started %+v, want one backup of the VM by the peer", w.memory.started)
	}
	if w.memory.jobs[jobOne].Enabled != true || !slices.Equal(w.memory.cancelled, []string{runOne}) || w.memory.snapshots[0].State != "remove_requested" {
		t.Errorf("the memory is %+v", w.memory)
	}
}

// TestEveryOperationHasAScope walks over all: each is in the table, says its scope in the document, refuses every token
// without it and takes one with it.
func TestEveryOperationHasAScope(t *testing.T) {
	w := serve(t)
	secrets := map[Scope]string{}
	all := []Scope{Viewer, Operator, Restore, Credentials, Admin}
	for _, s := range all {
		secrets[s] = w.token(t, s)
	}
	none := w.token(t)
	if ops := operations(w.huma.OpenAPI()); len(ops) != len(scopes) {
		t.Errorf("%d operations, %d in the table of scopes", len(ops), len(scopes))
	}
	each(t, w, func(id string, op *huma.Operation, s sample) {
		need, ok := scopes[id]
		if !ok || !slices.Contains(all, need) || !slices.Equal(op.Security[0]["token"], []string{string(need)}) {
			t.Errorf("%s has the scope %q, its document says %v", id, need, op.Security)
		}
		for _, name := range strings.Split(op.Path, "{")[1:] {
			name, _, _ = strings.Cut(name, "}")
			if !slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.In == "path" && p.Name == name }) {
				t.Errorf("%s does not read %s from its path", id, name)
			}
		}
		if op.Method != "GET" && need == Viewer {
			t.Errorf("%s changes something and is open to viewers", id)
		}
		for have, secret := range secrets {
			allowed := have == need || have == Admin || need == Viewer
			before := w.memory.changed()
			got := w.there(t, secret, s.method, Prefix+s.path, s.body, s.headers()...)
			if allowed == (got.status == http.StatusForbidden) {
				t.Errorf("%s with a token of %s answers %d %s", id, have, got.status, got.text)
			}
			if !allowed && (w.memory.changed() != before || got.problem(t).SF != "SF1714") {
				t.Errorf("%s with a token of %s is refused with %s, and changed %d", id, have, got.text, w.memory.changed()-before)
			}
			if !allowed && op.Method != "GET" {
				if e := w.audited(t)[0]; e.Result != audit.Refused || e.What != id || !strings.HasPrefix(e.Who, "token t") {
					t.Errorf("%s was refused and the record says %+v", id, e)
				}
			}
		}
		if got := w.there(t, none, s.method, Prefix+s.path, s.body); got.status != http.StatusForbidden {
			t.Errorf("%s without any scope answers %d", id, got.status)
		}
		if got := w.there(t, "", s.method, Prefix+s.path, s.body); got.status != http.StatusUnauthorized && got.status != http.StatusTooManyRequests {
			t.Errorf("%s without a token answers %d", id, got.status)
		}
	})
	if got := w.there(t, secrets[Viewer], "GET", Prefix+"/events?topics=nonsense", ""); got.status != http.StatusUnprocessableEntity {
		t.Errorf("events with a wrong topic answer %d", got.status)
	}
}

// TestEveryChangeIsRecorded wants two entries for each change, the first before it, and none for what only reads.
func TestEveryChangeIsRecorded(t *testing.T) {
	w := serve(t)
	each(t, w, func(id string, op *huma.Operation, s sample) {
		before := len(w.audited(t))
		got := w.here(t, s.method, Prefix+s.path, s.body, s.headers()...)
		now := w.audited(t)
		if op.Method == "GET" {
			if len(now) != before {
				t.Errorf("%s only reads and is recorded", id)
			}
			return
		}
		if got.status >= 300 || len(now) != before+2 {
			t.Fatalf("%s answers %d and made %d entries, want 2", id, got.status, len(now)-before)
		}
		for i, want := range []audit.Result{audit.Done, audit.Intended} {
			if e := now[i]; e.Result != want || e.What != id || e.Object == "" || !strings.HasPrefix(e.Who, "uid ") || !strings.HasPrefix(e.Where, "socket, pid ") {
				t.Errorf("%s is recorded as %+v, want %s", id, e, want)
			}
		}
	})
	file, err := os.Open(w.file)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := audit.Verify(file, w.trail.Head().SHA256); err != nil {
		t.Error(err)
	}
}

// TestNoChangeWithoutRecord makes the audit log unwritable: every change is refused and nothing happens, but a guest is
// still released.
func TestNoChangeWithoutRecord(t *testing.T) {
	w := serve(t)
	samples := 0
	w.breakAudit(t)
	each(t, w, func(id string, op *huma.Operation, s sample) {
		samples++
		before := w.memory.changed()
		got := w.here(t, s.method, Prefix+s.path, s.body, s.headers()...)
		switch {
		case id == "audit:list":
		case op.Method == "GET", id == "runs:cancel":
			if got.status >= 300 {
				t.Errorf("%s answers %d %s", id, got.status, got.text)
			}
		case got.status != http.StatusServiceUnavailable || got.problem(t).SF != "SF1701" || w.memory.changed() != before:
			t.Errorf("%s answers %d %s and changed %d; want it refused with SF1701", id, got.status, got.text, w.memory.changed()-before)
		}
	})
	if !slices.Equal(w.memory.cancelled, []string{runOne}) || !strings.Contains(w.logged.String(), "release of a guest not recorded, but done") {
		t.Errorf("cancelled %v", w.memory.cancelled)
	}
	var ready Readiness
	if got := w.here(t, "GET", "/readyz", ""); json.Unmarshal([]byte(got.text), &ready) != nil || !ready.Ready || len(ready.Warnings) != 1 {
		t.Errorf("readyz says %s, want ready with a warning", got.text)
	}
}

// TestBackendErrors lets every backend fail: the answer is a problem that holds nothing of the error's text.
func TestBackendErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"unknown":   {ErrUnknown, http.StatusNotFound, "SF1717"},
		"conflict":  {ErrConflict, http.StatusConflict, "SF1718"},
		"not ready": {ErrNotReady, http.StatusServiceUnavailable, "SF1719"},
		"cursor":    {ErrCursor, http.StatusUnprocessableEntity, "SF1715"},
		"active":    {coded{"SF1103"}, http.StatusConflict, "SF1103"},
		"coded":     {coded{"SF2001"}, http.StatusInternalServerError, "SF2001"},
		"not coded": {coded{"SF0000"}, http.StatusInternalServerError, "SF1720"},
		"any":       {errors.New("secret text"), http.StatusInternalServerError, "SF1720"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t)
			w.memory.fail = c.err
			got := w.here(t, "GET", Prefix+"/windows", "")
			p := got.problem(t)
			if got.status != c.status || p.SF != c.code || p.Status != c.status || p.Request != got.header.Get("X-Request-Id") || strings.Contains(got.text, "secret text") {
				t.Errorf("answers %d %s, want %d %s", got.status, got.text, c.status, c.code)
			}
			if p.Title == "" || p.Title == http.StatusText(c.status) || len(p.Next) == 0 || !strings.HasPrefix(p.Type, "docs/errors.md#sf") {
				t.Errorf("the problem %+v does not say what to do", p)
			}
			w.memory.fail = nil
			w.memory.jobs["nightly"] = Job{Name: "nightly"}
		})
	}
}

type coded struct{ code string }

func (e coded) Error() string { return "secret text" }
func (e coded) Code() string  { return e.code }

// TestChangeFails records what failed and why, in words of the catalogue.
func TestChangeFails(t *testing.T) {
	w := serve(t)
	w.memory.faults = []Fault{{"stillframe.yaml:6:11", "window.hold: not a duration"}, {"jobs.yaml:2:1", "unknown key"}}
	got := w.here(t, "POST", Prefix+"/config:reload", "")
	if p := got.problem(t); got.status != http.StatusUnprocessableEntity || !slices.Equal(p.Errors, w.memory.faults) {
		t.Errorf("reload answers %d %s, want both faults", got.status, got.text)
	}
	if e := w.audited(t)[0]; e.Result != audit.Failed || !strings.HasPrefix(e.Reason, "SF1715 ") {
		t.Errorf("the record says %+v", e)
	}
}

func TestIdempotency(t *testing.T) {
	w := serve(t)
	key := []string{"Idempotency-Key", uuid.NewString()}
	first := w.here(t, "POST", Prefix+"/runs", `{"vm":"exch-01"}`, key...)
	again := w.here(t, "POST", Prefix+"/runs", ` {"kind":"backup", "vm":"exch-01"} `, key...)
	if first.status != http.StatusAccepted || again.status != first.status || again.text != first.text || again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("first %d %s, again %d %s; want the same", first.status, first.text, again.status, again.text)
	}
	if len(w.memory.started) != 1 || first.header.Get("Location") != Prefix+"/runs/"+w.memory.started[0].RunID {
		t.Errorf("started %+v, Location %q", w.memory.started, first.header.Get("Location"))
	}
	if got := w.here(t, "GET", first.header.Get("Location"), ""); got.status != http.StatusOK {
		t.Errorf("the Location answers %d", got.status)
	}
	other := w.here(t, "POST", Prefix+"/runs", `{"vm":"exch-01","kind":"dry_run"}`, key...)
	if p := other.problem(t); other.status != http.StatusUnprocessableEntity || p.SF != "SF1716" || len(w.memory.started) != 1 {
		t.Errorf("the key with another body answers %d %s", other.status, other.text)
	}
	// Another caller's key is another key.
	if got := w.there(t, w.token(t, Operator), "POST", Prefix+"/runs", `{"vm":"exch-01"}`, key...); got.status != http.StatusAccepted || len(w.memory.started) != 2 {
		t.Errorf("another caller with that key gets %d and %d runs are started", got.status, len(w.memory.started))
	}
	// The daemon died between keeping the key and making the run: the same id is used, so there is never a second.
	lost := w.memory.started[0].RunID
	w.memory.mu.Lock()
	w.memory.runs = slices.DeleteFunc(w.memory.runs, func(r Run) bool { return r.ID == lost })
	w.memory.mu.Unlock()
	if got := w.here(t, "POST", Prefix+"/runs", `{"vm":"exch-01"}`, key...); got.text != first.text || len(w.memory.started) != 3 || w.memory.started[2].RunID != lost {
		t.Errorf("after a crash the key gives %s and starts %+v", got.text, w.memory.started)
	}
	// A whole job has the same tick.
	one := w.here(t, "POST", Prefix+"/jobs/nightly:run", "", key...)
	if one.status != http.StatusUnprocessableEntity {
		t.Errorf("a key of a run serves for a job: %d", one.status)
	}
	one = w.here(t, "POST", Prefix+"/jobs/nightly:run", "", "Idempotency-Key", "another-key")
	two := w.here(t, "POST", Prefix+"/jobs/nightly:run", "", "Idempotency-Key", "another-key")
	if one.status != http.StatusAccepted || one.text != two.text || len(w.memory.fired) != 1 {
		t.Errorf("a job is fired %v with %s and %s", w.memory.fired, one.text, two.text)
	}
	for kept := range w.memory.keys {
		if strings.Contains(kept, "another-key") || len(kept) != 64 {
			t.Errorf("the key is kept as %q", kept)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := serve(t)
	key := []string{"Idempotency-Key", uuid.NewString()}
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		faults             []string
	}{
		"no such path":         {"GET", "/api/v2/runs", "", nil, 404, nil},
		"no such method":       {"PATCH", Prefix + "/runs", "", nil, 404, nil},
		"no such verb":         {"POST", Prefix + "/jobs/nightly:explode", "", nil, 404, nil},
		"no verb":              {"POST", Prefix + "/jobs/nightly", "", nil, 404, nil},
		"a path with dots":     {"GET", Prefix + "/jobs/../runs", "", nil, 404, nil},
		"a path with slashes":  {"GET", Prefix + "//runs", "", nil, 404, nil},
		"unknown job":          {"POST", Prefix + "/jobs/none:pause", "", nil, 404, nil},
		"unknown run":          {"POST", Prefix + "/runs/" + uuid.NewString() + ":cancel", "", nil, 404, nil},
		"unknown token":        {"DELETE", Prefix + "/tokens/" + uuid.NewString(), "", nil, 404, nil},
		"a name out of place":  {"GET", Prefix + "/jobs/-rf%20x", "", nil, 422, []string{"path.name"}},
		"no key":               {"POST", Prefix + "/runs", `{"vm":"exch-01"}`, nil, 422, []string{"header.Idempotency-Key"}},
		"a short key":          {"POST", Prefix + "/runs", `{"vm":"exch-01"}`, []string{"Idempotency-Key", "x"}, 422, []string{"header.Idempotency-Key"}},
		"all at once":          {"POST", Prefix + "/tokens", `{"name":"Z","scopes":["root"],"days":0,"extra":1}`, nil, 422, []string{"body", "body.days", "body.name", "body.scopes[0]"}},
		"no body":              {"POST", Prefix + "/tokens", "", nil, 400, nil},
		"no JSON":              {"POST", Prefix + "/tokens", "name=x", nil, 400, []string{"body"}},
		"another format":       {"POST", Prefix + "/tokens", "<x/>", []string{"Content-Type", "application/xml"}, 415, []string{"body"}},
		"unknown VM":           {"POST", Prefix + "/runs", `{"vm":"none"}`, key, 422, []string{"body.vm"}},
		"unknown job of a run": {"POST", Prefix + "/runs", `{"vm":"exch-01","job":"none"}`, key, 422, []string{"body.job"}},
		"unknown query":        {"GET", Prefix + "/runs?jop=x", "", nil, 422, []string{"query"}},
		"no such state":        {"GET", Prefix + "/runs?state=frozen", "", nil, 422, []string{"query.state"}},
		"no truth":             {"GET", Prefix + "/runs?unfinished=maybe", "", nil, 422, []string{"query.unfinished"}},
		"too many":             {"GET", Prefix + "/runs?limit=501", "", nil, 422, []string{"query.limit"}},
		"a cursor of others":   {"GET", Prefix + "/audit?cursor=zz__", "", nil, 422, []string{"query.cursor"}},
		"another run":          {"DELETE", Prefix + "/snapshots/" + snapOf + "?run=" + uuid.NewString(), "", nil, 409, nil},
		"no run":               {"DELETE", Prefix + "/snapshots/" + snapOf, "", nil, 422, []string{"query.run"}},
		"unknown VM to doctor": {"GET", Prefix + "/doctor?vm=none", "", nil, 422, []string{"query.vm"}},
		"a huge body":          {"POST", Prefix + "/tokens", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, nil, 413, nil},
		"from another site":    {"POST", Prefix + "/config:reload", "", []string{"Sec-Fetch-Site", "cross-site"}, 403, nil},
		"from another origin":  {"POST", Prefix + "/config:reload", "", []string{"Origin", "https://evil.example"}, 403, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.memory.changed()
			got := w.here(t, c.method, c.path, c.body, c.header...)
			p := got.problem(t)
			var places []string
			for _, f := range p.Errors {
				places = append(places, f.Location)
			}
			slices.Sort(places)
			if got.status != c.status || !slices.Equal(places, c.faults) || p.Type == "" || p.Detail == "" {
				t.Errorf("answers %d %s, want %d with faults at %q", got.status, got.text, c.status, c.faults)
			}
			if w.memory.changed() != before {
				t.Error("something was changed")
			}
		})
	}
	got := w.here(t, "POST", Prefix+"/tokens", `{"name":"a","scopes":["viewer"],"dayz":3}`)
	if p := got.problem(t); len(p.Errors) != 1 || p.Errors[0].Message != "unexpected property beside days, name, scopes" {
		t.Errorf("a mistyped field is answered with %+v", p.Errors)
	}
}

func TestPagesOfRuns(t *testing.T) {
	w := serve(t)
	for range 6 {
		w.memory.runs = append(w.memory.runs, Run{ID: uuid.NewString(), State: "done"})
	}
	seen, cursor := 0, ""
	for pages := 0; pages < 5; pages++ {
		got := w.here(t, "GET", Prefix+"/runs?limit=3&cursor="+cursor, "")
		var l List[Run]
		if err := json.Unmarshal([]byte(got.text), &l); err != nil || got.status != 200 {
			t.Fatalf("answers %d %s", got.status, got.text)
		}
		seen += len(l.Items)
		if cursor = l.NextCursor; cursor == "" {
			break
		}
	}
	if seen != 7 {
		t.Errorf("the pages hold %d runs, want 7", seen)
	}
}

func TestHealth(t *testing.T) {
	w := serve(t)
	if got := w.there(t, "", "GET", "/healthz", ""); got.status != 200 || got.text != "alive\n" {
		t.Errorf("healthz answers %d %s", got.status, got.text)
	}
	w.memory.unready = []string{"3 runs are being recovered"}
	if got := w.there(t, "", "GET", "/readyz", ""); got.status != 503 || !strings.Contains(got.text, "3 runs are being recovered") {
		t.Errorf("readyz answers %d %s", got.status, got.text)
	}
	for who, c := range map[string]struct {
		got    answer
		status int
	}{
		"the socket": {w.here(t, "GET", "/metrics", ""), 200}, "a viewer": {w.there(t, w.token(t, Viewer), "GET", "/metrics", ""), 200},
		"nobody": {w.there(t, "", "GET", "/metrics", ""), 401}, "no scope": {w.there(t, w.token(t), "GET", "/metrics", ""), 403},
	} {
		if c.got.status != c.status {
			t.Errorf("metrics answer %d to %s, want %d", c.got.status, who, c.status)
		}
	}
}

// TestPanic answers for a handler that panics, and logs nothing of what it panicked with.
func TestPanic(t *testing.T) {
	w := serve(t)
	w.memory.vms = nil
	w.memory.snapshots = nil // Snapshot of the memory then reads beyond its end
	got := w.here(t, "DELETE", Prefix+"/snapshots/"+snapOf+"?run="+runOne, "")
	if p := got.problem(t); got.status != 500 || p.SF != "SF1720" || !strings.Contains(w.logged.String(), "handler panicked") {
		t.Errorf("answers %d %s", got.status, got.text)
	}
}

// TestLives wants the wall clock of tokens to be the one that was handed in.
func TestTokenLife(t *testing.T) {
	w := serve(t)
	got := w.here(t, "POST", Prefix+"/tokens", `{"name":"monitor","scopes":["viewer","viewer","operator"]}`)
	var issued IssuedToken
	if err := json.Unmarshal([]byte(got.text), &issued); err != nil || got.status != 201 || !wellFormed(issued.Secret) || strings.Contains(got.text, "sha256") {
		t.Fatalf("answers %d %s", got.status, got.text)
	}
	if !slices.Equal(issued.Scopes, []Scope{Operator, Viewer}) || issued.ExpiresAt.Sub(issued.CreatedAt) < 89*24*time.Hour || !strings.HasPrefix(issued.CreatedBy, "uid ") {
		t.Errorf("issued %+v", issued)
	}
	list := w.here(t, "GET", Prefix+"/tokens", "")
	if strings.Contains(list.text, issued.Secret) || strings.Contains(list.text, hashOf(issued.Secret)) || !strings.Contains(list.text, `"monitor"`) {
		t.Errorf("the list is %s", list.text)
	}
	for _, place := range []string{w.logged.String(), auditText(t, w)} {
		if strings.Contains(place, issued.Secret) {
			t.Errorf("the secret is in %s", place)
		}
	}
	if got := w.there(t, issued.Secret, "GET", Prefix+"/jobs", ""); got.status != 200 {
		t.Errorf("a fresh token is answered with %d", got.status)
	}
	if got := w.here(t, "DELETE", Prefix+"/tokens/"+issued.ID, ""); got.status != 204 {
		t.Errorf("revoke answers %d %s", got.status, got.text)
	}
	if got := w.there(t, issued.Secret, "GET", Prefix+"/jobs", ""); got.status != 401 {
		t.Errorf("a revoked token is answered with %d", got.status)
	}
}

func auditText(t *testing.T, w *world) string {
	t.Helper()
	text, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
