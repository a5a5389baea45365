package daemon

import (
	"errors"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/advice"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/freezewindow"
)

// TestRetry asks for each end of a run whether it is tried again.
func TestRetry(t *testing.T) {
	job := config.Job{Level: freezewindow.Filesystem, OnDegrade: "retry", Retry: config.Retry{Attempts: 2, Wait: config.Duration{Duration: 10 * time.Minute}}}
	failed := func(l freezewindow.Level) backup.Result {
		return backup.Result{Outcome: backup.Failed, Verdict: backup.Verdict{Level: l}}
	}
	for name, c := range map[string]struct {
		result  backup.Result
		code    string
		attempt int
		degrade string
		want    bool
	}{
		"all was well":                         {backup.Result{Outcome: backup.OK}, "", 1, "retry", false},
		"too low a level, to be tried again":   {failed(freezewindow.Crash), "SF4909", 1, "retry", true},
		"too low a level, to fail":             {failed(freezewindow.Crash), "SF4909", 1, "fail", false},
		"the last attempt":                     {failed(freezewindow.Crash), "SF4909", 3, "retry", false},
		"another run works there":              {failed(freezewindow.Unproved), "SF1103", 1, "fail", true},
		"the guest's password was refused":     {failed(freezewindow.Unproved), "SF3001", 1, "retry", false},
		"vCenter's password was refused":       {failed(freezewindow.Unproved), "SF2001", 1, "retry", false},
		"an error that nobody has a code for":  {failed(freezewindow.Unproved), "", 1, "retry", false},
		"the mover of a good window failed":    {failed(freezewindow.Filesystem), "SF5202", 1, "fail", retryable("SF5202")},
		"nobody is interested in a high level": {failed(freezewindow.Application), "SF1103", 2, "fail", true},
	} {
		job.OnDegrade = c.degrade
		a := attempt{run: catalog.Run{Attempt: c.attempt}, job: job}
		wait, again := a.retry(c.result, c.code)
		if again != c.want || again && wait != 10*time.Minute {
			t.Errorf("%s: retry = %v in %v, want %v", name, again, wait, c.want)
		}
	}
}

func retryable(code string) bool {
	e, _ := advice.Lookup(advice.Code(code))
	return e.Retryable == "yes" || e.Retryable == "once"
}

// TestMerge: a rule wins field by field, and an account is one thing.
func TestMerge(t *testing.T) {
	port := 7000
	rule := config.Guest{Username: "svc", Password: "store:svc", AgentPort: &port}
	defaults := config.Guest{Username: "root", Password: "store:root", Mode: "writer", Arch: "arm64"}
	got := merge(rule, defaults)
	if got.Username != "svc" || got.Password != "store:svc" || got.Mode != "writer" || got.Arch != "arm64" || got.AgentPort != &port {
		t.Errorf("merge = %+v", got)
	}
	if got := merge(config.Guest{Mode: "io"}, defaults); got.Username != "root" || got.Password != "store:root" || got.Mode != "io" {
		t.Errorf("merge = %+v", got)
	}
}

// TestCodeOf takes the code of the error before that of the first finding.
func TestCodeOf(t *testing.T) {
	found := backup.Result{Outcome: backup.Failed, Findings: []advice.Finding{{Code: "SF4909"}}}
	for _, c := range []struct {
		result backup.Result
		err    error
		want   string
	}{
		{found, &backup.Refusal{SF: "SF2304", Err: errors.New("left")}, "SF2304"},
		{found, errors.New("without a code"), "SF4909"},
		{found, nil, "SF4909"},
		{backup.Result{Outcome: backup.OK, Findings: found.Findings}, nil, ""},
	} {
		if got := codeOf(c.result, c.err); got != c.want {
			t.Errorf("codeOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}
