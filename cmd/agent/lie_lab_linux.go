//go:build lab

package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
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

func (pretender) Freeze(_ context.Context, started func()) error { started(); return nil }

func (pretender) Thaw(context.Context) []protocol.ThawResult {
	return []protocol.ThawResult{{Mount: scriptedPoint, OK: true}}
}

func (pretender) Close() error { return nil }

// masked puts a mask over each connection of an agent that lies.
func masked(s seams, l net.Listener) net.Listener {
	if s.lie == "" || s.lie == lieNeverHeld {
		return l
	}
	return maskedListener{l, s.lie}
}

type maskedListener struct {
	net.Listener
	lie string
}

func (l maskedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return maskedConn{conn, l.lie}, nil
}

// maskedConn changes words on their way out. The agent writes each frame at once.
type maskedConn struct {
	net.Conn
	lie string
}

func (c maskedConn) Write(frame []byte) (int, error) {
	out, err := twist(c.lie, frame)
	if err != nil {
		return 0, err
	}
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(frame), nil
}

// twist rewrites one frame.
func twist(lie string, frame []byte) ([]byte, error) {
	if len(frame) < 4 || int(binary.BigEndian.Uint32(frame)) != len(frame)-4 {
		return nil, io.ErrShortWrite
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
