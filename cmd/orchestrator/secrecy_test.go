package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/canary"
)

// secrecy watches that the password of a guest is nowhere to be seen while runs go into it.
type secrecy struct {
	password canary.Canary
	dir      string
	since    time.Time
	stop     chan struct{}
	watch    sync.WaitGroup

	mu     sync.Mutex
	looked int
	found  map[string]bool
}

// secretive begins to look at the command lines of all processes, and at the environments of those in a guest.
func (w *world) secretive(t *testing.T, vm string) *secrecy {
	t.Helper()
	s := &secrecy{password: canary.Of(w.guest(t, vm).Password), dir: w.dir, since: time.Now(), stop: make(chan struct{}), found: map[string]bool{}}
	s.watch.Go(func() {
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				s.look()
			}
		}
	})
	return s
}

// look reads /proc once. A process that has gone meanwhile has nothing to tell.
func (s *secrecy) look() {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.found[err.Error()] = true
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		s.looked++
		for _, form := range s.password.Find(line) {
			s.found["command line "+string(line)+": "+form] = true
		}
		environment, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if err != nil || !strings.Contains(string(environment), "WINEPREFIX="+s.dir) {
			continue // gone, or none of a guest's: the orchestrator is given the password so
		}
		for _, form := range s.password.Find(environment) {
			s.found["environment of "+string(line)+": "+form] = true
		}
	}
}

// kept ends the watch, and searches every file that was written since it began: the guest's, the orchestrator's and the lab's. What
// is printed is searched in each run (unprinted).
func (s *secrecy) kept(t *testing.T) {
	t.Helper()
	close(s.stop)
	s.watch.Wait()
	files := 0
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.ModTime().Before(s.since) {
			return err
		}
		content, err := os.ReadFile(path)
		files++
		for _, form := range s.password.Find(content) {
			t.Errorf("the password is in %s as %s", path, form)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for where := range s.found {
		t.Errorf("the password is in the %s", where)
	}
	if t.Logf("searched %d command lines, %d files", s.looked, files); s.looked == 0 || files == 0 {
		t.Error("nothing was searched")
	}
}
