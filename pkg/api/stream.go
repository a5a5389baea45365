package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// Times of the event stream.
const (
	heartbeat  = 15 * time.Second
	eventLimit = 5 * time.Second // to write one event
)

// Resync is the name of the event that says that others were missed: read everything anew.
const Resync = "resync"

type followEvents struct {
	Topics []string `query:"topics" enum:"jobs,runs,windows,vms,snapshots,system" doc:"One or more, separated by commas; none means all"`
	Last   string   `header:"Last-Event-ID" maxLength:"64" doc:"The id of the last event that was read"`
}

func (s *Server) eventRoutes() {
	handle(s, operation{
		id: "events:follow", method: http.MethodGet, path: "/events", summary: "Follow what happens (server-sent events)",
		about: "Each event has an id; Last-Event-ID goes on after it as long as it is among the last 1,000. An event resync says that some were missed. A comment comes every 15 s. Who has 64 events waiting is dropped.",
	}, s.followEvents)
	doc := s.huma.OpenAPI()
	doc.Paths[Prefix+"/events"].Get.Responses["200"].Content = map[string]*huma.MediaType{
		"text/event-stream": {Schema: doc.Components.Schemas.Schema(reflect.TypeFor[Event](), true, "Event")},
	}
}

func (s *Server) followEvents(_ context.Context, in *followEvents) (*huma.StreamResponse, error) {
	c, missed, resync := s.b.Feed.follow(in.Topics, in.Last)
	if c == nil {
		return nil, newProblem(http.StatusServiceUnavailable, "SF1721", "too many event streams are open")
	}
	return &huma.StreamResponse{Body: func(h huma.Context) { //nolint:contextcheck // h has the context of the request; ours ends with this function
		defer s.b.Feed.leave(c)
		if err := stream(h, c, missed, resync); err != nil {
			s.log.Debug("event stream ended", zap.Error(err))
		}
	}}, nil
}

// stream writes events until the client goes away, is too slow, or the feed ends.
func stream(h huma.Context, c *client, missed []Event, resync bool) error {
	answer, ok := h.Context().Value(answerKey).(*http.ResponseController)
	if !ok {
		return http.ErrNotSupported
	}
	// The limit for reading a request would end the stream.
	if err := answer.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	write := func(text string) error {
		if err := answer.SetWriteDeadline(time.Now().Add(eventLimit)); err != nil {
			return err
		}
		if _, err := h.BodyWriter().Write([]byte(text)); err != nil {
			return err
		}
		return answer.Flush()
	}
	h.SetHeader("Content-Type", "text/event-stream")
	h.SetStatus(http.StatusOK)
	first := ": stillframe\n\n"
	if resync {
		first = "event: " + Resync + "\ndata: {}\n\n"
	}
	if err := write(first); err != nil {
		return err
	}
	for _, e := range missed {
		if err := write(frame(e)); err != nil {
			return err
		}
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-h.Context().Done():
			return context.Cause(h.Context())
		case <-beat.C:
			if err := write(": alive\n\n"); err != nil {
				return err
			}
		case e, open := <-c.events:
			if !open && c.slow {
				return write("event: " + Resync + "\ndata: {}\n\n")
			}
			if !open {
				return nil
			}
			if err := write(frame(e)); err != nil {
				return err
			}
		}
	}
}

// frame is an event on the wire. JSON has no line ends inside, so one data line holds it.
func frame(e Event) string {
	data, err := json.Marshal(e)
	if err != nil {
		data = []byte("{}") // what was published cannot be told; the id still counts
	}
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Topic, data)
}
