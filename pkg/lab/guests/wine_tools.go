package guests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/wine"
)

// toolsProgram stands for VMware Tools in a wine guest (testing/cpp/guesttools.cpp).
const toolsProgram = "guesttools.exe"

// toolsLimit bounds one answer: a guest that stands still gives none.
const toolsLimit = 20 * time.Second

// wineTools runs programs inside a wine guest. It starts with the first question, and once more when it has died with the
// guest. It is safe for concurrent use; one question is asked at a time.
type wineTools struct {
	prefix *wine.Prefix

	mu      sync.Mutex
	closed  bool
	cmd     *exec.Cmd // nil while it does not run
	in      io.WriteCloser
	answers chan string
	boot    int // how often it was started
}

// windowsProcess is a process as Windows tells it. Program is empty for one that guest operations started.
type windowsProcess struct {
	pid     int64
	ended   bool
	code    int32
	program string
}

// toolsError is a number of Windows.
type toolsError struct{ number int }

func (e *toolsError) Error() string { return fmt.Sprintf("windows error %d", e.number) }

// run starts a program with the environment env besides Windows's own, which it has from the first start of the tools on.
// boot tells the process ids of one life of the guest from those of the next.
func (t *wineTools) run(env []string, folder, commandLine, log string) (pid int64, boot int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	answer, err := t.ask(env, strings.Join([]string{"start", folder, commandLine, log}, "\t"))
	if err != nil {
		return 0, t.boot, err
	}
	pid, err = number(answer, "pid ")
	return pid, t.boot, err
}

// list gives every process of the guest, and which life of the guest it is.
func (t *wineTools) list(env []string) ([]windowsProcess, int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line, err := t.ask(env, "list")
	var all []windowsProcess
	for ; err == nil && line != "."; line, err = t.answer() {
		fields := strings.Split(line, "\t")
		if len(fields) != 4 {
			return nil, t.boot, fmt.Errorf("the guest's tools listed %q", line)
		}
		pid, pidErr := strconv.ParseInt(fields[0], 10, 64)
		code, codeErr := strconv.ParseUint(fields[2], 10, 32)
		if err := errors.Join(pidErr, codeErr); err != nil {
			return nil, t.boot, fmt.Errorf("the guest's tools listed %q: %w", line, err)
		}
		all = append(all, windowsProcess{pid: pid, ended: fields[1] == "1", code: int32(uint32(code)), program: fields[3]})
	}
	return all, t.boot, err
}

// end terminates a process.
func (t *wineTools) end(env []string, pid int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	answer, err := t.ask(env, fmt.Sprintf("end\t%d", pid))
	if err == nil && answer != "ok" {
		_, err = number(answer, "ok")
	}
	return err
}

// clock reads the clock of the trace by tools of its own: the environment of those that stay comes with the first program.
func (t *wineTools) clock(ctx context.Context) (time.Duration, error) {
	cmd := t.prefix.Command(ctx, toolsProgram)
	cmd.Stdin = strings.NewReader("clock\n")
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("ask the guest for its clock: %w", err)
	}
	text, found := strings.CutPrefix(strings.TrimSpace(string(out)), "ms ")
	ms, err := strconv.ParseFloat(text, 64)
	if !found || err != nil {
		return 0, fmt.Errorf("ask the guest for its clock: it says %q", out)
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}

// number reads "WORD N", or "error N".
func number(answer, word string) (int64, error) {
	if text, failed := strings.CutPrefix(answer, "error "); failed {
		n, err := strconv.Atoi(text)
		return 0, errors.Join(&toolsError{n}, err)
	}
	text, found := strings.CutPrefix(answer, word)
	n, err := strconv.ParseInt(text, 10, 64)
	if !found || err != nil {
		return 0, fmt.Errorf("the guest's tools answered %q", answer)
	}
	return n, nil
}

// ask writes one line and reads the first of the answer. The caller holds the lock.
func (t *wineTools) ask(env []string, line string) (string, error) {
	if strings.ContainsAny(line, "\r\n") {
		return "", errors.New("a command of the guest has more than one line")
	}
	for try := 0; ; try++ {
		if t.cmd == nil {
			if err := t.launch(env); err != nil {
				return "", err
			}
		}
		answer := ""
		_, err := io.WriteString(t.in, line+"\n")
		if err != nil {
			err = errors.Join(errToolsGone, err, t.forget())
		} else if answer, err = t.answer(); err == nil {
			return answer, nil
		}
		// It died with the guest before the question, so that nothing of it was done.
		if try > 0 || !errors.Is(err, errToolsGone) {
			return "", err
		}
	}
}

var errToolsGone = errors.New("the guest's tools have ended")

// answer reads one line of an answer. Tools that are silent are ended.
func (t *wineTools) answer() (string, error) {
	timer := time.NewTimer(toolsLimit)
	defer timer.Stop()
	select {
	case line, ok := <-t.answers:
		if ok {
			return line, nil
		}
		return "", errors.Join(errToolsGone, t.forget())
	case <-timer.C:
		return "", errors.Join(fmt.Errorf("the guest's tools were silent for %v", toolsLimit), t.forget())
	}
}

// forget ends the tools that are there.
func (t *wineTools) forget() error {
	cmd, in := t.cmd, t.in
	if cmd == nil {
		return nil
	}
	t.cmd = nil
	closing := in.Close()
	cmd.Process.Kill() //nolint:errcheck // it may have ended already
	for range t.answers {
		continue
	}
	cmd.Wait() //nolint:errcheck // it was killed
	return closing
}

func (t *wineTools) launch(env []string) error {
	if t.closed {
		return errors.New("the guest is closed")
	}
	cmd := t.prefix.Command(context.Background(), toolsProgram) //nolint:forbidigo // it lives as long as the guest
	cmd.Env = append(cmd.Env, env...)
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guest's tools: %w", err)
	}
	answers := make(chan string, 1024)
	go func() {
		defer close(answers)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			answers <- strings.TrimRight(lines.Text(), "\r")
		}
	}()
	t.cmd, t.in, t.answers = cmd, in, answers
	t.boot++
	return nil
}

func (t *wineTools) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.forget()
}
