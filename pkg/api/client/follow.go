package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/api"
)

// ErrResync says that events were missed: read what is of interest anew, then follow again.
var ErrResync = errors.New("events were missed")

var errSilent = errors.New("the daemon sent neither event nor heartbeat for a minute")

// Follow calls f for each event of the topics, none meaning all, after the one with the id last, until ctx ends, f or the
// stream fails, or ErrResync. It is the end of the stream, without error, when the daemon stops.
func (c *Client) Follow(ctx context.Context, topics []string, last string, f func(api.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := url.Values{}
	set(q, "topics", strings.Join(topics, ","))
	header := http.Header{"Accept": {"text/event-stream"}}
	if last != "" {
		header.Set("Last-Event-ID", last)
	}
	silence := time.AfterFunc(streamAlive, func() { cancel(errSilent) })
	defer silence.Stop()
	answer, err := c.send(ctx, request{method: http.MethodGet, path: join([]string{"events"}), query: q}, header)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxFrame)
	for lines.Scan() {
		silence.Reset(streamAlive)
		line := lines.Text()
		if line == "event: "+api.Resync {
			return ErrResync
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e api.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("read an event of the daemon: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return lines.Err()
}
