package guests

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// stallLimit is how long the lab lets a guest stand still, whatever happens: longer than every limit of the product, so
// that a rescue by the lab is always a defect that shows.
const stallLimit = 30 * time.Second

// fithaw is FITHAW of linux/fs.h: _IOWR('X', 120, int).
const fithaw = 0xc0045878

// thaw releases the file system of an open file. held is false when it was not frozen.
func thaw(f *os.File) (held bool, err error) {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fithaw, 0)
	switch errno {
	case 0:
		return true, nil
	case syscall.EINVAL: // FITHAW on a thawed file system
		return false, nil
	default:
		return false, fmt.Errorf("thaw %s: %w", f.Name(), errno)
	}
}

// watchMount is the thawer process of one mount. It holds the mount's directory opened before any freeze, and reads
// commands from standard input: "alive" says that the guest moves, "thaw" thaws, "leave" ends it. When nothing came for
// limit it thaws by itself and says "rescued"; at the end of the input without "leave" the lab has died, so it thaws
// and unmounts. It answers "thawed", "notheld" or "error <text>" to "thaw".
func watchMount(mount string, dir *os.File, limit time.Duration) error {
	runtime.LockOSThread()
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	lines := make(chan string)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
	}()
	silence := time.NewTimer(limit)
	defer silence.Stop()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return abandon(mount, dir)
			}
			silence.Reset(limit)
			switch line {
			case "thaw":
				if err := answerThaw(os.Stdout, dir); err != nil {
					return errors.Join(err, abandon(mount, dir))
				}
			case "leave":
				return dir.Close()
			}
		case <-silence.C:
			silence.Reset(limit)
			if held, err := thaw(dir); held || err != nil {
				if _, err := fmt.Fprintf(os.Stdout, "rescued %v\n", err); err != nil {
					return errors.Join(err, abandon(mount, dir))
				}
			}
		}
	}
}

func answerThaw(out io.Writer, dir *os.File) error {
	held, err := thaw(dir)
	answer := "notheld"
	switch {
	case err != nil:
		answer = "error " + err.Error()
	case held:
		answer = "thawed"
	}
	_, err = fmt.Fprintln(out, answer)
	return err
}

// abandon leaves nothing behind after the lab has died: the loop device goes with its mount (autoclear).
func abandon(mount string, dir *os.File) error {
	_, thawErr := thaw(dir)
	return errors.Join(thawErr, dir.Close(), syscall.Unmount(mount, syscall.MNT_DETACH))
}
