//go:build lab

package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// What an agent can be told to lie about (STILLFRAME_LAB_LIE), to see what an orchestrator makes of it.
const (
	// lieNeverHeld freezes nothing and says that it held everything.
	lieNeverHeld = "never_held"
	// lieStillHeld says in THAWED that it held until THAW came and finished cleanly, whatever happened.
	lieStillHeld = "still_held"
	// lieOtherGo says in FROZEN the id of a GO that nobody sent.
	lieOtherGo = "other_go"
	// lieEarlyGo says in FROZEN that the hold began an hour after GO.
	lieEarlyGo = "early_go"
	// lieShortHold says in FROZEN and THAWED that the hold lasted 1 µs.
	lieShortHold = "short_hold"
)

// pretender is a freezer that holds nothing and says that it does.
type pretender struct{}

var _ agent.Freezer = pretender{}

func (pretender) Volumes(context.Context) ([]protocol.Volume, error) {
	return []protocol.Volume{scriptedVolume()}, nil
}

func (pretender) Prepare(context.Context, agent.PrepareRequest) (agent.Prepared, error) {
	return agent.Prepared{Volumes: []protocol.Volume{scriptedVolume()}}, nil
}

func (pretender) Freeze(_ context.Context, started func()) (agent.Held, error) {
	started()
	return agent.Held{}, nil
}

func (pretender) Thaw(context.Context) agent.Release {
	return agent.Release{Results: []protocol.ThawResult{{Mount: scriptedPoint, OK: true}}}
}

func (pretender) Close() error { return nil }

// twist rewrites one whole frame by a lie.
func twist(lie string, frame []byte) ([]byte, error) {
	if lie == "" || lie == lieNeverHeld {
		return frame, nil
	}
	var word map[string]json.RawMessage
	if err := json.Unmarshal(frame[4:], &word); err != nil {
		return nil, err
	}
	set := func(key string, value any) error {
		text, err := json.Marshal(value)
		word[key] = text
		return err
	}
	var err error
	switch t := string(word["t"]); {
	case lie == lieOtherGo && t == `"FROZEN"`:
		err = set("go", uint64(4711))
	case lie == lieEarlyGo && t == `"FROZEN"`:
		err = set("since_go_us", time.Hour.Microseconds())
	case lie == lieShortHold && (t == `"FROZEN"` || t == `"THAWED"`):
		err = errors.Join(set("hold_us", 1), set("held_us", 1))
	case lie == lieStillHeld && t == `"THAWED"`:
		err = errors.Join(set("was_held", true), set("expired", false), set("expired_by", "none"), set("finished", true),
			set("thaw_results", []protocol.ThawResult{{Mount: scriptedPoint, OK: true}}))
	default:
		return frame, nil
	}
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(word)
	if err != nil {
		return nil, err
	}
	return protocol.AppendFrame(nil, body)
}
