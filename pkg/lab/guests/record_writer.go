package guests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// recordPause is the writer's rest between two records. It keeps a small disk from filling up (about 250 records a
// second), and stays far below the shortest hold that a witness has to see.
const recordPause = 2 * time.Millisecond

// Helper runs the lab's hidden child processes: when args name one it runs until its work is done and returns its exit
// status with handled true. A program which starts linux guests calls it first in main, tests in TestMain.
func Helper(args []string) (code int, handled bool) {
	if len(args) == 0 {
		return 0, false
	}
	var err error
	switch args[0] {
	case "writer":
		if len(args) != 2 {
			return 64, true
		}
		err = writeRecords(args[1], os.NewFile(childFile, "acknowledgements"))
	case "thawer":
		if len(args) != 3 {
			return 64, true
		}
		var limit time.Duration
		if limit, err = time.ParseDuration(args[2]); err == nil {
			err = watchMount(args[1], os.NewFile(childFile, "mount"), limit)
		}
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "stillframe-lab %s: %v\n", args[0], err)
		return 1, true
	}
	return 0, true
}

// childFile is the descriptor of the first of exec.Cmd's ExtraFiles.
const childFile = 3

// writeRecords is the writer process. It appends records to segments in dir, each followed by fsync, and writes a
// record's number to acks only then. Its first line there is "thread <tid>". It ends when acks is closed at the far end.
func writeRecords(dir string, acks io.Writer) error {
	runtime.LockOSThread() // the lab looks at the thread that writes
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	if _, err := fmt.Fprintf(acks, "thread %d\n", syscall.Gettid()); err != nil {
		return fmt.Errorf("name the writing thread: %w", err)
	}
	var segment *os.File
	for n := uint64(1); ; n++ {
		if (n-1)%SegmentRecords == 0 {
			next, err := nextSegment(dir, n, segment)
			if err != nil {
				return err
			}
			segment = next
		}
		if err := appendSynced(segment, n); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(acks, "%d\n", n); errors.Is(err, syscall.EPIPE) {
			return segment.Close() // the lab has gone
		} else if err != nil {
			return fmt.Errorf("acknowledge record %d: %w", n, err)
		}
		time.Sleep(recordPause)
	}
}

// nextSegment closes the last segment and makes the one that begins with record n durable in its directory.
func nextSegment(dir string, n uint64, last *os.File) (*os.File, error) {
	if last != nil {
		if err := last.Close(); err != nil {
			return nil, fmt.Errorf("close a segment: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("segment-%012d", n)), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin a segment: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin a segment: %w", err), f.Close())
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a segment durable: %w", err), f.Close())
	}
	return f, nil
}

// appendSynced writes record n and returns once it is durable.
func appendSynced(f *os.File, n uint64) error {
	if _, err := f.Write(AppendRecord(make([]byte, 0, RecordBytes), n)); err != nil {
		return fmt.Errorf("write record %d: %w", n, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("make record %d durable: %w", n, err)
	}
	return nil
}
