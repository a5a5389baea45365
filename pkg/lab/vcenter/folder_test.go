package vcenter_test

import (
	"bytes"
	"net/http"
	"net/url"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// TestFolder reads a VM's log, which only who is logged in may do, and nobody may write.
func TestFolder(t *testing.T) {
	s := start(t, vcenter.Options{VMs: []vcenter.VM{{Name: "stunned", Conditions: []string{"long_stun"}}}})
	c := connect(t, s)
	u := c.URL()
	u.Path, u.RawQuery = "/folder/vm0000/vmware.log", url.Values{"dcPath": {"/DC0"}, "dsName": {"LocalDS_0"}}.Encode()
	anybody := &http.Client{Transport: c.DefaultTransport()}
	for _, ask := range []struct {
		by        *http.Client
		method    string
		span      string
		want, has int
	}{
		{&c.Client.Client.Client, http.MethodGet, "", http.StatusOK, 2},
		{&c.Client.Client.Client, http.MethodGet, "bytes=-40", http.StatusPartialContent, 1},
		{&c.Client.Client.Client, http.MethodPut, "", http.StatusMethodNotAllowed, 0},
		{anybody, http.MethodGet, "", http.StatusUnauthorized, 0},
	} {
		req, err := http.NewRequestWithContext(t.Context(), ask.method, u.String(), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if ask.span != "" {
			req.Header.Set("Range", ask.span)
		}
		res, err := ask.by.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, err = body.ReadFrom(res.Body)
		if closed := res.Body.Close(); err != nil || closed != nil {
			t.Fatal(err, closed)
		}
		if has := bytes.Count(body.Bytes(), []byte("vm stopped for")); res.StatusCode != ask.want || has != ask.has {
			t.Errorf("%s %q = %s with %d stuns, want %d with %d", ask.method, ask.span, res.Status, has, ask.want, ask.has)
		}
	}
}
