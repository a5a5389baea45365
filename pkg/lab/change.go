package lab

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/goccy/go-yaml"
)

// maxChange bounds the body of one POST, in bytes.
const maxChange = 1 << 16

// adminChanges adds the POSTs. A body is one JSON object with the keys of a scenario; unknown ones are errors. The answer
// is 204, or 400 with the reason.
func (w *World) adminChanges(mux *http.ServeMux) {
	change(mux, "POST /rtt", func(_ *http.Request, body struct {
		RTT time.Duration `yaml:"rtt"`
	},
	) error {
		if body.RTT < 0 {
			return errors.New("rtt is below 0")
		}
		w.vcenter.SetRTT(body.RTT)
		return nil
	})
	change(mux, "POST /plan", func(_ *http.Request, f Fault) error { return w.plan(f) })
	mux.HandleFunc("DELETE /plan", func(rw http.ResponseWriter, _ *http.Request) {
		w.vcenter.ClearPlan()
		rw.WriteHeader(http.StatusNoContent)
	})
	change(mux, "POST /vcenter/{do}", func(r *http.Request, body struct {
		For time.Duration `yaml:"for"`
		By  time.Duration `yaml:"by"`
	},
	) error {
		switch do := r.PathValue("do"); do {
		case "start":
			return w.happen(Event{Do: "vcenter_restart"})
		case "speak":
			w.vcenter.Speak()
			return nil
		default:
			return w.happen(Event{Do: "vcenter_" + do, For: body.For, By: body.By})
		}
	})
	change(mux, "POST /vm/{name}/do", func(r *http.Request, e Event) error {
		e.VM = r.PathValue("name")
		return w.happen(e)
	})
	change(mux, "POST /vm/{name}/stun", func(r *http.Request, body struct {
		For time.Duration `yaml:"for"`
	},
	) error {
		return w.happen(Event{VM: r.PathValue("name"), Do: "stun", For: body.For})
	})
	w.adminVMChanges(mux)
}

// adminVMChanges adds the POSTs that set a state of one VM.
func (w *World) adminVMChanges(mux *http.ServeMux) {
	change(mux, "POST /vm/{name}/power", func(r *http.Request, body struct {
		State string `yaml:"state"`
	},
	) error {
		state, ok := map[string]string{"on": "poweredOn", "off": "poweredOff", "suspended": "suspended"}[body.State]
		if !ok {
			return fmt.Errorf("state %q is not on, off or suspended", body.State)
		}
		return w.vcenter.SetPower(r.PathValue("name"), state)
	})
	change(mux, "POST /vm/{name}/tools", func(r *http.Request, body struct {
		State string `yaml:"state"`
	},
	) error {
		if !oneOf(body.State, "running", "absent") {
			return fmt.Errorf("state %q is not running or absent", body.State)
		}
		return w.vcenter.SetTools(r.PathValue("name"), body.State == "running")
	})
	change(mux, "POST /vm/{name}/address", func(r *http.Request, body struct {
		Address string `yaml:"address"`
	},
	) error {
		return w.vcenter.SetAddress(r.PathValue("name"), body.Address)
	})
	change(mux, "POST /vm/{name}/proxy", func(r *http.Request, n Network) error {
		m := w.machine(r.PathValue("name"))
		if m == nil {
			return errors.New("no VM with a guest of that name")
		}
		return m.proxy.Shape(n.shape())
	})
	change(mux, "POST /vm/{name}/snapshot", func(r *http.Request, p Plan) error {
		return w.vcenter.PlanCreate(r.PathValue("name"), p.task())
	})
	change(mux, "POST /vm/{name}/remove", func(r *http.Request, p Plan) error {
		return w.vcenter.PlanRemove(r.PathValue("name"), p.task())
	})
}

// happen does an event now, and undoes it after its time without anybody waiting.
func (w *World) happen(e Event) error {
	e.At = "start"
	m, kinds := w.machine(e.VM), map[string]string{}
	if m != nil {
		kinds[e.VM] = m.vm.Guest
	}
	if err := e.check(kinds); err != nil {
		return err
	}
	undo, err := w.do(e, m)
	w.note(e.Do, e.VM, err)
	if undo != nil && e.For > 0 {
		w.done.Go(func() {
			if w.pause(e.For) {
				w.note("end of "+e.Do, e.VM, undo())
			}
		})
	}
	return err
}

// change serves one POST with a body of type T; an empty body is its zero.
func change[T any](mux *http.ServeMux, pattern string, do func(r *http.Request, body T) error) {
	mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
		var body T
		text, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxChange))
		if err == nil && len(text) > 0 {
			err = yaml.UnmarshalWithOptions(text, &body, yaml.Strict()) // JSON is YAML
		}
		if err == nil {
			err = do(r, body)
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		rw.WriteHeader(http.StatusNoContent)
	})
}
