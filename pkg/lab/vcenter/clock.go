package vcenter

import (
	"fmt"
	"net/http"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// SetClock sets vCenter's wall clock to this machine's and off, which may be below 0. It is what tasks are stamped with
// from now on, and what CurrentTime answers; stamps that were made stay. Nothing else of the lab goes by it.
func (s *Server) SetClock(off time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
}

// wallClock is what vCenter takes for now.
func (s *Server) wallClock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.off)
}

// currentTime answers CurrentTime; false when the call is another one.
func (s *Server) currentTime(r *http.Request, m *simulator.Method) (answer, bool) {
	if _, ok := m.Body.(*types.CurrentTime); !ok {
		return answer{}, false
	}
	if refusal, ok := s.authenticated(r); !ok {
		return refusal, true
	}
	return xmlAnswer(http.StatusOK, fmt.Sprintf(`<CurrentTimeResponse xmlns="urn:%s"><returnval>%s</returnval></CurrentTimeResponse>`,
		vim25.Namespace, s.wallClock().UTC().Format(time.RFC3339Nano))), true
}

// hostTime answers QueryDateTime, which the simulator does not know, for all hosts: they have one reference for it. A host of the
// condition far_host has one of its own, and answers late.
func (s *Server) hostTime(r *http.Request, m *simulator.Method) (answer, bool) {
	if _, ok := m.Body.(*types.QueryDateTime); !ok {
		return answer{}, false
	}
	if refusal, ok := s.authenticated(r); !ok {
		return refusal, true
	}
	if m.This.Value == farClock {
		s.pause(r.Context(), farAway)
	}
	return resultAnswer("QueryDateTime", &types.QueryDateTimeResponse{Returnval: s.wallClock().UTC()}), true
}
