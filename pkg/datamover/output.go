package datamover

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Limits of what a program can have us read and keep.
const (
	// outputPerSecond is how many bytes of each stream are read in a second at most. A program that floods us is slowed down
	// by its full pipe.
	outputPerSecond = 1 << 20
	maxLine         = 4 << 10
	maxTail         = 8 << 10
	maxText         = 200 // of a progress, in runes
)

// pump copies a stream to w as fast as it may, until the stream ends or over is closed.
func pump(r io.Reader, w io.Writer, over <-chan struct{}) {
	block := make([]byte, 32<<10)
	second, read := time.Now(), 0
	for {
		n, err := r.Read(block)
		if n > 0 {
			w.Write(block[:n]) //nolint:errcheck // memory of ours never fails
		}
		if err != nil {
			return
		}
		passed := time.Since(second)
		if passed >= time.Second {
			second, read = time.Now(), 0
		}
		if read += n; read < outputPerSecond {
			continue
		}
		select {
		case <-time.After(time.Second - passed):
		case <-over:
			return
		}
		second, read = time.Now(), 0
	}
}

// lines reads progress from a program's output: each line that is a JSON object with the field progress. All other lines
// are left alone.
type lines struct {
	line []byte
	long bool
	// progress holds the newest that nobody has taken yet.
	progress chan Progress
}

func newLines() *lines { return &lines{progress: make(chan Progress, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		rest = after
		if l.long = l.long || len(l.line)+len(part) > maxLine; !l.long {
			l.line = append(l.line, part...)
		}
		if !ended {
			break
		}
		if !l.long {
			l.take()
		}
		l.line, l.long = l.line[:0], false
	}
	return len(p), nil
}

// take tells what the line says, in the place of what was told before and not taken.
func (l *lines) take() {
	p, ok := parse(l.line)
	if !ok {
		return
	}
	select {
	case <-l.progress:
	default:
	}
	l.progress <- p
}

// parse reads one line of progress. Fields that are not known are ignored, numbers that cannot be are brought to what can.
func parse(line []byte) (Progress, bool) {
	if line = bytes.TrimSpace(line); len(line) == 0 || line[0] != '{' {
		return Progress{}, false
	}
	var said struct {
		Progress    *float64 `json:"progress"`
		BytesRead   int64    `json:"bytes_read"`
		BytesStored int64    `json:"bytes_stored"`
		Text        string   `json:"text"`
	}
	if err := json.Unmarshal(line, &said); err != nil || said.Progress == nil {
		return Progress{}, false
	}
	text := []rune(plain(said.Text))
	return Progress{
		Fraction: min(max(*said.Progress, 0), 1), BytesRead: max(said.BytesRead, 0), BytesStored: max(said.BytesStored, 0),
		Text: string(text[:min(len(text), maxText)]),
	}, true
}

// tail keeps the end of what was written.
type tail struct {
	mu   sync.Mutex
	kept []byte
	cut  bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - maxTail; over > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[over:]...), true
	}
	return len(p), nil
}

// tail is what was kept, without what could steer a terminal; lines stay lines.
func (t *tail) tail() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(t.kept)
	if t.cut {
		text = "..." + text
	}
	var out []string
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		out = append(out, plain(line))
	}
	return strings.Join(out, "\n")
}

// plain drops control characters and what is not UTF-8.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.In(r, unicode.Cf):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
