package guest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// agents are the agents that this binary carries, made by "make agent"; a plain "go build" of a fresh clone has none.
//
//go:embed all:payload
var agents embed.FS

// maxPayload bounds an agent's size: one is 6 MiB.
const maxPayload = 64 << 20

// AgentName is the file name of the agent in a guest.
func AgentName(system inventory.System) string {
	if system == inventory.Windows {
		return "stillframe-agent.exe"
	}
	return "stillframe-agent"
}

// Platform is one that there is an agent for.
type Platform struct {
	System inventory.System
	// Arch is amd64 or arm64.
	Arch string
}

// Platforms lists those that a full build carries an agent for.
func Platforms() []Platform {
	return []Platform{{inventory.Linux, "amd64"}, {inventory.Linux, "arm64"}, {inventory.Windows, "amd64"}}
}

// known are the payloads of embedded agents by their platform: they stay what they are.
var known sync.Map

// EmbeddedAgent gives the agent for a platform that this binary carries. Its content is unpacked anew whenever it is read.
func EmbeddedAgent(p Platform) (Payload, error) {
	if one, ok := known.Load(p); ok {
		return one.(Payload), nil
	}
	name := fmt.Sprintf("payload/stillframe-agent-%s-%s", p.System, p.Arch)
	if p.System == inventory.Windows {
		name += ".exe"
	}
	name += ".gz"
	one, err := payload(p.System, func() (io.ReadCloser, error) { return unpack(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return Payload{}, &Error{SF: "SF3609", Op: "find the agent", Err: fmt.Errorf("this stillframe was built without an agent for %s/%s", p.System, p.Arch)}
	}
	if err != nil {
		return Payload{}, fmt.Errorf("unpack the embedded agent: %w", err)
	}
	known.Store(p, one)
	return one, nil
}

// unpacked is an embedded agent that is read.
type unpacked struct {
	*gzip.Reader
	packed fs.File
}

// Close implements io.Closer.
func (u unpacked) Close() error { return errors.Join(u.Reader.Close(), u.packed.Close()) }

func unpack(name string) (io.ReadCloser, error) {
	packed, err := agents.Open(name)
	if err != nil {
		return nil, err
	}
	plain, err := gzip.NewReader(packed)
	if err != nil {
		return nil, errors.Join(err, packed.Close())
	}
	return unpacked{plain, packed}, nil
}

// AgentFile gives the agent of a file, in place of the embedded one. Its first bytes tell which system it is for. The file is
// read again when it is pushed; one that was changed in between is found by its SHA-256.
func AgentFile(path string) (Payload, error) {
	fail := func(err error) (Payload, error) {
		return Payload{}, &Error{SF: "SF1003", Op: "read the agent's file", Err: err}
	}
	open := func() (io.ReadCloser, error) { return os.Open(path) }
	f, err := open()
	if err != nil {
		return fail(err)
	}
	first := make([]byte, 4)
	n, err := io.ReadFull(f, first)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it is shorter
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fail(err)
	}
	var system inventory.System
	switch first = first[:n]; {
	case bytes.HasPrefix(first, []byte("\x7fELF")):
		system = inventory.Linux
	case bytes.HasPrefix(first, []byte("MZ")):
		system = inventory.Windows
	default:
		return fail(fmt.Errorf("%s is no program of Linux or Windows", path))
	}
	p, err := payload(system, open)
	if err != nil {
		return fail(err)
	}
	return p, nil
}

// payload weighs what open gives, without keeping it: an agent has megabytes, and there may be many runs at once.
func payload(system inventory.System, open func() (io.ReadCloser, error)) (Payload, error) {
	content, err := open()
	if err != nil {
		return Payload{}, err
	}
	sum := sha256.New()
	size, err := io.Copy(sum, io.LimitReader(content, maxPayload))
	if err := errors.Join(err, content.Close()); err != nil {
		return Payload{}, err
	}
	p := Payload{System: system, Name: AgentName(system), Size: size, Open: open}
	sum.Sum(p.SHA256[:0])
	return p, nil
}
