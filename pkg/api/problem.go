package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/audit"
)

// What the interfaces of this package answer when it is not a fault of the daemon.
var (
	// ErrUnknown says that there is no object by that name or id.
	ErrUnknown = errors.New("there is nothing by that name or id")
	// ErrConflict says that the object's state does not allow the change.
	ErrConflict = errors.New("the state of the object does not allow this")
	// ErrNotReady says that no new work is taken: the daemon starts, recovers or drains.
	ErrNotReady = errors.New("no new work is taken now")
	// ErrKeyReused says that an Idempotency-Key was kept with another request.
	ErrKeyReused = errors.New("the key was used for another request")
	// ErrCursor says that a cursor is none of ours, or is too old.
	ErrCursor = errors.New("the cursor cannot be used")
)

// Problem is the answer when a request fails (RFC 9457). It never holds a value that was sent: a mistyped field may be a
// password.
type Problem struct {
	Type   string `json:"type" doc:"Where the code is documented, relative to the root of the source tree; about:blank without a code"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// SF is the code of the error catalogue.
	SF string `json:"code,omitempty" doc:"Code of the error catalogue"`
	// Request is the id under which the daemon's log has this request.
	Request string   `json:"request_id,omitempty"`
	Next    []string `json:"next,omitempty" doc:"What to do, the most useful first"`
	Errors  []Fault  `json:"errors,omitempty" doc:"Everything that is wrong, all at once"`
}

// Fault is one thing that is wrong with a request or with the configuration.
type Fault struct {
	Location string `json:"location" doc:"Such as body.vm or query.limit, or file:line:column"`
	Message  string `json:"message"`
}

func (p *Problem) Error() string {
	text := p.Detail
	for _, f := range p.Errors {
		text += "\n" + f.Location + ": " + f.Message
	}
	return text
}

// Code is the code of the error catalogue, empty if there is none.
func (p *Problem) Code() string { return p.SF }

// GetStatus is huma's name for the status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// GetHeaders is huma's name for what goes with the answer: when a request that came too early may come again, and how to say
// who one is.
func (p *Problem) GetHeaders() http.Header {
	switch p.Status {
	case http.StatusTooManyRequests:
		return http.Header{"Retry-After": {strconv.Itoa(int(lockoutFor / time.Second))}}
	case http.StatusServiceUnavailable:
		return http.Header{"Retry-After": {"5"}}
	case http.StatusUnauthorized:
		return http.Header{"Www-Authenticate": {"Bearer"}}
	}
	return nil
}

// newProblem makes the problem of a code. The details are constant texts.
func newProblem(status int, code, detail string) *Problem {
	p := &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, SF: code}
	if entry, ok := advice.Lookup(advice.Code(code)); ok {
		p.Type, p.Title, p.Next = advice.Page(entry.Code), entry.Meaning, entry.Steps()
	}
	return p
}

// statusOf are the codes of other packages that callers of the API can meet.
var statusOf = map[string]int{
	"SF1101": http.StatusServiceUnavailable, "SF1102": http.StatusServiceUnavailable, "SF1103": http.StatusConflict,
	"SF1701": http.StatusServiceUnavailable, "SF2009": http.StatusNotFound,
}

// problem turns an error into an answer. What is not known to be harmless goes to the log only, under the request's id.
func (s *Server) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var coded interface{ Code() string }
	switch {
	case errors.Is(err, audit.ErrUnwritable):
		s.log.Error("audit log not writable, change refused", zap.String("request", requestID(ctx)), zap.Error(err))
		return newProblem(http.StatusServiceUnavailable, "SF1701", "nothing was changed")
	case errors.Is(err, ErrUnknown):
		return newProblem(http.StatusNotFound, "SF1717", "there is nothing by that name or id")
	case errors.Is(err, ErrConflict):
		return newProblem(http.StatusConflict, "SF1718", "the state of the object does not allow this")
	case errors.Is(err, ErrNotReady):
		return newProblem(http.StatusServiceUnavailable, "SF1719", "no new work is taken now")
	case errors.Is(err, ErrKeyReused):
		return newProblem(http.StatusUnprocessableEntity, "SF1716", "nothing was changed")
	case errors.Is(err, ErrCursor):
		return invalid(Fault{"query.cursor", "is none of ours, or too old: begin without a cursor"})
	}
	s.log.Error("request failed", zap.String("request", requestID(ctx)), zap.Error(err))
	if errors.As(err, &coded) {
		if _, known := advice.Lookup(advice.Code(coded.Code())); known {
			status, listed := statusOf[coded.Code()]
			if !listed {
				status = http.StatusInternalServerError
			}
			return newProblem(status, coded.Code(), "the log of the daemon has the details under the request id")
		}
	}
	return newProblem(http.StatusInternalServerError, "SF1720", "the log of the daemon has the details under the request id")
}

// invalid is the answer to a request that cannot be used.
func invalid(faults ...Fault) *Problem {
	p := newProblem(http.StatusUnprocessableEntity, "SF1715", "nothing was changed")
	p.Errors = faults
	return p
}

// replaceErrors makes huma answer with our problems. Its own quote the whole body at each mistake, and it has no other
// place to change that than a package variable.
var replaceErrors = sync.OnceFunc(func() {
	huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
		code := "SF1715"
		if status >= http.StatusInternalServerError {
			code = "SF1720"
		}
		p := newProblem(status, code, words(detail, "the request cannot be used"))
		for _, err := range errs {
			var d huma.ErrorDetailer
			if errors.As(err, &d) {
				p.Errors = append(p.Errors, fault(d.ErrorDetail()))
			}
		}
		return p
	}
	huma.NewErrorWithContext = func(_ huma.Context, status int, detail string, errs ...error) huma.StatusError {
		return huma.NewError(status, detail, errs...)
	}
})

// fault takes over place and text of one of huma's details, never its value.
func fault(d *huma.ErrorDetail) Fault {
	other := "is not valid"
	if d.Location == "body" {
		other = "cannot be read: it must be JSON of the documented form"
	}
	return Fault{d.Location, words(d.Message, other)}
}

// constant are huma's texts that hold nothing but what our own schema says. All others may quote the request: the name of
// an unknown format, the first wrong character of a body.
var constant = []string{
	"unexpected property", "unknown query parameter", "required ", "expected required property ", "expected value to be one of ",
	"expected number", "expected integer", "expected boolean", "expected array", "expected object", "expected length ",
	"expected string to match pattern ", "expected string to be RFC 3339 ", "invalid integer", "invalid boolean", "invalid date/time for format ",
	"request body is ", "validation failed",
}

func words(text, other string) string {
	if text == "expected string" || slices.ContainsFunc(constant, func(prefix string) bool { return strings.HasPrefix(text, prefix) }) {
		return text
	}
	return other
}

// clean cuts places down to names of our own schema: an unknown key of a body is something that was sent, too.
func (s *Server) clean(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*Problem)
	if !ok {
		return v, nil
	}
	p.Request = requestID(ctx.Context())
	for i := range p.Errors {
		f := &p.Errors[i]
		if strings.HasPrefix(f.Message, "unexpected property") || strings.HasPrefix(f.Message, "unknown query parameter") {
			f.Message = f.Message + " beside " + strings.Join(s.known.of(ctx.Operation(), f.Location), ", ")
		}
		f.Location = s.known.cut(f.Location)
	}
	return p, nil
}
