// Package statefile keeps what one installation remembers between runs in one locked file.
package statefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/filelock"
)

// The names in the state folder.
const (
	fileName = "state.json"
	newName  = "state.json.new"
	lockName = "lock"
)

// format and version are the first line of the file; a higher version is of a newer stillframe and is left alone.
const (
	format  = "stillframe-state"
	version = 1
)

// Limits: nobody holds the lock for longer than a write takes, and no file of ours comes near maxBytes.
const (
	lockLimit = 10 * time.Second
	maxBytes  = 64 << 20
)

// Error is why the state cannot be used.
type Error struct {
	// SF is the code of the error catalogue.
	SF string
	// Op is what was tried, as a verb phrase.
	Op  string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }

// Store is the state of one installation. It holds neither lock nor file between calls and needs no closing. It is safe
// for concurrent use, also by many processes. Each call blocks for at most 10 s and the time of one write to the disk.
type Store struct {
	dir string
	now func() time.Time
}

// Options are what a Store can do without.
type Options struct {
	// Now is the wall clock, by which stamps are made and aged; nil is this machine's. It may be set back and forward at any
	// time: what it ages then lasts for its own limit at most, counted from when the clock was found to be set back.
	Now func() time.Time
}

// Open makes the folder, readable by its owner only, if it is not there. One of another user is refused.
func Open(dir string, o Options) (*Store, error) {
	unusable := func(err error) error { return &Error{SF: "SF1101", Op: "use the state folder " + dir, Err: err} }
	if !filepath.IsAbs(dir) {
		return nil, unusable(errors.New("its path is not absolute"))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, unusable(err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int64(stat.Uid) != int64(os.Geteuid()) {
		return nil, unusable(errors.New("it belongs to another user: use a folder of your own, or become its owner"))
	}
	if writable := info.Mode().Perm() & 0o022; writable != 0 {
		return nil, unusable(fmt.Errorf("others than its owner can write to it (mode %04o): chmod 0700", info.Mode().Perm()))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{dir, o.Now}, nil
}

// state is the file's content.
type state struct {
	Installation string `json:"installation_id"`
	LastEpoch    uint64 `json:"last_epoch"`
	// Runs are the active runs, by the VM's instance UUID.
	Runs map[string]Owner `json:"runs"`
	// Intents are what a run was about to make outside and did not yet prove to be gone, the oldest first.
	Intents []Intent `json:"intents"`
	// Refusals are secrets that were refused, by the id of their credential.
	Refusals map[string]refusal `json:"refusals"`
	// Windows are the last windows of each VM, by its instance UUID.
	Windows map[string]history `json:"windows"`
	// Notes are texts of others, by their kind and key.
	Notes map[NoteKind]map[string]json.RawMessage `json:"notes,omitempty"`
}

// notAfter takes what is stamped later than at for stamped at at, and says whether there was any: the clock was set back,
// so how old it is cannot be known, and it must not last until the clock has caught up. Only stamps that are aged count.
func (n *state) notAfter(at time.Time) bool {
	found := false
	for id, r := range n.Refusals {
		if r.At.After(at) {
			r.At, found = at, true
			n.Refusals[id] = r
		}
	}
	for _, h := range n.Windows {
		for i := range h.Windows {
			if h.Windows[i].At.After(at) {
				h.Windows[i].At, found = at, true
			}
		}
	}
	return found
}

// header is the first line of the file; SHA256 is that of the rest.
type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	SHA256  string `json:"sha256"`
}

// view reads the state. It writes only what a clock that was set back makes necessary.
func (s *Store) view(ctx context.Context, op string, read func(*state) error) error {
	return s.locked(ctx, op, func() error {
		now, err := s.load()
		if err != nil {
			return err
		}
		if now.notAfter(s.now().UTC()) {
			if err := s.save(now); err != nil {
				return err
			}
		}
		return read(now)
	})
}

// update reads, changes and writes the state under the lock. When it returns without an error the change is on the disk;
// with one the file is whole all the same, almost always without the change.
func (s *Store) update(ctx context.Context, op string, change func(*state) error) error {
	return s.locked(ctx, op, func() error {
		now, err := s.load()
		if err != nil {
			return err
		}
		now.notAfter(s.now().UTC())
		if err := change(now); err != nil {
			return err
		}
		return s.save(now)
	})
}

// locked does something under the lock. The lock is a file of its own, which is never replaced; it ends with the process.
func (s *Store) locked(ctx context.Context, op string, do func() error) error {
	file, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err == nil {
		err = filelock.Wait(ctx, file, lockLimit)
		if err == nil {
			err = do()
		}
		err = errors.Join(err, file.Close())
	}
	var coded interface{ Code() string }
	if err != nil && !errors.As(err, &coded) {
		err = &Error{SF: "SF1101", Op: op + " in the state folder " + s.dir, Err: err}
	}
	return err
}

// load reads the file. One that is not there is a new installation.
func (s *Store) load() (*state, error) {
	path := filepath.Join(s.dir, fileName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return (&state{}).whole(), nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxBytes {
		return nil, s.damaged(nil, fmt.Errorf("it has %d bytes", info.Size()))
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	now, err := parse(content)
	if err != nil {
		return nil, s.damaged(content, err)
	}
	return now, nil
}

// parse reads the header's line and the body that it vouches for.
func parse(content []byte) (*state, error) {
	first, body, _ := bytes.Cut(content, []byte("\n"))
	var h header
	if err := json.Unmarshal(first, &h); err != nil || h.Format != format {
		return nil, errors.New("its first line is not that of a state file")
	}
	if h.Version != version {
		return nil, fmt.Errorf("it has version %d, this stillframe writes version %d", h.Version, version)
	}
	if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != h.SHA256 {
		return nil, errors.New("its content does not match its checksum")
	}
	now := &state{}
	if err := json.Unmarshal(body, now); err != nil {
		return nil, err
	}
	return now.whole(), nil
}

// whole makes the maps that a file of an older stillframe, or none, lacks.
func (n *state) whole() *state {
	if n.Runs == nil {
		n.Runs = map[string]Owner{}
	}
	if n.Intents == nil {
		n.Intents = []Intent{}
	}
	if n.Refusals == nil {
		n.Refusals = map[string]refusal{}
	}
	if n.Windows == nil {
		n.Windows = map[string]history{}
	}
	return n
}

// damaged says that the file cannot be read. The file stays where it is, so that every run is refused until somebody has
// looked, and a copy is kept aside once, for whoever repairs it.
func (s *Store) damaged(content []byte, why error) error {
	path := filepath.Join(s.dir, fileName)
	sum := sha256.Sum256(content)
	aside := path + ".damaged-" + hex.EncodeToString(sum[:4])
	if content != nil {
		// One of another size is what a full disk, or the end of a process, left of a copy.
		if info, err := os.Stat(aside); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() != int64(len(content)) {
			if err := os.WriteFile(aside, content, 0o600); err != nil {
				why = errors.Join(why, fmt.Errorf("keep a copy aside: %w", err))
			} else {
				why = fmt.Errorf("%w; a copy is kept as %s", why, aside)
			}
		}
	}
	return &Error{SF: "SF1102", Op: "read the state file " + path, Err: why}
}

// save replaces the file: at each instant, whatever is killed, its name leads to all of the old or all of the new content.
func (s *Store) save(now *state) error {
	body, err := json.MarshalIndent(now, "", " ")
	if err != nil {
		return err
	}
	body = append(body, '\n')
	sum := sha256.Sum256(body)
	head, err := json.Marshal(header{format, version, hex.EncodeToString(sum[:])})
	if err != nil {
		return err
	}
	content := append(append(head, '\n'), body...)
	if len(content) > maxBytes {
		return fmt.Errorf("the state would have %d bytes", len(content))
	}
	fresh := filepath.Join(s.dir, newName)
	if err := write(fresh, content); err != nil {
		return errors.Join(err, remove(fresh))
	}
	if err := os.Rename(fresh, filepath.Join(s.dir, fileName)); err != nil {
		return errors.Join(err, remove(fresh))
	}
	return flush(s.dir)
}

// write writes a file anew and has it on the disk when it returns. What a killed process left of it is overwritten.
func write(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// flush has a folder's entries on the disk.
func flush(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
