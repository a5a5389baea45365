package admission

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// via makes windows of one road.
func via(road SnapshotRoad, n int, snapshot func(int) time.Duration) []Sample {
	all := windows(n, snapshot)
	for i := range all {
		all[i].Via = road
	}
	return all
}

func TestPickRoad(t *testing.T) {
	never := always(0)
	for name, c := range map[string]struct {
		samples []Sample
		policy  RoadPolicy
		closed  string
		want    SnapshotRoad
		says    string
	}{
		"told vcenter":           {samples: via(ThroughHost, 20, always(ms)), policy: RoadVCenter, want: ThroughVCenter, says: "told"},
		"told host":              {policy: RoadHost, closed: "no account", want: ThroughHost, says: "told"},
		"no policy":              {want: ThroughVCenter, says: "told"},
		"no account":             {policy: RoadAuto, closed: "no account", want: ThroughVCenter, says: "no account"},
		"the first run":          {policy: RoadAuto, want: ThroughVCenter, says: "1 of 5"},
		"the second run":         {samples: via(ThroughVCenter, 1, always(ms)), policy: RoadAuto, want: ThroughHost, says: "1 of 5"},
		"by turns":               {samples: slices.Concat(via(ThroughVCenter, 3, always(ms)), via(ThroughHost, 3, always(ms))), policy: RoadAuto, want: ThroughVCenter, says: "4 of 5"},
		"old windows":            {samples: windows(30, always(4*time.Second)), policy: RoadAuto, want: ThroughHost, says: "1 of 5"},
		"the host is behind":     {samples: slices.Concat(via(ThroughVCenter, 9, always(ms)), via(ThroughHost, 4, always(ms))), policy: RoadAuto, want: ThroughHost, says: "5 of 5"},
		"vcenter is behind":      {samples: slices.Concat(via(ThroughVCenter, 4, always(ms)), via(ThroughHost, 40, always(ms))), policy: RoadAuto, want: ThroughVCenter, says: "5 of 5"},
		"the host is faster":     {samples: slices.Concat(via(ThroughVCenter, 20, always(4*time.Second)), via(ThroughHost, 20, always(time.Second))), policy: RoadAuto, want: ThroughHost, says: "host: p95 1.000 s of 20, vcenter: p95 4.000 s of 20: 3.000 s faster"},
		"by a second":            {samples: slices.Concat(via(ThroughVCenter, 20, always(2*time.Second)), via(ThroughHost, 20, always(time.Second))), policy: RoadAuto, want: ThroughHost, says: "1.000 s faster"},
		"by less":                {samples: slices.Concat(via(ThroughVCenter, 20, always(1999*ms)), via(ThroughHost, 20, always(time.Second))), policy: RoadAuto, want: ThroughVCenter, says: "not faster"},
		"it seldom makes one":    {samples: slices.Concat(via(ThroughVCenter, 5, always(9*time.Second)), via(ThroughHost, 5, never)), policy: RoadAuto, want: ThroughVCenter, says: "only 0"},
		"vcenter never does":     {samples: slices.Concat(via(ThroughVCenter, 5, never), via(ThroughHost, 5, always(ms))), policy: RoadAuto, want: ThroughHost, says: "none was made"},
		"what is long ago":       {samples: slices.Concat(via(ThroughHost, 20, always(ms)), via(ThroughVCenter, Keep, always(9*time.Second))), policy: RoadAuto, want: ThroughHost, says: "1 of 5"},
		"only asked ones count":  {samples: slices.Concat(windows(30, never), via(ThroughVCenter, 2, always(ms))), policy: RoadAuto, want: ThroughHost, says: "1 of 5"},
		"one late one in twenty": {samples: slices.Concat(via(ThroughVCenter, 20, always(3*time.Second)), via(ThroughHost, 19, always(ms)), via(ThroughHost, 1, always(30*time.Second))), policy: RoadAuto, want: ThroughHost, says: "host: p95 0.001 s of 20"},
		"one late one in five":   {samples: slices.Concat(via(ThroughVCenter, 20, always(3*time.Second)), via(ThroughHost, 4, always(ms)), via(ThroughHost, 1, always(30*time.Second))), policy: RoadAuto, want: ThroughVCenter, says: "host: p95 37.500 s of 5"},
	} {
		t.Run(name, func(t *testing.T) {
			got := PickRoad(c.samples, c.policy, c.closed)
			if got.Road != c.want || !strings.Contains(got.Reason, c.says) {
				t.Errorf("PickRoad = %s because %q, want %s with %q", got.Road, got.Reason, c.want, c.says)
			}
		})
	}
}

// TestPickRoadMeasures lets auto run 300 times over two roads of which the host is faster or slower, or changes in the
// middle: both are measured, most windows take the better one, a change is found out.
func TestPickRoadMeasures(t *testing.T) {
	for name, c := range map[string]struct {
		before, after time.Duration // of the host; vCenter takes 3 s
		least, most   int           // windows over the host among the last 100
	}{
		"always faster":  {time.Second, time.Second, 80, 100},
		"always slower":  {5 * time.Second, 5 * time.Second, 0, 20},
		"becomes slower": {time.Second, 5 * time.Second, 0, 20},
		"becomes faster": {5 * time.Second, time.Second, 80, 100},
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var samples []Sample
			over := 0
			for i := range 300 {
				road := PickRoad(samples, RoadAuto, "").Road
				took := 3 * time.Second
				if road == ThroughHost {
					if took = c.before; i >= 100 {
						took = c.after
					}
					if i >= 200 {
						over++
					}
				}
				took += time.Duration(random.IntN(300)) * ms
				samples = append(samples, Sample{At: time.Unix(int64(i), 0), Snapshot: took, Via: road})
			}
			if over < c.least || over > c.most {
				t.Errorf("%d of the last 100 windows went over the host, want %d to %d", over, c.least, c.most)
			}
		})
	}
}

func TestOnRoad(t *testing.T) {
	both := slices.Concat(via(ThroughVCenter, 20, always(9*time.Second)), via(ThroughHost, 3, always(time.Second)))
	if got := Predict(OnRoad(both, ThroughHost)); got.Snapshot99 != 1250*ms || got.Freeze99 != 100*ms {
		t.Errorf("on the host's road Predict = %+v", got)
	}
	if got := Predict(OnRoad(both, ThroughVCenter)); got.Snapshot99 != 9*time.Second {
		t.Errorf("on vCenter's road Predict = %+v", got)
	}
	if got := Predict(OnRoad(both[:22], ThroughHost)); got.Snapshot99 != 9*time.Second {
		t.Errorf("with two windows on the host's road Predict = %+v, want what vCenter's let expect", got)
	}
	if both[0].Snapshot == 0 {
		t.Error("OnRoad changed what it was given")
	}
}
