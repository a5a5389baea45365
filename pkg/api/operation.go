package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// readLimit is how long the backends may take to find an answer.
const readLimit = 30 * time.Second

// operation is what the operations differ in.
type operation struct {
	id, method, path, summary, about string
	status                           int
	limit                            time.Duration
}

// handle registers one operation. Its errors become problems; huma's own have become some already.
func handle[I, O any](s *Server, o operation, f func(context.Context, *I) (*O, error)) {
	op := describe(o)
	if o.limit == 0 {
		o.limit = readLimit
	}
	huma.Register(s.huma, op, func(ctx context.Context, in *I) (*O, error) {
		limited, cancel := context.WithTimeout(ctx, o.limit)
		defer cancel()
		out, err := f(limited, in)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return out, nil
	})
}

func describe(o operation) huma.Operation {
	scope := scopes[o.id]
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: Prefix + o.path, Summary: o.summary, Description: o.about, DefaultStatus: o.status,
		MaxBodyBytes: maxBody, BodyReadTimeout: headerLimit,
		Security: []map[string][]string{{"token": {string(scope)}}},
	}
	return op
}

// Page says which part of a list is wanted.
type Page struct {
	Cursor string `query:"cursor" maxLength:"512" pattern:"^[A-Za-z0-9_=-]*$" doc:"The next_cursor of the part before; empty for the first"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
}

// List is one part of a list.
type List[T any] struct {
	Items []T `json:"items" nullable:"false"`
	// NextCursor is empty at the end.
	NextCursor string `json:"next_cursor" doc:"Empty at the end"`
}

// body is an answer that is only a body.
type body[T any] struct{ Body T }

func answered[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

func listed[T any](items []T, next string, err error) (*body[List[T]], error) {
	return answered(List[T]{orEmpty(items), next}, err)
}

// nothing is an answer without body, or a request without parameters.
type nothing struct{}
