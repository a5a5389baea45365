package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// markName is the file in RunDir that says that hooks have begun, so that post-thaw is owed even if the agent dies.
const markName = "hooks"

// ownerLimit is how long the owner of a mark is waited for: a dead agent's watchdog owns it until no holding hook lives.
const ownerLimit = 5 * time.Second

// ErrHeldByAnother says that the agent whose hooks have begun, or what watches them, still lives.
var ErrHeldByAnother = errors.New("an agent that lives runs hooks")

// mark is the open file. Its owner holds an flock on it, which the kernel drops when the last process that has it open
// dies. Hooks do not have it open.
type mark struct {
	path string
	file *os.File
}

// markOf is what a mark says, for post-thaw.
type markOf struct {
	Run  string `json:"run"`
	Mode string `json:"mode"`
}

// openMark opens the mark and takes its lock, for which it waits at most 5 s; flags is os.O_CREATE or 0.
func openMark(ctx context.Context, dir string, flags int) (*mark, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(ownerLimit); ; {
		m, err := tryMark(filepath.Join(dir, markName), flags)
		if !errors.Is(err, ErrHeldByAnother) || time.Now().After(end) {
			return m, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func tryMark(path string, flags int) (*mark, error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flags, 0o600)
	if err != nil {
		return nil, err
	}
	held := fmt.Errorf("%w: %s", ErrHeldByAnother, path)
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = held
		}
		return nil, errors.Join(err, file.Close())
	}
	mine, err1 := file.Stat()
	there, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || !os.SameFile(mine, there) { // its owner removed it between our open and our lock
		return nil, errors.Join(held, file.Close())
	}
	return &mark{path: path, file: file}, nil
}

// makeMark writes the mark of a run into dir.
func makeMark(ctx context.Context, dir string, q agent.HookRequest) (*mark, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("mark that hooks have begun: %w", err)
	}
	m, err := openMark(ctx, dir, os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("mark that hooks have begun: %w", err)
	}
	text, err := json.Marshal(markOf{q.Run, q.Mode})
	if err == nil {
		err = m.file.Truncate(0)
	}
	if err == nil {
		_, err = m.file.WriteAt(text, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark that hooks have begun: %w", err), m.close(true))
	}
	return m, nil
}

// close lets the mark go; remove says that post-thaw is over.
func (m *mark) close(remove bool) error {
	var err error
	if remove {
		if err = os.Remove(m.path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, m.file.Close())
}

// Undo runs the hooks of post-thaw that an agent which died still owes, with STILLFRAME_OK=0. Without its mark there is
// nothing to do. It blocks for at most 5 s until the dead agent's holding hooks have ended, then for at most 30 s. The
// mark stays when the hooks cannot be read or trusted, and is removed when they were run, however they ended: what failed
// is in the error. ErrHeldByAnother: the owner lives.
func Undo(ctx context.Context, o Options) ([]protocol.Hook, error) {
	m, err := openMark(ctx, o.RunDir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the mark of hooks: %w", err)
	}
	// An agent that died in the middle of writing leaves an unreadable mark: the hooks are owed all the same.
	var said markOf
	text, err := io.ReadAll(io.LimitReader(m.file, 4<<10))
	if err == nil && json.Unmarshal(text, &said) != nil {
		said = markOf{}
	}
	r := New(o)
	if err == nil {
		r.hooks, err = load(o.Dir, o.Owner)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the hooks that are owed: %w", err), m.close(false))
	}
	rows := r.postThaw(agent.HookRequest{Point: agent.PointPostThaw, Run: said.Run, Mode: said.Mode})
	for _, row := range rows {
		if !row.OK {
			err = errors.Join(err, coded("hook %s at %s: %s", row.Name, row.Point, row.Error))
		}
	}
	return rows, errors.Join(err, m.close(true))
}
