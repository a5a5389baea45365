package admission

import (
	"fmt"
	"slices"
	"time"
)

// SnapshotRoad is whom a snapshot is asked of.
type SnapshotRoad string

// The roads. The empty road of samples that were remembered before there were two is ThroughVCenter.
const (
	ThroughVCenter SnapshotRoad = "vcenter"
	ThroughHost    SnapshotRoad = "host"
)

// RoadPolicy is which road a run may take.
type RoadPolicy string

// The policies. RoadAuto measures both, then takes the faster one.
const (
	RoadVCenter RoadPolicy = "vcenter"
	RoadHost    RoadPolicy = "host"
	RoadAuto    RoadPolicy = "auto"
)

// What auto asks for (values unverified).
const (
	// roadRuns is how many snapshots of each road must have been measured.
	roadRuns = 5
	// roadGain is by how much the host has to be faster: the road through vCenter needs no second account.
	roadGain = time.Second
)

// RoadTimes is what a VM's windows tell of one road.
type RoadTimes struct {
	Road SnapshotRoad
	// Asked is how many snapshots were asked for, Made how many of them were made and measured.
	Asked, Made int
	// P50 and P95 are of the time from the call to the end of the task; 0 when none was made.
	P50, P95 time.Duration
}

// String gives the figures in words.
func (t RoadTimes) String() string {
	if t.Made == 0 {
		return fmt.Sprintf("%s: none of %d made", t.Road, t.Asked)
	}
	return fmt.Sprintf("%s: p95 %s of %d", t.Road, seconds(t.P95), t.Made)
}

// RoadChoice is the road to take, with the reason.
type RoadChoice struct {
	Road   SnapshotRoad
	Reason string
	// Times are those of vCenter and of the host, in this order.
	Times [2]RoadTimes
}

// PickRoad chooses the road of the next window. closed is why the host cannot be asked, empty when it can; policy host
// does not look at it, because then there is no other road.
//
// Under auto both roads are measured first, by turns. Then the host is taken when its 95th percentile is better by a
// second or more. The figures of the other road age out with the windows that are remembered, and are measured anew.
func PickRoad(samples []Sample, policy RoadPolicy, closed string) RoadChoice {
	samples = samples[max(0, len(samples)-Keep):]
	c := RoadChoice{Times: [2]RoadTimes{timesOf(samples, ThroughVCenter), timesOf(samples, ThroughHost)}}
	vcenter, host := c.Times[0], c.Times[1]
	take := func(road SnapshotRoad, format string, a ...any) RoadChoice {
		c.Road, c.Reason = road, fmt.Sprintf(format, a...)
		return c
	}
	switch {
	case policy == RoadHost:
		return take(ThroughHost, "told to")
	case policy != RoadAuto:
		return take(ThroughVCenter, "told to")
	case closed != "":
		return take(ThroughVCenter, "%s", closed)
	case vcenter.Asked < roadRuns && vcenter.Asked <= host.Asked:
		return take(ThroughVCenter, "to measure it: snapshot %d of %d", vcenter.Asked+1, roadRuns)
	case host.Asked < roadRuns:
		return take(ThroughHost, "to measure it: snapshot %d of %d", host.Asked+1, roadRuns)
	case vcenter.Asked < roadRuns:
		return take(ThroughVCenter, "to measure it: snapshot %d of %d", vcenter.Asked+1, roadRuns)
	case host.Made < roadRuns:
		return take(ThroughVCenter, "of %d snapshots asked of the host only %d were made", host.Asked, host.Made)
	case vcenter.Made == 0:
		return take(ThroughHost, "of %d snapshots asked of vCenter none was made; %s", vcenter.Asked, host)
	case host.P95+roadGain <= vcenter.P95:
		return take(ThroughHost, "%s, %s: %s faster", host, vcenter, seconds(vcenter.P95-host.P95))
	}
	return take(ThroughVCenter, "%s, %s: the host is not faster by %s", vcenter, host, seconds(roadGain))
}

func timesOf(samples []Sample, road SnapshotRoad) RoadTimes {
	t := RoadTimes{Road: road}
	var all []time.Duration
	for _, s := range samples {
		if !s.Asked() || s.road() != road {
			continue
		}
		t.Asked++
		if s.Snapshot > 0 {
			all = append(all, s.Snapshot)
		}
	}
	slices.Sort(all)
	if t.Made = len(all); t.Made > 0 {
		t.P50, t.P95 = rank(all, 50), high(all, 95, 0)
	}
	return t
}

// fewOfRoad is from how many snapshots on a road on they alone predict the next one there.
const fewOfRoad = 3

// OnRoad gives the samples by which a window on this road is predicted: the times of snapshots on the other one do not
// count as soon as three are known of this one. What the guest took counts whatever the road was.
func OnRoad(samples []Sample, road SnapshotRoad) []Sample {
	if timesOf(samples[max(0, len(samples)-Keep):], road).Made < fewOfRoad {
		return samples
	}
	own := slices.Clone(samples)
	for i, s := range own {
		if s.road() != road {
			own[i].Snapshot = 0
		}
	}
	return own
}
