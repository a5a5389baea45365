package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/stillframe/stillframe/pkg/daemon"
	"github.com/stillframe/stillframe/pkg/store"
)

const (
	// tendEvery is how often systemd hears how many windows are open.
	tendEvery = time.Second
	// databaseLimit bounds one look into the database.
	databaseLimit = 5 * time.Second
	// stuckAfter is how long no window can be open: its guest let go long before, and whoever works on it stands still.
	stuckAfter = 5 * time.Minute
	// extension is what is asked for at a time while a window is open at the end.
	extension = 30 * time.Second
)

// tend tells systemd until ctx ends that the daemon lives, and what it does. Its watchdog is fed only when the engine has come
// round, the database has been looked into and no window stands still: a process in which one of them hangs is better killed, as
// the next one frees the guests and takes away what is left.
func (s *service) tend(ctx context.Context) {
	if s.c.getenv("NOTIFY_SOCKET") == "" { // nobody listens; to return would end the daemon
		<-ctx.Done()
		return
	}
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	every := s.watchdog()
	var fed time.Time
	var turns uint64
	said := ""
	for {
		open := s.daemon.Windows()
		if status := statusOf(open, s.ending.Load()); status != said {
			said = status
			s.notify("STATUS=" + status)
		}
		if s.ending.Load() && len(open) > 0 {
			s.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extension.Microseconds()))
		}
		if every > 0 && time.Since(fed) >= every {
			if now := s.engine.Turns(); now != turns && s.windowsMove(open) && s.storeAnswers(ctx) {
				turns, fed = now, time.Now()
				s.notify("WATCHDOG=1")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// watchdog is how often systemd's is to be fed, a third of its limit; 0 when there is none, or it watches another process.
func (s *service) watchdog() time.Duration {
	limit, err := strconv.ParseInt(s.c.getenv("WATCHDOG_USEC"), 10, 64)
	if pid := s.c.getenv("WATCHDOG_PID"); err != nil || limit <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(limit) * time.Microsecond / 3
}

// statusOf is what systemctl status shows.
func statusOf(open []daemon.OpenWindow, ending bool) string {
	text := "no window open"
	if len(open) > 0 {
		plural := "s"
		if len(open) == 1 {
			plural = ""
		}
		worst := open[0]
		text = fmt.Sprintf("%d window%s open, worst %.1f s of %.0f", len(open), plural, time.Since(worst.Since).Seconds(), worst.Budget.Seconds())
	}
	if ending {
		return "ending: " + text
	}
	return text
}

// windowsMove says whether none of the open windows stands still.
func (s *service) windowsMove(open []daemon.OpenWindow) bool {
	if len(open) == 0 || time.Since(open[0].Since) < stuckAfter {
		return true
	}
	s.log.Error("a window stands still: systemd's watchdog is not fed", zap.String("run", open[0].Run.ID), zap.Duration("open", time.Since(open[0].Since)))
	return false
}

// storeAnswers says whether the database comes back with an answer. An error is one: to begin anew would not help. Only SQLite,
// which lies within this process, has to be in time; a PostgreSQL that is away is no fault of ours.
func (s *service) storeAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, databaseLimit)
	defer cancel()
	_, _, err := s.catalog.DueJobs(ctx)
	if errors.Is(err, context.DeadlineExceeded) && s.store.Dialect() == store.SQLite {
		s.log.Error("the database does not come back: systemd's watchdog is not fed", zap.Error(err))
		return false
	}
	return true
}
