package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// readyFile is how the agent answers the one who started it. It appears complete or not at all, and never replaces
// anything: an old answer cannot be taken for this one. Its directory must exist.
type readyFile struct{ path string }

// write makes the file with one line. fs.ErrExist: somebody has already answered there.
func (r readyFile) write(line string) error {
	draft := r.path + draftSuffix
	file, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	_, err = file.WriteString(line + "\n")
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Link(draft, r.path)
	}
	if err = errors.Join(err, os.Remove(draft)); err != nil {
		return fmt.Errorf("write the ready file: %w", err)
	}
	return nil
}

// remove deletes the answer, if nobody has yet: a file that stays would allow a replay. The draft of one that was killed goes
// too: it would keep everybody from answering.
func (r readyFile) remove() (err error) {
	for _, path := range []string{r.path, r.path + draftSuffix} {
		if gone := os.Remove(filepath.Clean(path)); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove the ready file: %w", gone))
		}
	}
	return err
}

// readyLine says that the agent listens.
func readyLine(own protocol.Fingerprint, port int) string {
	return fmt.Sprintf("READY %x %d", own[:], port)
}

// errorLine says in one line why the agent does not start; without a code of its own it is SF3703, no READY in time.
func errorLine(err error) string {
	code := "SF3703"
	var coded *agent.CodedError
	if errors.As(err, &coded) {
		code = coded.Code
	}
	return "ERROR " + code + " " + strings.Join(strings.Fields(err.Error()), " ")
}
