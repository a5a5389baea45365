// Package client speaks to the daemon over its unix socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
)

// Limits of one call. The daemon's own are shorter, so that its answer comes first; streams have none.
const (
	callLimit   = 3 * time.Minute
	dialLimit   = 5 * time.Second
	maxAnswer   = 64 << 20
	maxProblem  = 1 << 20
	pageSize    = 500
	maxPages    = 10_000
	maxFrame    = 1 << 20
	streamAlive = time.Minute // four heartbeats
)

// Client calls the daemon. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the daemon at that socket; nothing is dialled yet.
func New(socket string) *Client {
	dialer := net.Dialer{Timeout: dialLimit}
	return &Client{socket, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Close ends the connections that are kept for later calls.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// UnreachableError says that nobody answers on the socket.
type UnreachableError struct {
	Socket string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("ask the daemon at %s: %v", e.Socket, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *UnreachableError) Code() string { return "SF1711" }

// request is one call.
type request struct {
	method, path string
	query        url.Values
	key          string
	body         any
}

// send sends a request and gives the answer if it is a success; otherwise the error is an *api.Problem. The caller closes the
// body.
func (c *Client) send(ctx context.Context, r request, header http.Header) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	at := url.URL{Scheme: "http", Host: "stillframe", Path: r.path, RawQuery: r.query.Encode()}
	req, err := http.NewRequestWithContext(ctx, r.method, at.String(), body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, &UnreachableError{c.socket, err}
	}
	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	problem := &api.Problem{}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxProblem)).Decode(problem); err != nil {
		return nil, fmt.Errorf("read the answer %s of the daemon: %w", answer.Status, err)
	}
	return nil, problem
}

// call is send for answers that are one JSON document, or none.
func call[T any](ctx context.Context, c *Client, r request) (T, error) {
	var v T
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := c.send(ctx, r, nil)
	if err != nil {
		return v, err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	if answer.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("read the answer of the daemon: %w", err)
	}
	return v, nil
}

func get[T any](ctx context.Context, c *Client, query url.Values, path ...string) (T, error) {
	return call[T](ctx, c, request{method: http.MethodGet, path: join(path), query: query})
}

// list gets all parts of a list, up to limit items; 0 means all.
func list[T any](ctx context.Context, c *Client, query url.Values, limit int, path ...string) ([]T, error) {
	var all []T
	query.Set("limit", strconv.Itoa(pageSize))
	if limit > 0 && limit < pageSize {
		query.Set("limit", strconv.Itoa(limit))
	}
	for range maxPages {
		part, err := get[api.List[T]](ctx, c, query, path...)
		if err != nil {
			return nil, err
		}
		all = append(all, part.Items...)
		if limit > 0 && len(all) >= limit {
			return all[:limit], nil
		}
		if part.NextCursor == "" {
			return all, nil
		}
		query.Set("cursor", part.NextCursor)
	}
	return nil, fmt.Errorf("the list has more than %d parts", maxPages)
}

// join makes a path of the API. What is between slashes is escaped when the URL is made.
func join(parts []string) string { return api.Prefix + "/" + strings.Join(parts, "/") }
