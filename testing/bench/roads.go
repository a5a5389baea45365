package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/lab/smb"
	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// The bars of the roads into a Windows guest.
const (
	serviceBar    = 1500 * time.Millisecond
	cachedBar     = 1300 * time.Millisecond
	persistentBar = 200 * time.Millisecond
	// slowerBar is what guest operations take by what the admin share takes, at farthest. Veeam's KB1680 says that they are
	// slower, and not by how much.
	slowerBar = 1
	farthest  = 50 * time.Millisecond
)

// roadRTTs are the round trips to vCenter. Guest operations cross it, the share does not.
var roadRTTs = []time.Duration{0, 20 * time.Millisecond, farthest}

// route is a way, and what becomes of the agent afterwards.
type route struct {
	way      guest.Way
	lifetime string
}

// String is the way as --road has it; of an agent that is kept it is cached.
func (r route) String() string {
	if r.lifetime == "cached" {
		return r.lifetime
	}
	return r.way.String()
}

var (
	scm, persistent = route{way: guest.WaySCM}, route{way: guest.WayPersistent}
	// cached is the share's way to a program that was kept, so that nothing is pushed.
	cached = route{guest.WaySCM, "cached"}
	// pushed bring the agent along. They take turns, so that whatever else the machine does meets all of them.
	pushed = []route{scm, {way: guest.WayWinRM}, {way: guest.WayGuestOps}}
)

// roadFigures is roads.json. Times are in milliseconds.
type roadFigures struct {
	// Runs are those of each road at each round trip, after one of the road that is not counted. The level of each was application.
	Runs       int                 `json:"runs"`
	RoundTrips []*roundTripFigures `json:"round_trips"`
	Bars       map[string]float64  `json:"bars"`
}

// roundTripFigures are the roads side by side at one round trip to vCenter.
type roundTripFigures struct {
	RTTMS float64 `json:"rtt_ms"`
	// Roads are by the words of --road, and cached. Ratios are their medians of EntryMS by that of adminshare+svcctl.
	Roads  map[string]roadTimes `json:"roads"`
	Ratios map[string]float64   `json:"ratios"`
}

// roadTimes are the times of one road at one round trip.
type roadTimes struct {
	// PushMS, StartMS (until READY) and HelloMS are the stages before the window, EntryMS their sum in each run.
	PushMS  spread `json:"push_ms"`
	StartMS spread `json:"start_ms"`
	HelloMS spread `json:"hello_ms"`
	EntryMS spread `json:"entry_ms"`
	// FreezeMS is GO sent to FROZEN received, OverheadMS from there to THAW sent less the snapshot task's own time, ThawMS
	// THAW sent to THAWED received.
	FreezeMS   spread `json:"freeze_ms"`
	OverheadMS spread `json:"overhead_ms"`
	ThawMS     spread `json:"thaw_ms"`
	// CleanupMS is the removal of the agent after the window; 0 for one that stays.
	CleanupMS spread `json:"cleanup_ms"`
}

// spread is the median and the worst of several times.
type spread struct {
	Median float64 `json:"median"`
	Worst  float64 `json:"worst"`
}

// visit is what one run took on its road.
type visit struct {
	push, start, hello, cleanup time.Duration
	freeze, overhead, thaw      time.Duration
}

// entry is the time until the agent can be spoken with.
func (v visit) entry() time.Duration { return v.push + v.start + v.hello }

// timesOf reads the times of one road out of its visits.
func timesOf(visits []visit) roadTimes {
	of := func(value func(visit) time.Duration) spread {
		var all []sample
		for _, v := range visits {
			all = append(all, sample{overhead: value(v)})
		}
		return spread{median(all), worst(all)}
	}
	return roadTimes{
		PushMS: of(func(v visit) time.Duration { return v.push }), StartMS: of(func(v visit) time.Duration { return v.start }),
		HelloMS: of(func(v visit) time.Duration { return v.hello }), EntryMS: of(visit.entry),
		FreezeMS: of(func(v visit) time.Duration { return v.freeze }), OverheadMS: of(func(v visit) time.Duration { return v.overhead }),
		ThawMS: of(func(v visit) time.Duration { return v.thaw }), CleanupMS: of(func(v visit) time.Duration { return v.cleanup }),
	}
}

func newRoadFigures(runs int) roadFigures {
	return roadFigures{Runs: runs, Bars: map[string]float64{
		"service_entry_ms": milliseconds(serviceBar), "cached_entry_ms": milliseconds(cachedBar), "persistent_entry_ms": milliseconds(persistentBar), "guestops_ratio": slowerBar,
	}}
}

