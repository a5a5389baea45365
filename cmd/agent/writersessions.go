package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
)

// writerSessions counts the sessions with the guest's writers that this agent has opened and never ended since the guest
// was booted, durably: a reboot ends them all. It is safe for concurrent use.
type writerSessions struct {
	path, boot string

	mu   sync.Mutex
	open int
}

// openWriterSessions reads the count of this boot.
func openWriterSessions(path, boot string) (*writerSessions, error) {
	s := &writerSessions{path: path, boot: boot}
	text, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the count of sessions: %w", err)
	}
	of, count, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if n, err := strconv.Atoi(count); err == nil && n > 0 && of == boot { // a damaged count is begun anew
		s.open = n
	}
	return s, nil
}

// add counts n more, or fewer; what cannot be kept is counted for the life of this process.
func (s *writerSessions) add(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = max(0, s.open+n)
	if err := replaceSecret(s.path, fmt.Appendf(nil, "%s %d\n", s.boot, s.open)); err != nil {
		return fmt.Errorf("keep the count of sessions: %w", err)
	}
	return nil
}

// count gives how many are open.
func (s *writerSessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}
