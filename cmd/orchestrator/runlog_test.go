package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestRunLogs writes lines of runs to their files, but not while a guest is held.
func TestRunLogs(t *testing.T) {
	t.Parallel()
	held := map[string]bool{}
	l := newRunLogs(runLogDir(t.TempDir()), func() map[string]bool { return held })
	log := zap.New(zapcore.NewNopCore()).WithOptions(zap.WrapCore(l.beside))
	one, two := uuid.NewString(), uuid.NewString()
	text := func(run string) string {
		t.Helper()
		if err := l.flush(false); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(runLogPath(l.dir, run))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(content)
	}
	log.Info("of none")
	log.Info("of a strange one", zap.String("run", "../../etc/passwd"))
	log.With(zap.String("run", one)).Debug("too fine")
	held[one] = true
	log.With(zap.String("run", one)).Info("first", zap.Duration("held", time.Second))
	log.Warn("other", zap.String("run", two))
	if got := text(one); got != "" {
		t.Errorf("a guest is held, and its run's log has %s", got)
	}
	if got := text(two); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"msg":"other"`) {
		t.Errorf("the other run's log is %s", got)
	}
	delete(held, one)
	if got := text(one); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"msg":"first"`) || !strings.Contains(got, `"held":"1s"`) {
		t.Errorf("the run's log is %s", got)
	}
	long := zap.String("long", strings.Repeat("x", pendingMost/2))
	for range 3 {
		log.Info("long", zap.String("run", two), long)
	}
	if got := text(two); !strings.HasSuffix(got, `"msg":"lines were dropped","run":"`+two+`","dropped":2}`+"\n") {
		t.Errorf("the log does not end with the lines that were dropped: %s", got[max(0, len(got)-200):])
	}
	old := time.Now().Add(-2 * forgetAfter)
	for _, run := range []string{one, two} {
		if err := os.Chtimes(runLogPath(l.dir, run), old, old); err != nil {
			t.Fatal(err)
		}
	}
	err := l.forget(func(ids []string) (map[string]string, error) {
		if len(ids) != 2 {
			t.Errorf("%d runs are asked for, want 2", len(ids))
		}
		return map[string]string{two: ""}, nil
	})
	if err != nil || text(one) != "" || text(two) == "" {
		t.Errorf("forget = %v, want the log of the run that is not known gone, and the other there", err)
	}
}
