// Package hook runs the programs that the guest's owner wants to be run around a freeze.
package hook

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

// Limits of hooks.
const (
	// prepareLimit and preFreezeLimit bound all hooks of their point together, eachLimit one hook of pre-freeze.
	prepareLimit   = 5 * time.Minute
	preFreezeLimit = 8 * time.Second
	eachLimit      = 5 * time.Second
	// postThawLimit bounds each hook of post-thaw; they run side by side.
	postThawLimit = 30 * time.Second

	maxHooks       = 32
	maxDescription = 16 << 10 // bytes
	maxOutput      = 64 << 10 // bytes of each of stdout and stderr that are kept
	maxError       = 400      // bytes of stderr that are told
)

// Command is the agent's subcommand that runs Watchdog.
const Command = "hook-watchdog"

// suffix ends the name of a hook's description.
const suffix = ".conf"

// description is what NAME.conf says of the program NAME beside it.
type description struct {
	points   []agent.Point
	holds    bool
	required bool
	limit    time.Duration // 0: the point's own
	env      []string
}

// at says whether the hook runs at p.
func (d description) at(p agent.Point) bool { return slices.Contains(d.points, p) }

// bound is the lower of the hook's own limit and the point's.
func (d description) bound(limit time.Duration) time.Duration {
	if d.limit > 0 {
		return min(d.limit, limit)
	}
	return limit
}

// parse reads a description: lines of key=value, empty ones, and comments behind #. Unknown keys are errors. A hook is
// required unless it says otherwise.
func parse(text string) (description, error) {
	d := description{required: true}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !found {
			return d, fmt.Errorf("%q is not key=value", line)
		}
		if seen[key] {
			return d, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if err := d.set(key, value); err != nil {
			return d, err
		}
	}
	return d, d.check()
}

func (d *description) set(key, value string) (err error) {
	switch key {
	case "point":
		for p := range strings.SplitSeq(value, ",") {
			d.points = append(d.points, agent.Point(strings.TrimSpace(p)))
		}
	case "holds":
		d.holds, err = yesOrNo(key, value)
	case "required":
		d.required, err = yesOrNo(key, value)
	case "limit":
		if d.limit, err = time.ParseDuration(value); err != nil || d.limit <= 0 {
			err = fmt.Errorf("limit %q is no duration above 0, such as 4s", value)
		}
	default:
		name, ok := strings.CutPrefix(key, "env.")
		if !ok || !isVariable(name) {
			return fmt.Errorf("key %q is not known", key)
		}
		d.env = append(d.env, name+"="+value)
	}
	return err
}

// check holds the description to its rules: only a hook that holds runs while the clock of the freeze runs.
func (d description) check() error {
	if len(d.points) == 0 {
		return errors.New("point is missing")
	}
	for i, p := range d.points {
		switch {
		case p != agent.PointPrepare && p != agent.PointPreFreeze && p != agent.PointPostThaw:
			return fmt.Errorf("point %q is not prepare, pre-freeze or post-thaw", p)
		case slices.Contains(d.points[:i], p):
			return fmt.Errorf("point %s is there twice", p)
		}
	}
	if d.holds != d.at(agent.PointPreFreeze) {
		return errors.New("holds=true goes with point=pre-freeze and neither without the other: what holds nothing belongs to prepare")
	}
	return nil
}

func yesOrNo(key, value string) (bool, error) {
	yes, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s %q is not true or false", key, value)
	}
	return yes, nil
}

// isVariable tells whether s may be set: a portable name that is not one of ours.
func isVariable(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	bad := func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return !strings.ContainsFunc(s, bad) && !slices.Contains(ownVariables, s)
}

// ownVariables are those that the agent sets.
var ownVariables = []string{"STILLFRAME_RUN", "STILLFRAME_POINT", "STILLFRAME_MODE", "STILLFRAME_OK"}
