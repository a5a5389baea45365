package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
)

// labWord makes this program a world of the lab: "bench lab SCENARIO FOLDER".
const labWord = "lab"

// labRequest asks a world for the snapshots of a VM, after it was given one more when Take is its name.
type labRequest struct{ VM, Take string }

// labAnswer is the answer. Most is the highest number of snapshot tasks that there were at once so far.
type labAnswer struct {
	Snapshots []string
	Most      int
	Error     string
}

// serveLab serves a world until its standard input ends: first what it is, then an answer to each request.
func serveLab(ctx context.Context, file, dir string, in io.Reader, out io.Writer) (err error) {
	scenario, err := lab.ReadScenario(file)
	if err != nil {
		return err
	}
	w, err := lab.Start(ctx, scenario, lab.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close(ctx)) }()
	var mu sync.Mutex
	var now, most int
	w.VCenter().OnTask(func(_, method, stage string) {
		if !strings.HasPrefix(method, "CreateSnapshot") {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch stage {
		case "queued":
			now++
			most = max(most, now)
		case "done":
			now--
		}
	})
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	if err := answers.Encode(w.Ready()); err != nil {
		return err
	}
	for {
		var r labRequest
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a labAnswer
		if r.Take != "" {
			if err := w.VCenter().TakeSnapshot(ctx, r.VM, r.Take); err != nil {
				a.Error = err.Error()
			}
		}
		mu.Lock()
		a.Most = most
		mu.Unlock()
		a.Snapshots = w.VCenter().SnapshotNames(r.VM)
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// helper is another process of this program, at the lowest priority: what it stands for has a machine of its own in a real site.
type helper struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
}

// helperLimit is how long a helper may take to end when the bench is ended.
const helperLimit = 10 * time.Second

// startHelper starts one, and reads what it says first.
func startHelper(ctx context.Context, first any, args ...string) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	h := &helper{process: exec.CommandContext(ctx, "nice", append([]string{"-n", "19", self}, args...)...)}
	h.process.Stderr, h.process.WaitDelay = os.Stderr, helperLimit
	h.process.Cancel = func() error { return h.process.Process.Signal(syscall.SIGTERM) }
	if h.in, err = h.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.out = json.NewDecoder(bufio.NewReader(out))
	if err := h.process.Start(); err != nil {
		return nil, fmt.Errorf("start %q: %w", args, err)
	}
	if err := h.out.Decode(first); err != nil {
		return nil, errors.Join(fmt.Errorf("start %q: %w", args, err), h.close())
	}
	return h, nil
}

func (h *helper) close() error { return errors.Join(h.in.Close(), h.process.Wait()) }

// labWorld is a vCenter of the lab, with its guests, in a process of its own.
type labWorld struct {
	*helper
	ready lab.Ready
}

// startLab starts a world in a folder.
func startLab(ctx context.Context, scenario, dir string) (*labWorld, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "scenario.yaml")
	if err := os.WriteFile(file, []byte(scenario), 0o600); err != nil {
		return nil, err
	}
	w := &labWorld{}
	var err error
	w.helper, err = startHelper(ctx, &w.ready, labWord, file, dir)
	return w, err
}

// ask asks for the snapshots of a VM, after it was given one when take is not empty.
func (w *labWorld) ask(vm, take string) (a labAnswer, err error) {
	if err := json.NewEncoder(w.in).Encode(labRequest{vm, take}); err != nil {
		return a, fmt.Errorf("ask the lab: %w", err)
	}
	if err := w.out.Decode(&a); err != nil {
		return a, fmt.Errorf("ask the lab: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}
