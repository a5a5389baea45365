package vss

import (
	"fmt"
	"slices"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// status is how one writer says it is, in our own session.
type status struct {
	class, instance com.GUID
	name            string
	state           vsscode.WriterState
	// failure is the writer's, application what the application behind it adds (GetWriterStatusEx).
	failure, application vsscode.HRESULT
	message              string
}

// well says whether the writer took part in the freeze without fault.
func (s status) well() bool { return s.state.Well() && s.failure == vsscode.S_OK }

// table joins the metadata of the writers with how they are; a writer that did not answer is in state 0 with
// VSS_E_WRITER_NOT_RESPONDING.
func table(writers []writer, all []status, p policy) []protocol.Writer {
	rows := make([]protocol.Writer, 0, len(writers))
	for _, w := range writers {
		r := p.role(w.class, w.name)
		if r == excluded {
			continue
		}
		s := statusOf(w, all)
		row := protocol.Writer{
			Name: w.name, ClassID: w.class.String(), InstanceID: w.instance.String(), State: int(s.state),
			FailureHR: s.failure.Hex(), AppHR: s.application.Hex(), AppMsg: s.message,
			Required: r == required, Components: []protocol.Component{},
		}
		for _, c := range w.components {
			row.Components = append(row.Components, protocol.Component{
				Type: int(c.kind), Path: c.path, Name: c.name, Selectable: c.selectable, OK: included(c, w.components) && s.well(), Volumes: c.volumes,
			})
		}
		rows = append(rows, row)
	}
	return rows
}

func statusOf(w writer, all []status) status {
	i := slices.IndexFunc(all, func(s status) bool { return s.class == w.class && s.instance == w.instance })
	if i < 0 {
		return status{class: w.class, instance: w.instance, name: w.name, failure: vsscode.VSS_E_WRITER_NOT_RESPONDING}
	}
	return all[i]
}

// ready refuses a freeze that a required writer cannot take part in.
func ready(writers []writer, all []status, p policy) error {
	for _, w := range writers {
		if p.role(w.class, w.name) != required {
			continue
		}
		if s := statusOf(w, all); s.state.Failed() || s.failure.Failed() {
			return &agent.CodedError{Code: codeNotReady, Err: fmt.Errorf("required writer %s is not ready: %s: %w", w.name, s.state, s.failure)}
		}
	}
	return nil
}

// lost says whether VSS has lost the status of a required writer: it is then asked once more.
func lost(writers []writer, all []status, p policy) bool {
	return slices.ContainsFunc(writers, func(w writer) bool {
		return p.role(w.class, w.name) == required && statusOf(w, all).failure == vsscode.VSS_E_WRITER_STATUS_NOT_AVAILABLE
	})
}
