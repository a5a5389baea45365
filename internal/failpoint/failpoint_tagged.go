//go:build failpoint && unix

// Package failpoint ends this process at a chosen point of its code, in builds tagged failpoint alone.
package failpoint

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Before is the point right before a step.
func Before(kind string, what any) { here(kind, what, "before") }

// After is the point right after one.
func After(kind string, what any) { here(kind, what, "after") }

// plan is what the environment asks for.
type plan struct {
	name   string
	left   int
	signal syscall.Signal
	trace  *os.File
}

var (
	mu     sync.Mutex
	chosen = sync.OnceValue(read) //nolint:gochecknoglobals // a point is passed from everywhere
)

// read panics when the environment cannot be read: a test that kills nothing would prove nothing.
func read() *plan {
	p := &plan{}
	if path := os.Getenv("STILLFRAME_FAILPOINT_TRACE"); path != "" {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			panic(err)
		}
		p.trace = file
	}
	text := os.Getenv("STILLFRAME_FAILPOINT")
	if text == "" {
		return p
	}
	point, action, _ := strings.Cut(text, "=")
	name, number, numbered := strings.Cut(point, "#")
	p.name, p.left = name, 1
	if numbered {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			panic(fmt.Sprintf("STILLFRAME_FAILPOINT=%s: %q is no number of a passing", text, number))
		}
		p.left = n
	}
	switch action {
	case "kill":
		p.signal = syscall.SIGKILL
	case "stop":
		p.signal = syscall.SIGSTOP
	default:
		panic(fmt.Sprintf("STILLFRAME_FAILPOINT=%s: the action is kill or stop", text))
	}
	return p
}

func here(kind string, what any, side string) {
	name := kind + "." + word(what) + "." + side
	p := chosen()
	mu.Lock()
	defer mu.Unlock()
	if p.trace != nil {
		if _, err := p.trace.WriteString(name + "\n"); err != nil {
			panic(err)
		}
	}
	if p.left == 0 || name != p.name {
		return
	}
	if p.left--; p.left > 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "failpoint %s: %s\n", name, p.signal)
	if err := syscall.Kill(os.Getpid(), p.signal); err != nil {
		panic(err)
	}
	if p.signal == syscall.SIGKILL {
		select {} // not one statement more
	}
}

// word is what of a point's name, in one word: that of a text has dashes for blanks, that of a request is its method.
func word(what any) string {
	v := reflect.ValueOf(what)
	if v.Kind() == reflect.String {
		return strings.ReplaceAll(v.String(), " ", "-")
	}
	return strings.TrimSuffix(reflect.Indirect(v).Type().Name(), "Body")
}
