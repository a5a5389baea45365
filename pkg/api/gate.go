package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// gate is what every request passes before anything else looks at it.
func (s *Server) gate(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, newProblem(http.StatusForbidden, "SF1715", "a browser sent this from a page of another site"))
	}))
	inner := cross.Handler(s.identify(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, begun := uuid.NewString(), s.now()
		answer := http.NewResponseController(w)
		ctx := context.WithValue(context.WithValue(r.Context(), requestKey, id), answerKey, answer)
		r = r.WithContext(ctx)
		h := w.Header()
		h.Set("X-Request-Id", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		status := &statusWriter{ResponseWriter: w}
		if err := answer.SetWriteDeadline(time.Now().Add(answerLimit)); err != nil {
			s.log.Debug("no write deadline", zap.Error(err))
		}
		defer func() {
			s.recovered(status, r, recover())
			s.told(r, id, status.status, s.now().Sub(begun))
		}()
		// The mux would send whoever asks for //x to /x, and so repeat the path.
		if r.URL.Path != path.Clean(r.URL.Path) {
			s.answer(status, r, newProblem(http.StatusNotFound, "SF1717", "there is no such path"))
			return
		}
		inner.ServeHTTP(status, r)
	})
}

// told logs a request without anything that was sent: a path is logged as its pattern.
func (s *Server) told(r *http.Request, id string, status int, took time.Duration) {
	log := s.log.Debug
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		log = s.log.Info
	}
	log("request", zap.String("request", id), zap.String("pattern", r.Pattern), zap.Int("status", status), zap.Duration("took", took))
}

// recovered answers for a handler that panicked. What it panicked with may hold what was sent and is not logged.
func (s *Server) recovered(w *statusWriter, r *http.Request, thrown any) {
	if thrown == nil {
		return
	}
	if thrown == http.ErrAbortHandler { //nolint:errorlint // net/http compares it in the same way
		panic(thrown)
	}
	s.log.Error("handler panicked", zap.String("request", requestID(r.Context())), zap.String("type", fmt.Sprintf("%T", thrown)), zap.Stack("stack"))
	if w.status == 0 {
		s.answer(w, r, newProblem(http.StatusInternalServerError, "SF1720", "the log of the daemon has the details under the request id"))
	}
}

// identify puts the caller into the context. Only what monitors ask for needs none.
func (s *Server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		caller, refused := s.caller(r)
		if refused != nil {
			s.answer(w, r, refused)
			return
		}
		named := r.WithContext(context.WithValue(r.Context(), callerKey, caller))
		next.ServeHTTP(w, named)
		r.Pattern = named.Pattern
	})
}

// answer sends a problem.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.Request = requestID(r.Context())
	w.Header().Set("Content-Type", p.ContentType(""))
	maps.Copy(w.Header(), p.GetHeaders())
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.log.Debug("answer not sent", zap.Error(err))
	}
}

// host is an address without its port.
func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return strings.ToLower(h)
}

// extend gives the answer of a request more time from now on.
func extend(ctx context.Context, d time.Duration) {
	if c, ok := ctx.Value(answerKey).(*http.ResponseController); ok {
		until := time.Now().Add(d)
		// The deadline for reading would end the request, too: the server reads on to see a caller that hangs up.
		if errors.Join(c.SetReadDeadline(until), c.SetWriteDeadline(until)) != nil {
			return // a connection that is gone says so at the next write
		}
	}
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
