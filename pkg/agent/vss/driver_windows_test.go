package vss

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vss/provider"
)

// TestMain makes this binary a program that a test of the lab drives: after the word "drive" each argument is a command, and
// is answered with one line of JSON. Without that word it is what it looks like.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "drive" {
		os.Exit(m.Run())
	}
	if err := windows.SetDefaultDllDirectories(windows.LOAD_LIBRARY_SEARCH_SYSTEM32); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	err := runScript(os.Args[2:])
	if errors.Is(err, provider.ErrStays) {
		fmt.Fprintln(os.Stderr, err)
		err = windows.TerminateProcess(windows.CurrentProcess(), 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// driver is one process with a provider and a Freezer.
type driver struct {
	freezer *Freezer
	expired chan agent.ExpiredBy
	out     *json.Encoder

	frozen  chan reply // of a freeze that runs
	started chan struct{}
	since   time.Time // of the command
}

func failed(err error) reply {
	r := reply{}
	if err != nil {
		r.Err = err.Error()
		var c *agent.CodedError
		if errors.As(err, &c) {
			r.Code = c.Code
		}
	}
	return r
}

func runScript(commands []string) (err error) {
	p := provider.New()
	d := &driver{expired: make(chan agent.ExpiredBy, 64), out: json.NewEncoder(os.Stdout)}
	d.freezer = New(Options{Provider: p, Version: "test", Seams: Seams{
		Disks: func(string) ([]protocol.Disk, error) { return []protocol.Disk{{Serial: "lab", Number: 0}}, nil },
		Open:  func(string) (Flusher, error) { return instant{}, nil },
		Pause: 30 * time.Millisecond,
	}})
	server, err := provider.Start(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.freezer.Close(), server.Close()) }()
	leave, err := com.Enter()
	if err != nil {
		return err
	}
	defer leave()
	for _, line := range commands {
		words := strings.Fields(line)
		d.since = time.Now()
		r := d.do(words[0], words[1:])
		r.Do, r.Took = words[0], time.Since(d.since)
		if err := d.out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// instant is a volume whose cache is empty.
type instant struct{}

func (instant) Flush() error { return nil }
func (instant) Close() error { return nil }

func (d *driver) do(command string, args []string) reply {
	ctx := context.Background()
	switch command {
	case "register":
		return failed(provider.Register(provider.Registration{Exe: `C:\agent.exe`, Service: option(args, "service", ""), Version: option(args, "version", "1.0")}))
	case "unregister":
		return failed(provider.Unregister())
	case "volumes":
		volumes, err := d.freezer.Volumes(ctx)
		r := failed(err)
		r.Volumes = volumes
		return r
	case "prepare":
		return d.prepare(ctx, args)
	case "freeze":
		d.freeze(ctx)
		return <-d.frozen
	case "freezing": // freeze, but do not wait
		d.freeze(ctx)
		return reply{}
	case "started":
		return within(d.started, func(struct{}) reply { return reply{} })
	case "frozen":
		return within(d.frozen, func(r reply) reply { return r })
	case "hold":
		<-time.After(duration(args[0]))
		return reply{}
	case "veto":
		d.freezer.Veto()
		return reply{}
	case "thaw":
		release := d.freezer.Thaw(ctx)
		return reply{Release: &release}
	case "expired":
		return within(d.expired, func(by agent.ExpiredBy) reply { return reply{Expired: by} })
	case "settle":
		settled := d.freezer.Settle(ctx)
		return reply{Settled: &settled}
	case "complete":
		completed := d.freezer.Complete(ctx, agent.Completion{OK: args[0], Components: strings.Split(option(args, "components", ""), ","), Truncate: option(args, "truncate", "") == "1"})
		r := failed(completed.Err)
		r.Completed = &completed
		r.Completed.Err = nil
		return r
	case "close":
		return failed(d.freezer.Close())
	case "run":
		return program(args)
	case "cycles":
		return d.cycles(ctx, args)
	case "callbacks":
		var all []string
		for _, l := range d.freezer.Trace() {
			all = append(all, l.What+" "+l.Result.Hex())
		}
		return reply{Callbacks: all}
	case "die":
		return failed(windows.TerminateProcess(windows.CurrentProcess(), 3))
	}
	return failed(fmt.Errorf("no command %q", command))
}

func (d *driver) prepare(ctx context.Context, args []string) reply {
	if limit := option(args, "within", ""); limit != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration(limit))
		defer cancel()
	}
	list := func(name string) []string {
		if text := option(args, name, ""); text != "" {
			return strings.Split(text, ",")
		}
		return nil
	}
	p, err := d.freezer.Prepare(ctx, agent.PrepareRequest{
		Mode: option(args, "mode", "io"), BackupType: option(args, "type", "copy"), Volumes: strings.Split(option(args, "volumes", `C:\`), ","),
		Writers: protocol.WriterPolicy{Required: list("required"), Tolerated: list("tolerated"), Excluded: list("excluded")},
		Deadman: duration(option(args, "deadman", "18s")), IODeadman: duration(option(args, "io_deadman", "8.5s")), SecondNet: duration(option(args, "second_net", "18.5s")),
		Expired: func(by agent.ExpiredBy) { d.expired <- by },
	})
	r := failed(err)
	if err == nil {
		r.Prepared = &p
	}
	return r
}

func (d *driver) freeze(ctx context.Context) {
	d.frozen, d.started = make(chan reply, 1), make(chan struct{}, 1)
	frozen, started := d.frozen, d.started
	go func() {
		var once sync.Once
		began := false
		held, err := d.freezer.Freeze(ctx, func() {
			once.Do(func() { began = true; started <- struct{}{} })
		})
		r := failed(err)
		r.Started = began
		if err == nil {
			r.Held = &held
		}
		frozen <- r
	}()
}

// cycles runs whole sessions, one after the other, while the collector runs all the time.
func (d *driver) cycles(ctx context.Context, args []string) reply {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return failed(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	stop := make(chan struct{})
	var collecting sync.WaitGroup
	collecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	defer collecting.Wait()
	defer close(stop)
	good := 0
	for i := range count {
		if r := d.prepare(ctx, args[1:]); r.Err != "" {
			return r
		}
		d.freeze(ctx)
		if r := <-d.frozen; r.Err != "" {
			return r
		}
		garbage := make([][]byte, 0, 64)
		for range 64 {
			garbage = append(garbage, make([]byte, 64<<10))
		}
		release := d.freezer.Thaw(ctx)
		runtime.KeepAlive(garbage)
		settled := d.freezer.Settle(ctx)
		if i%3 == 2 { // some end without a backup
			if err := d.freezer.Close(); err != nil {
				return failed(err)
			}
		} else if c := d.freezer.Complete(ctx, agent.Completion{OK: "all"}); c.Err != nil || !c.Closed {
			return failed(fmt.Errorf("cycle %d: complete: %w", i, c.Err))
		}
		if err := d.freezer.Close(); err != nil {
			return failed(err)
		}
		if settled.Finished && release.Expired == "" {
			good++
		}
	}
	return reply{Output: strconv.Itoa(good)}
}

// within waits for what has to come soon.
func within[T any](c <-chan T, say func(T) reply) reply {
	select {
	case v := <-c:
		return say(v)
	case <-time.After(20 * time.Second):
		return failed(errors.New("it did not come"))
	}
}

func program(args []string) reply {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	r := failed(err)
	r.Output = string(out)
	return r
}

func option(args []string, name, otherwise string) string {
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, name+"="); ok {
			return strings.ReplaceAll(value, "_", " ")
		}
	}
	return otherwise
}

func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}
