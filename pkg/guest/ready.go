package guest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseReady reads what an agent says at its start: "READY <64 hex> <port> [<pid>]" or "ERROR <code> <text>". The pid is that of the process that serves,
// where another one was started; without it, and with an error, it is 0. The port is 0 exactly where the agent does not listen.
func ParseReady(line string, listens bool) (Identity, error) {
	var id Identity
	bad := func(err error) (Identity, error) {
		return Identity{}, &Error{SF: "SF3703", Op: "read what the agent said at its start", Err: err}
	}
	line = strings.TrimSpace(line)
	if text, ok := strings.CutPrefix(line, "ERROR "); ok {
		code, text, _ := strings.Cut(text, " ")
		if AgentCode(code, "") == "" {
			return bad(fmt.Errorf("%.80q has no code of an agent", line))
		}
		return id, &Error{SF: code, Op: "start the agent", Err: errors.New("the agent answered: " + text)}
	}
	fields := strings.Fields(line)
	if len(fields) < 3 || len(fields) > 4 || fields[0] != "READY" {
		return bad(fmt.Errorf("%.80q is not READY", line))
	}
	raw, err := hex.DecodeString(fields[1])
	if err != nil || len(raw) != len(id.Fingerprint) {
		return bad(fmt.Errorf("%.80q is not a fingerprint", fields[1]))
	}
	port, err := strconv.ParseUint(fields[2], 10, 16)
	if err != nil || (port > 0) != listens {
		return bad(fmt.Errorf("%.80q is not a port", fields[2]))
	}
	if len(fields) == 4 {
		if id.PID, err = strconv.ParseInt(fields[3], 10, 64); err != nil || id.PID <= 0 {
			return bad(fmt.Errorf("%.80q is not a process id", fields[3]))
		}
	}
	copy(id.Fingerprint[:], raw)
	id.Port = uint16(port)
	return id, nil
}
