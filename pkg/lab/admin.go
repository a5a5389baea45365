package lab

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/disks"
	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// Call is one exchange with vCenter, as the front saw it.
type Call struct {
	Method string    `json:"method"`
	Object string    `json:"object"`
	VM     string    `json:"vm,omitempty"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end,omitzero"`
	Status int       `json:"status"`
	Fault  string    `json:"fault,omitempty"`
}

// HoldsOf is what the lab itself saw of a guest's holds.
type HoldsOf struct {
	Kind         string        `json:"kind"`
	Acknowledged uint64        `json:"acknowledged"`
	Holds        []guests.Hold `json:"holds"`
	// LongestStallSeconds bounds every hold from above.
	LongestStallSeconds float64     `json:"longest_stall_seconds"`
	HeldNow             bool        `json:"held_now"`
	Rescues             []time.Time `json:"rescues"`
	Error               string      `json:"error,omitempty"`
	// VSS is how long a wine guest's writers and volumes were held, by the fakes' own trace; absent for others.
	VSS *guests.Held `json:"vss,omitempty"`
}

// SnapshotsOf is what snapshots a VM has and had.
type SnapshotsOf struct {
	// Names are those that vCenter has now.
	Names  []string      `json:"names"`
	Images []disks.Image `json:"images"`
}

// State is the world as a whole.
type State struct {
	Scenario string             `json:"scenario"`
	Happened []Happening        `json:"happened"`
	Guests   map[string]HoldsOf `json:"guests"`
	Links    map[string]Link    `json:"links"`
	Calls    int                `json:"calls"`
}

// Link is what the way to one guest's agent has carried, in bytes.
type Link struct {
	ToGuest   int64 `json:"to_guest"`
	FromGuest int64 `json:"from_guest"`
}

// Holds is the witness of a guest; ok is false when there is no guest of that name.
func (w *World) Holds(name string) (HoldsOf, bool) {
	g, ok := w.Guest(name)
	if !ok {
		return HoldsOf{}, false
	}
	h := HoldsOf{
		Kind: g.Kind(), Acknowledged: g.Acknowledged(), Holds: g.Holds(),
		LongestStallSeconds: g.LongestStall().Seconds(), Rescues: g.Rescues(),
	}
	if n := len(h.Holds); n > 0 {
		h.HeldNow = h.Holds[n-1].To.IsZero()
	}
	if windows, ok := g.(*guests.Wine); ok {
		held := windows.Held()
		h.VSS = &held
	}
	if err := g.Err(); err != nil {
		h.Error = err.Error()
	}
	return h, true
}

// State describes the world.
func (w *World) State() State {
	s := State{Scenario: w.scenario.Name, Happened: w.Happenings(), Guests: map[string]HoldsOf{}, Links: map[string]Link{}, Calls: len(w.vcenter.Calls())}
	for _, m := range w.machines {
		if h, ok := w.Holds(m.vm.Name); ok {
			s.Guests[m.vm.Name] = h
			to, from := m.proxy.Carried()
			s.Links[m.vm.Name] = Link{to, from}
		}
	}
	return s
}

// Admin answers GET /calls, /state, /vm/<name>/holds, /vm/<name>/windows, /vm/<name>/ways and /vm/<name>/snapshots in JSON, and the POSTs of docs/vcsim.md,
// which change the world. It has no login: serve it on loopback only.
func (w *World) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /calls", func(rw http.ResponseWriter, _ *http.Request) {
		calls := []Call{}
		for _, c := range w.vcenter.Calls() {
			calls = append(calls, Call{
				Method: c.Method, Object: c.Object, VM: c.VM, Start: c.Start, End: c.End, Status: c.Status, Fault: c.Fault,
			})
		}
		answer(rw, calls, true)
	})
	mux.HandleFunc("GET /state", func(rw http.ResponseWriter, _ *http.Request) { answer(rw, w.State(), true) })
	mux.HandleFunc("GET /vm/{name}/holds", func(rw http.ResponseWriter, r *http.Request) {
		h, ok := w.Holds(r.PathValue("name"))
		answer(rw, h, ok)
	})
	mux.HandleFunc("GET /vm/{name}/windows", func(rw http.ResponseWriter, r *http.Request) {
		look, ok, err := w.Look(r.Context(), r.PathValue("name"))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(rw, look, ok)
	})
	mux.HandleFunc("GET /vm/{name}/ways", func(rw http.ResponseWriter, r *http.Request) {
		seen, ok, err := w.WaysOf(r.PathValue("name"))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(rw, seen, ok)
	})
	mux.HandleFunc("GET /vm/{name}/snapshots", func(rw http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		known := false
		for _, m := range w.machines {
			known = known || m.vm.Name == name
		}
		s := SnapshotsOf{Names: []string{}, Images: w.disks.Images(name)}
		if known {
			s.Names = append(s.Names, w.vcenter.SnapshotNames(name)...)
		}
		answer(rw, s, known)
	})
	w.adminChanges(mux)
	w.adminApplications(mux)
	return mux
}

// answer writes v, or 404 when there is nothing of that name.
func answer(rw http.ResponseWriter, v any, found bool) {
	if !found {
		http.Error(rw, `{"error":"no VM of that name"}`, http.StatusNotFound)
		return
	}
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	if _, err := rw.Write(append(body, '\n')); err != nil {
		return // the one who asked has gone
	}
}
