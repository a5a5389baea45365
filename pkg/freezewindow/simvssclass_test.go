package freezewindow_test

import (
	"slices"
	"time"

	fw "github.com/stillframe/stillframe/pkg/freezewindow"
)

// windowsClasses are the kinds of windows that a Windows world must have enough of.
func windowsClasses(j *judge) []string {
	var out []string
	add := func(is bool, name string) {
		if is {
			out = append(out, "windows: "+name)
		}
	}
	v, r := j.w.vss, j.report
	s, p := v.session, v.provider
	told := func(by string) bool { return j.thawed != nil && j.thawed.ExpiredBy == by }
	gaveUp := func(w *writer) bool { return w.failure == hrWriterGaveUp }
	add(r.Verdict.Level == fw.Application, "consistent io")
	add(r.Verdict.Level == fw.ApplicationWriter, "consistent writer")
	add(r.Verdict.Level.Consistent() && len(j.w.plan.faults) > 0, "consistent in spite of faults")
	add(told("io_deadman"), "io deadman told")
	add(told("deadman"), "deadman told")
	add(told("system"), "ended by the system")
	add(told("link_lost"), "released by link loss")
	add(told("service_stop"), "service stop told")
	add(p.phase == holdDeadman && p.entered == 0, "expired before the hold")
	add(slices.ContainsFunc(v.writers, gaveUp), "writer gave up")
	add(v.result == hrFinished && slices.ContainsFunc(v.writers, gaveUp), "writer gave up in a good set")
	add(r.Verdict.Cause == fw.CauseWriterFailed, "writer failed")
	add(r.Verdict.Cause == fw.CauseWitness, "witness disagrees")
	add(v.result == hrVeto || v.result == hrProvider, "set vetoed")
	add(v.result == hrCancelled, "set cancelled")
	add(v.result == hrHoldTimeout, "hold timeout")
	add(v.result == hrFlush, "flush timeout")
	add(v.result == hrCallFailed, "call failed")
	add(v.writes.ranOut, "Windows let go of the writes")
	add(j.thawSent && p.entered == 0, "thaw before the hold")
	add(s.completes > 0 && s.succeeded, "completed")
	add(s.completes > 0 && !s.succeeded, "completed without success")
	add(s.aborts > 0, "aborted")
	add(s.completes+s.aborts == 0, "ended by the end of the process")
	add(j.w.plan.vss.statusHangs && s.settled, "status hangs")
	add(j.w.plan.vss.statusLost > 0 && s.settled, "status lost")
	add(slices.ContainsFunc(v.writers, func(w *writer) bool { return w.gone }), "writer died")
	add(v.dead, "VSS died")
	add(j.netActed, "second net acted")
	add(j.agentDead, "agent killed")
	add(j.stopped, "agent stopped")
	add(v.held() > 20*time.Second && !j.agentHurt, "writer held beyond 20 s by another, by a flush or by VSS")
	add(j.w.gone[daemon], "orchestrator died")
	add(j.w.gone[daemon] && j.agentDead, "both sides dead")
	add(j.losses > 0, "link lost")
	add(j.backs > 0, "resumed")
	add(j.stuns > 0, "stun")
	add(r.Late, "late")
	add(r.Verdict.Cause == fw.CauseSnapshotSlow, "snapshot slow")
	add(r.Verdict.Cause == fw.CauseNoTime, "no time")
	return out
}

func windowsLeast() []least {
	return []least{
		{"windows: consistent io", 1500},
		{"windows: consistent writer", 1200},
		{"windows: consistent in spite of faults", 1500},
		{"windows: io deadman told", 60},
		{"windows: deadman told", 35},
		{"windows: ended by the system", 250},
		{"windows: released by link loss", 240},
		{"windows: service stop told", 200},
		{"windows: writer gave up", 300},
		{"windows: writer gave up in a good set", 75},
		{"windows: writer failed", 320},
		{"windows: witness disagrees", 1},
		{"windows: set vetoed", 1000},
		{"windows: set cancelled", 480},
		{"windows: hold timeout", 70},
		{"windows: flush timeout", 30},
		{"windows: call failed", 500},
		{"windows: Windows let go of the writes", 160},
		{"windows: thaw before the hold", 1000},
		{"windows: completed", 2300},
		{"windows: completed without success", 50},
		{"windows: aborted", 4500},
		{"windows: ended by the end of the process", 400},
		{"windows: status hangs", 55},
		{"windows: status lost", 170},
		{"windows: writer died", 420},
		{"windows: VSS died", 400},
		{"windows: second net acted", 22},
		{"windows: agent killed", 440},
		{"windows: agent stopped", 420},
		{"windows: orchestrator died", 300},
		{"windows: both sides dead", 10},
		{"windows: link lost", 2000},
		{"windows: resumed", 620},
		{"windows: stun", 1900},
		{"windows: late", 310},
		{"windows: snapshot slow", 800},
		{"windows: no time", 90},
	}
}
