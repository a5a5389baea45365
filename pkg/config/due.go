package config

import (
	"errors"

	"github.com/stillframe/stillframe/pkg/schedule"
)

// checkSchedule has pkg/schedule read it, which also says what to write instead.
func (k *checker) checkSchedule(at pointer, s *Schedule) {
	if s == nil || k.told(at) {
		return
	}
	cron, monthly := at.child("cron"), at.child("monthly")
	if k.told(cron) || k.told(monthly) {
		k.checkZone(at.child("zone"), s.Zone)
		return
	}
	text := cron
	switch {
	case s.Cron != "" && s.Monthly != "":
		k.refuse(codeConflict, monthly, "stands beside cron", "keep one of them; two times make two jobs")
		return
	case s.Cron == "" && s.Monthly == "":
		k.refuse(codeMissing, cron, "is missing", `write cron: "30 2 * * *", or monthly; without schedule the job runs by hand only`)
		k.checkZone(at.child("zone"), s.Zone)
		return
	case s.Monthly != "":
		text = monthly
	}
	zone := s.Zone
	if k.told(at.child("zone")) {
		zone = "UTC"
	}
	_, err := schedule.Parse(s.Text(), zone)
	k.schedule(err, map[string]pointer{"schedule": text, "zone": at.child("zone")})
	if limit := at.child("max_catchup"); !k.told(limit) && !k.told(at.child("missed")) {
		_, err = s.CatchUp()
		k.schedule(err, map[string]pointer{"max_catchup": limit, "missed": at.child("missed")})
	}
}

// checkWindows has pkg/schedule read them; a field that the schema refused is not told again.
func (k *checker) checkWindows(at pointer, windows []JobWindow) {
	for i, w := range windows {
		p := at.index(i)
		paths := map[string]pointer{}
		for _, field := range []string{"name", "effect", "weekdays", "start", "end", "zone"} {
			if !k.told(p.child(field)) {
				paths[field] = p.child(field)
			}
		}
		_, err := w.Window()
		k.schedule(err, paths)
	}
}

func (k *checker) checkZone(p pointer, zone string) {
	if k.told(p) || zone == "" {
		return
	}
	_, err := schedule.Zone(zone)
	k.schedule(err, map[string]pointer{"zone": p})
}

// schedule tells what pkg/schedule found, each at its key.
func (k *checker) schedule(err error, paths map[string]pointer) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			k.schedule(e, paths)
		}
		return
	}
	var wrong *schedule.Error
	if errors.As(err, &wrong) && paths[wrong.Field] != nil {
		k.refuse(wrong.SF, paths[wrong.Field], word(wrong.Value)+": "+wrong.Why, wrong.Try)
	}
}