// take reads the figures of one round trip out of its visits.
func (f *roadFigures) take(rtt time.Duration, visits map[string][]visit) {
	one := &roundTripFigures{RTTMS: milliseconds(rtt), Roads: map[string]roadTimes{}, Ratios: map[string]float64{}}
	for road, all := range visits {
		one.Roads[road] = timesOf(all)
	}
	for road, times := range one.Roads {
		one.Ratios[road] = times.EntryMS.Median / one.Roads[guest.WaySCM.String()].EntryMS.Median
	}
	f.RoundTrips = append(f.RoundTrips, one)
}

// missed names each bar that is missed. That of guest operations is held at the farthest vCenter only: beside this one they
// need not be slower.
func (f *roadFigures) missed() error {
	var errs []error
	miss := func(bad bool, format string, a ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	const within = "the agent can be spoken with %.0f ms after its road %s was taken, at %.0f ms to vCenter, more than %.0f"
	far := false
	for _, one := range f.RoundTrips {
		for _, b := range []struct {
			of  route
			bar float64
		}{{scm, f.Bars["service_entry_ms"]}, {cached, f.Bars["cached_entry_ms"]}, {persistent, f.Bars["persistent_entry_ms"]}} {
			took, there := one.Roads[b.of.String()]
			miss(!there || took.EntryMS.Median > b.bar, within, took.EntryMS.Median, b.of, one.RTTMS, b.bar)
		}
		if one.RTTMS == milliseconds(farthest) {
			ratio := one.Ratios[guest.WayGuestOps.String()]
			far = true
			miss(!(ratio > f.Bars["guestops_ratio"]), "guest operations take %.2f times what the admin share takes at %.0f ms to vCenter, not more than %.0f",
				ratio, one.RTTMS, f.Bars["guestops_ratio"])
		}
	}
	miss(!far, "nothing was measured at %.0f ms to vCenter", milliseconds(farthest))
	return errors.Join(errs...)
}

// lacksRoads finds out, by use, what this machine lacks of what the roads need.
func lacksRoads(ctx context.Context) error { return errors.Join(smb.Probe(ctx), wine.ProbeWine(ctx)) }

// roadsOf measures the roads, writes and prints them, and gives the bars that were missed. A machine that lacks what they need
// is an error where they are asked for by name, and a line of output beside other parts.
func roadsOf(ctx context.Context, o options, lacks func(context.Context) error, stdout io.Writer) (missed, err error) {
	path := filepath.Join(o.out, "roads.json")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // figures of an earlier run would be taken for this one's
	}
	if lacking := lacks(ctx); lacking != nil {
		lacking = fmt.Errorf("the roads into a Windows guest cannot be measured here: %w", lacking)
		if o.part == "roads" {
			return nil, lacking
		}
		_, err := fmt.Fprintf(stdout, "\nleft out: %v\n", lacking)
		return nil, err
	}
	f, err := measureRoads(ctx, o)
	if err != nil {
		return nil, err
	}
	return f.missed(), errors.Join(writeJSON(path, f), showRoads(stdout, f))
}

// measureRoads measures all roads in one world, at each round trip.
func measureRoads(ctx context.Context, o options) (f roadFigures, err error) {
	f = newRoadFigures(o.roads)
	o.agent = o.windowsAgent
	w, err := begin(ctx, o, o.roadsScenario, "world-roads")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	for _, rtt := range roadRTTs {
		w.VCenter().SetRTT(rtt)
		visits := map[string][]visit{}
		if len(f.RoundTrips) == 0 { // a longer way to vCenter leaves what is warm warm
			if err := w.travel(ctx, pushed, 1, map[string][]visit{}); err != nil {
				return f, err
			}
		}
		if err := w.travel(ctx, pushed, w.roads, visits); err != nil {
			return f, err
		}
		if err := w.travel(ctx, []route{cached}, 1, map[string][]visit{}); err != nil { // it pushes what the others find
			return f, err
		}
		if err := w.travel(ctx, []route{cached}, w.roads, visits); err != nil {
			return f, err
		}
		if err := w.settled(ctx, visits); err != nil {
			return f, err
		}
		f.take(rtt, visits)
	}
	return f, nil
}

