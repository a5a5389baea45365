package vsscode_test

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// rows reads the error catalogue: the one registry of codes.
func rows(t *testing.T) []map[string]string {
	t.Helper()
	f, err := os.Open("../../advice/data/error-catalogue.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]string
	for _, line := range all[1:] {
		row := map[string]string{}
		for i, v := range line {
			row[all[0][i]] = v
		}
		out = append(out, row)
	}
	return out
}

func TestResultsAreThoseOfTheCatalogue(t *testing.T) {
	seen := 0
	for _, r := range rows(t) {
		if r["domain"] != "vss_hresult" && r["domain"] != "com_hresult" {
			continue
		}
		seen++
		var h vsscode.HRESULT
		if _, err := fmt.Sscanf(r["code"], "0x%08x", (*uint32)(&h)); err != nil {
			t.Fatal(err)
		}
		if h.Name() != r["symbol"] || h.Code() != r["sf_code"] {
			t.Errorf("%s is %s %s here, %s %s in the catalogue", r["code"], h.Name(), h.Code(), r["symbol"], r["sf_code"])
		}
	}
	if seen < 70 {
		t.Errorf("the catalogue has %d results, want at least 70", seen)
	}
}

func TestResult(t *testing.T) {
	for _, c := range []struct {
		h      vsscode.HRESULT
		text   string
		failed bool
		retry  vsscode.Retry
	}{
		{vsscode.S_OK, "S_OK 0x00000000", false, vsscode.Unlisted},
		{vsscode.VSS_S_ASYNC_FINISHED, "VSS_S_ASYNC_FINISHED 0x0004230a", false, vsscode.Unlisted},
		{vsscode.VSS_E_HOLD_WRITES_TIMEOUT, "VSS_E_HOLD_WRITES_TIMEOUT 0x80042314", true, vsscode.RetryTimed},
		{vsscode.VSS_E_SNAPSHOT_SET_IN_PROGRESS, "VSS_E_SNAPSHOT_SET_IN_PROGRESS 0x80042316", true, vsscode.RetryBusy},
		{vsscode.VSS_E_UNSUPPORTED_CONTEXT, "VSS_E_UNSUPPORTED_CONTEXT 0x8004231b", true, vsscode.ChangeFirst},
		{vsscode.VSS_E_BAD_STATE, "VSS_E_BAD_STATE 0x80042301", true, vsscode.Stop},
		{vsscode.RPC_S_SERVER_UNAVAILABLE, "RPC_S_SERVER_UNAVAILABLE 0x800706ba", true, vsscode.RetryOnce},
		{vsscode.E_ACCESSDENIED, "E_ACCESSDENIED 0x80070005", true, vsscode.Operator},
		{vsscode.VSS_E_WRITER_STATUS_NOT_AVAILABLE, "VSS_E_WRITER_STATUS_NOT_AVAILABLE 0x80042409", true, vsscode.Information},
		{0x8badf00d, "HRESULT 0x8badf00d", true, vsscode.Unlisted},
	} {
		if c.h.Error() != c.text || c.h.Failed() != c.failed || c.h.Retry() != c.retry {
			t.Errorf("%08x is %q, failed %t, class %d, want %q, %t, %d", uint32(c.h), c.h.Error(), c.h.Failed(), c.h.Retry(), c.text, c.failed, c.retry)
		}
		if err := c.h.Err(); (err != nil) != c.failed || (c.failed && !errors.Is(fmt.Errorf("do: %w", err), c.h)) {
			t.Errorf("Err() of %s = %v", c.text, err)
		}
	}
}

func TestWriterStates(t *testing.T) {
	for _, r := range rows(t) {
		if r["domain"] != "vss_writer_state" {
			continue
		}
		var s vsscode.WriterState
		if _, err := fmt.Sscan(r["code"], (*uint32)(&s)); err != nil {
			t.Fatal(err)
		}
		if failed := strings.HasPrefix(r["symbol"], "VSS_WS_FAILED"); s.Failed() != failed {
			t.Errorf("%s: failed = %t", r["symbol"], s.Failed())
		}
		if s.Well() && s.Failed() {
			t.Errorf("%s is both well and failed", s)
		}
	}
	for s, want := range map[vsscode.WriterState]string{0: "unknown", 1: "stable", 9: "failed at freeze", 15: "failed at backup shutdown", 16: "state 16"} {
		if s.String() != want {
			t.Errorf("state %d is %q, want %q", uint32(s), s, want)
		}
	}
}

func TestContextsAreBits(t *testing.T) {
	if vsscode.ServerContext != 0x0200002b || vsscode.ClientContext != 0x0200000b {
		t.Errorf("contexts %#x and %#x, want 0x200002b and 0x200000b", vsscode.ServerContext, vsscode.ClientContext)
	}
}

func TestWriters(t *testing.T) {
	all := vsscode.Writers()
	if len(all) != 32 {
		t.Errorf("%d writers, want 32", len(all))
	}
	ids := map[string]bool{}
	for _, w := range all {
		if ids[w.ClassID] || w.ClassID != strings.ToLower(w.ClassID) || len(w.ClassID) != 36 {
			t.Errorf("class id %q is twice, or in another form", w.ClassID)
		}
		ids[w.ClassID] = true
		want := 60 * time.Second
		if w.ClassID == vsscode.Exchange {
			want = 20 * time.Second
		}
		if w.Hold != want {
			t.Errorf("%s waits %v, want %v", w.Name, w.Hold, want)
		}
	}
	for _, id := range []string{vsscode.Exchange, strings.ToUpper(vsscode.SQLServer), vsscode.NTDS} {
		if w, ok := vsscode.LookupWriter(id); !ok || !w.Required {
			t.Errorf("LookupWriter(%s) = %+v, %t, want a required one", id, w, ok)
		}
	}
	if w, ok := vsscode.LookupWriter("00000000-0000-0000-0000-000000000001"); ok {
		t.Errorf("an unknown writer is %+v", w)
	}
}
