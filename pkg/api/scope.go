package api

import (
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/audit"
)

// scopes is what each operation demands. One that is not here is refused to everybody, and a test finds it.
var scopes = map[string]Scope{
	"jobs:list": Viewer, "jobs:get": Viewer, "jobs:run": Operator, "jobs:pause": Operator, "jobs:resume": Operator,
	"runs:list": Viewer, "runs:get": Viewer, "runs:start": Operator, "runs:cancel": Operator,
	"runs:timeline": Viewer, "runs:findings": Viewer, "runs:log": Viewer,
	"vms:list": Viewer, "vms:get": Viewer, "vms:history": Viewer, "vms:protection": Viewer,
	"windows:list": Viewer,
	// A snapshot that is removed too early takes a restore point with it.
	"snapshots:list": Viewer, "snapshots:remove": Admin,
	// The examination tries accounts and roads.
	"doctor:examine": Operator,
	"tokens:list":    Admin, "tokens:create": Admin, "tokens:revoke": Admin,
	"audit:list":    Admin,
	"config:reload": Admin,
	"events:follow": Viewer,
}

// caller finds out who sent a request: the peer of the socket or the owner of a token.
func (s *Server) caller(r *http.Request) (Caller, *Problem) {
	if peer, ok := r.Context().Value(peerKey).(Caller); ok {
		return peer, nil
	}
	c, err := s.byToken(r.Context(), r.Header.Get("Authorization"), r.RemoteAddr)
	if err == nil {
		return c, nil
	}
	if !errors.Is(err, errRefused) {
		return Caller{}, s.problem(r.Context(), err)
	}
	n := s.wrong.strike(host(r.RemoteAddr), s.now())
	if n > lockoutAfter {
		return Caller{}, newProblem(http.StatusTooManyRequests, "SF1721", "too many wrong tokens came from this address")
	}
	s.log.Warn("token refused", zap.String("from", r.RemoteAddr), zap.Int("times", n), zap.String("request", requestID(r.Context())))
	return Caller{}, newProblem(http.StatusUnauthorized, "SF1713", "a valid token is needed here")
}

// authorize lets a request through when its caller has the scope of the operation. A change that is refused is recorded.
func (s *Server) authorize(ctx huma.Context, next func(huma.Context)) {
	who, op := callerOf(ctx.Context()), ctx.Operation()
	need, listed := scopes[op.OperationID]
	if listed && who.May(need) {
		next(ctx)
		return
	}
	if op.Method != http.MethodGet {
		err := s.b.Audit.Append(audit.Event{Who: who.Name, Where: who.Where, What: op.OperationID, Result: audit.Refused, Reason: "needs the scope " + string(need)})
		if err != nil {
			s.log.Error("refusal not recorded", zap.Error(err))
		}
	}
	s.refuse(ctx, newProblem(http.StatusForbidden, "SF1714", "this needs the scope "+string(need)))
}

// refuse answers a request with a problem.
func (s *Server) refuse(ctx huma.Context, p *Problem) {
	p.Request = requestID(ctx.Context())
	ctx.SetHeader("Content-Type", p.ContentType(""))
	for name, values := range p.GetHeaders() {
		ctx.SetHeader(name, values[0])
	}
	ctx.SetStatus(p.Status)
	if err := s.huma.Marshal(ctx.BodyWriter(), "application/json", p); err != nil {
		s.log.Debug("answer not sent", zap.Error(err))
	}
}
