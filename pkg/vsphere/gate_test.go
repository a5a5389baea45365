package vsphere

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"time"
)

// gate gives the simulator's property collectors what real ones have: a filter made while a long poll waits is answered at
// once, and without a data race. The simulator appends to its list of filters while its poll reads it, and looks at a new
// filter only when some object changes. So the gate ends the simulator's poll before a filter is made, then polls again,
// with an empty version, which tells the state of what is new. The client notices nothing.
type gate struct {
	mu     sync.Mutex
	lanes  map[string]*lane
	server http.Handler
}

// lane is one collector.
type lane struct {
	making  sync.Mutex // held while a filter is made
	mu      sync.Mutex
	polling chan struct{} // closed when the poll in flight has ended; nil without one
	ended   bool          // by us
}

var (
	collectorID = regexp.MustCompile(`<_this type="PropertyCollector">([^<]+)</_this>`)
	versionTag  = regexp.MustCompile(`<version>[^<]*</version>`)
)

func (g *gate) lane(body []byte) *lane {
	m := collectorID.FindSubmatch(body)
	if m == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lanes == nil {
		g.lanes = make(map[string]*lane)
	}
	l, ok := g.lanes[string(m[1])]
	if !ok {
		l = &lane{}
		g.lanes[string(m[1])] = l
	}
	return l
}

func (g *gate) send(rw http.ResponseWriter, r *http.Request, body []byte) {
	c := r.Clone(r.Context())
	c.Body, c.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	g.server.ServeHTTP(rw, c)
}

func (g *gate) serve(method string, rw http.ResponseWriter, r *http.Request, body []byte) {
	l := g.lane(body)
	switch {
	case l != nil && method == "WaitForUpdatesEx":
		g.poll(l, rw, r, body)
	case l != nil && method == "CreateFilter":
		l.making.Lock()
		defer l.making.Unlock()
		g.interrupt(l, r, string(collectorID.FindSubmatch(body)[1]))
		g.send(rw, r, body)
	default:
		g.send(rw, r, body)
	}
}

func (g *gate) poll(l *lane, rw http.ResponseWriter, r *http.Request, body []byte) {
	for {
		l.making.Lock()
		l.mu.Lock()
		done := make(chan struct{})
		l.polling, l.ended = done, false
		l.mu.Unlock()
		l.making.Unlock()
		rec := httptest.NewRecorder()
		g.send(rec, r, body)
		l.mu.Lock()
		again := l.ended && rec.Code == http.StatusInternalServerError
		l.polling = nil
		l.mu.Unlock()
		close(done)
		if !again {
			rw.WriteHeader(rec.Code)
			rw.Write(rec.Body.Bytes()) //nolint:errcheck // the client's error tells
			return
		}
		body = versionTag.ReplaceAll(body, []byte("<version></version>"))
	}
}

// interrupt ends the simulator's poll, if there is one.
func (g *gate) interrupt(l *lane, r *http.Request, id string) {
	cancel := fmt.Sprintf(`<?xml version="1.0"?><Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>`+
		`<CancelWaitForUpdates xmlns="urn:vim25"><_this type="PropertyCollector">%s</_this></CancelWaitForUpdates></Body></Envelope>`, id)
	for {
		l.mu.Lock()
		polling := l.polling
		l.ended = true
		l.mu.Unlock()
		if polling == nil {
			return
		}
		g.send(httptest.NewRecorder(), r, []byte(cancel))
		select {
		case <-polling:
		case <-time.After(5 * time.Millisecond): // it may not have begun to wait
		}
	}
}