// settled travels to an agent that was installed for that, once without its times being noted. It is installed anew at each round
// trip, because it allows no more than 12 freezes an hour.
func (w *world) settled(ctx context.Context, visits map[string][]visit) (err error) {
	if _, err := w.program(ctx, w.stillframe, "agent", "deploy", machine, "--agent", w.agent); err != nil {
		return err
	}
	defer func() {
		_, left := w.program(ctx, w.stillframe, "agent", "remove", machine, "--agent", w.agent)
		err = errors.Join(err, left)
	}()
	stayed := []route{persistent}
	if err := w.travel(ctx, stayed, 1, map[string][]visit{}); err != nil {
		return err
	}
	return w.travel(ctx, stayed, w.roads, visits)
}

// travel goes n times by each of the routes in turn, and notes the times.
func (w *world) travel(ctx context.Context, routes []route, n int, visits map[string][]visit) error {
	for range n {
		for _, r := range routes {
			v, err := w.visit(ctx, r)
			if err != nil {
				return fmt.Errorf("by %s: %w", r, err)
			}
			visits[r.String()] = append(visits[r.String()], v)
		}
	}
	return nil
}

// visit does one window by one route.
func (w *world) visit(ctx context.Context, by route) (v visit, err error) {
	args := []string{"--road", by.way.String()}
	if by.lifetime != "" {
		args = append(args, "--agent-lifetime", by.lifetime)
	}
	r, err := w.ours(ctx, args...)
	if err == nil {
		err = applicationLevel(r)
	}
	if err != nil {
		return v, err
	}
	if went := (guest.Way{Road: guest.Road(r.Guest.Road), Start: guest.Start(r.Guest.Start)}); went != by.way {
		return v, fmt.Errorf("the window's road was %s", went)
	}
	v = visit{
		push: stage(r, guest.StagePush), start: stage(r, guest.StageStart), hello: stage(r, guest.StageHello), cleanup: stage(r, guest.StageCleanup),
		freeze: phase(r, "freeze"), thaw: phase(r, "thaw"),
	}
	if v.hello == 0 || v.freeze == 0 {
		return v, fmt.Errorf("the report has no time of HELLO or of the freeze: %v, %v", r.Guest.Attempts, r.Window.Phases)
	}
	v.overhead, err = w.overhead(r)
	return v, err
}

// stage is how long all attempts at one stage took.
func stage(r backup.Result, name guest.Stage) (sum time.Duration) {
	for _, a := range r.Guest.Attempts {
		if a.Stage == string(name) {
			sum += seconds(a.Seconds)
		}
	}
	return sum
}

// showRoads prints the roads side by side.
func showRoads(to io.Writer, f roadFigures) error {
	var b strings.Builder
	columns := append(pushed[:len(pushed):len(pushed)], cached, persistent)
	for _, one := range f.RoundTrips {
		row := func(what string, value func(route) string) {
			fmt.Fprintf(&b, "%-38s", what)
			for _, r := range columns {
				fmt.Fprintf(&b, " %17s", value(r))
			}
			b.WriteString("\n")
		}
		times := func(what string, value func(roadTimes) spread) {
			row(what, func(r route) string {
				s := value(one.Roads[r.String()])
				return fmt.Sprintf("%.1f (%.1f)", s.Median, s.Worst)
			})
		}
		fmt.Fprintf(&b, "\nWindows, %.0f ms round trip to vCenter; ms, median (worst) of %d\n", one.RTTMS, f.Runs)
		row("", route.String)
		times("push, read back", func(t roadTimes) spread { return t.PushMS })
		times("start until READY", func(t roadTimes) spread { return t.StartMS })
		times("connect and HELLO", func(t roadTimes) spread { return t.HelloMS })
		times("together", func(t roadTimes) spread { return t.EntryMS })
		row("  by the admin share and its services", func(r route) string { return fmt.Sprintf("%.2f times", one.Ratios[r.String()]) })
		times("window: freeze", func(t roadTimes) spread { return t.FreezeMS })
		times("window: overhead", func(t roadTimes) spread { return t.OverheadMS })
		times("window: thaw", func(t roadTimes) spread { return t.ThawMS })
		times("removal", func(t roadTimes) spread { return t.CleanupMS })
	}
	fmt.Fprintf(&b, "\nbars, of the medians together: %s <= %.0f ms, %s <= %.0f ms, %s <= %.0f ms, %s > %.0f times at %.0f ms\n", scm, f.Bars["service_entry_ms"],
		cached, f.Bars["cached_entry_ms"], persistent, f.Bars["persistent_entry_ms"], guest.WayGuestOps, f.Bars["guestops_ratio"], milliseconds(farthest))
	_, err := io.WriteString(to, b.String())
	return err
}
