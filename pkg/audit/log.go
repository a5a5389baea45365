package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/internal/failpoint"
)

// window is how much of the file's end is read to find the last entry; it holds many lines of maxLine.
const window = 256 << 10

// Options are what a Log can do without.
type Options struct {
	// Now is the wall clock that stamps entries; nil is this machine's.
	Now func() time.Time
}

// Log appends to the record. It is safe for concurrent use. The file is opened, made if need be and locked against other
// processes when the first entry is appended, and again after every failure, so that a disk that was full is used as soon
// as it has room. Whoever made the Log closes it.
type Log struct {
	path string
	now  func() time.Time

	mu   sync.Mutex
	file *os.File
	head Head
	// doubt is true when it is not known what of the last write has reached the disk.
	doubt    bool
	failures uint64
}

// Head is the end of the chain: the number of the last entry and the hash of its line.
type Head struct {
	Number uint64 `json:"number"`
	SHA256 string `json:"sha256"`
}

// New makes the log of one file. Nothing is opened yet.
func New(path string, o Options) *Log {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Log{path: path, now: o.Now, head: Head{SHA256: origin}}
}

// Append records the event and returns when it is on the disk. An error is ErrUnwritable. It blocks for one write and one
// fsync.
func (l *Log) Append(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.open()
	if err == nil {
		err = l.write(nil, e)
	}
	if err != nil {
		l.failures++
		return unwritable(l.path, err)
	}
	return nil
}

// Ready says whether an event could be recorded now; the error is ErrUnwritable. It opens the file if that was not done.
func (l *Log) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return unwritable(l.path, err)
	}
	return nil
}

// Head is the end of the chain as it is known; before the first entry or Ready it is the chain's origin.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Failures counts the events that could not be recorded since New.
func (l *Log) Failures() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failures
}

// Close gives the file back. A later Append opens it anew.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.close()
}

func (l *Log) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// open makes the file ready for the next entry. A file that was moved or replaced under us is refused: what is written to
// it would be lost, and a fresh one would hide that.
func (l *Log) open() error {
	if l.file != nil {
		same, err := l.same()
		if err != nil || same {
			return err
		}
		return errors.New("the file was moved or replaced while in use: put it back, or restart to begin a new one")
	}
	_, err := os.Lstat(l.path)
	fresh := errors.Is(err, fs.ErrNotExist)
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	l.file = file
	if err := l.begin(fresh); err != nil {
		return errors.Join(err, l.close())
	}
	return nil
}

func (l *Log) same() (bool, error) {
	ours, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(ours, there), err
}

// begin locks the file, finds the end of the chain and, if a crash cut it off, says so in an entry of its own.
func (l *Log) begin(fresh bool) error {
	if err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process writes it: %w", err)
	}
	if fresh { // the name itself has to survive a power loss
		folder, err := os.Open(filepath.Dir(l.path))
		if err != nil {
			return err
		}
		if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
			return err
		}
	}
	end, err := readEnd(l.file)
	if err != nil {
		return err
	}
	l.head = end.head
	if !end.torn && !l.doubt {
		return nil
	}
	mark := Event{What: torn, Object: "no line", Result: Failed, Reason: "what was written last was not confirmed by the disk"}
	if end.torn {
		mark.Object, mark.Reason = span(end.from, end.head.Number), fmt.Sprintf("%d bytes were cut off before they were confirmed; what they were about was not begun", end.bytes)
	}
	var gap []byte
	if end.open {
		gap = []byte("\n")
	}
	if err := l.write(gap, mark); err != nil {
		return err
	}
	l.doubt = false
	return nil
}

// write appends one entry, after gap. A failure closes the file, so that the next entry looks at what really is in it.
func (l *Log) write(gap []byte, e Event) error {
	line, err := Entry{Number: l.head.Number + 1, At: l.now().UTC(), Event: e, Former: l.head.SHA256}.line()
	if err != nil {
		return err
	}
	failpoint.Before("audit", "write")
	_, err = l.file.Write(append(append(gap, line...), '\n'))
	if err == nil {
		err = l.file.Sync()
	}
	failpoint.After("audit", "write")
	if err != nil {
		l.doubt = true
		return errors.Join(err, l.close())
	}
	l.head = Head{l.head.Number + 1, hash(line)}
	return nil
}

// end is what the end of the file looks like.
type end struct {
	head Head
	// torn is true when lines after the last entry are none; they begin with the line from and have that many bytes. open
	// is true when the last line has no line end.
	torn, open bool
	from       uint64
	bytes      int
}

// readEnd finds the last entry and what stands behind it.
func readEnd(f *os.File) (end, error) {
	info, err := f.Stat()
	if err != nil {
		return end{}, err
	}
	start := max(info.Size()-window, 0)
	text, err := io.ReadAll(io.NewSectionReader(f, start, window))
	if err != nil {
		return end{}, err
	}
	lines := split(text)
	if start > 0 && len(lines) > 0 {
		lines = lines[1:] // its beginning is not in the window
	}
	last, number := len(lines)-1, uint64(0)
	for ; last >= 0; last-- {
		if e, ok := parse(lines[last].text); ok {
			number = e.Number
			break
		}
	}
	if last < 0 && start > 0 {
		return end{}, errors.New("its end holds no entry at all: somebody else wrote to it; move it away and keep it")
	}
	found := end{head: Head{number, origin}}
	if last >= 0 {
		found.head.SHA256 = hash(lines[last].text)
		found.torn = !lines[last].ended
		found.from, found.bytes = number, len(lines[last].text)
	}
	if behind := lines[last+1:]; len(behind) > 0 {
		found.torn, found.from, found.bytes = true, number+1, 0
		for _, l := range behind {
			found.bytes += len(l.text)
		}
		found.head = Head{number + uint64(len(behind)), hash(behind[len(behind)-1].text)}
	}
	found.open = len(lines) > 0 && !lines[len(lines)-1].ended
	return found, nil
}
