package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// AuditEntry is one entry of the audit log.
type AuditEntry struct {
	Number uint64    `json:"number"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	Where  string    `json:"where"`
	What   string    `json:"what"`
	Object string    `json:"object"`
	Result string    `json:"result" doc:"intended, done, failed, refused"`
	Reason string    `json:"reason"`
	Former string    `json:"former" doc:"SHA-256 of the entry before"`
}

func (s *Server) auditRoutes() {
	handle(s, operation{id: "audit:list", method: http.MethodGet, path: "/audit", summary: "List the audit log, the newest first"}, s.listAudit)
}

func (s *Server) listAudit(_ context.Context, in *Page) (*body[List[AuditEntry]], error) {
	before := int64(0)
	if in.Cursor != "" {
		n, err := strconv.ParseInt(in.Cursor, 36, 64)
		if err != nil || n <= 0 {
			return nil, ErrCursor
		}
		before = n
	}
	entries, before, err := s.b.Audit.Entries(before, in.Limit)
	items := make([]AuditEntry, len(entries))
	for i, e := range entries {
		items[i] = AuditEntry{e.Number, e.At, e.Who, e.Where, e.What, e.Object, string(e.Result), e.Reason, e.Former}
	}
	next := ""
	if before > 0 {
		next = strconv.FormatInt(before, 36)
	}
	return listed(items, next, err)
}
