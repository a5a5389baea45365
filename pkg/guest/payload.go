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
)

// agents are the agents that this binary carries, made by "make agent"; a plain "go build" of a fresh clone has none.
//
//go:embed all:payload
var agents embed.FS

// maxPayload bounds an agent's size: one is 6 MiB.
const maxPayload = 64 << 20

// AgentName is the file name of the agent in a Linux guest.
const AgentName = "stillframe-agent"

// EmbeddedAgent gives the agent for a Linux guest of the architecture arch (amd64, arm64) that this binary carries.
func EmbeddedAgent(arch string) (Payload, error) {
	name := "payload/stillframe-agent-linux-" + arch + ".gz"
	packed, err := agents.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Payload{}, &Error{SF: "SF3609", Op: "find the agent", Err: fmt.Errorf("this stillframe was built without an agent for linux/%s", arch)}
	}
	if err != nil {
		return Payload{}, fmt.Errorf("open the embedded agent: %w", err)
	}
	plain, err := gzip.NewReader(packed)
	if err != nil {
		return Payload{}, fmt.Errorf("unpack the embedded agent: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(plain, maxPayload))
	if err != nil {
		return Payload{}, fmt.Errorf("unpack the embedded agent: %w", err)
	}
	return payload(content), nil
}

// AgentFile gives the agent of a file, in place of the embedded one.
func AgentFile(path string) (Payload, error) {
	f, err := os.Open(path)
	if err != nil {
		return Payload{}, &Error{SF: "SF1003", Op: "read the agent's file", Err: err}
	}
	content, err := io.ReadAll(io.LimitReader(f, maxPayload))
	if err := errors.Join(err, f.Close()); err != nil {
		return Payload{}, &Error{SF: "SF1003", Op: "read the agent's file", Err: err}
	}
	if !bytes.HasPrefix(content, []byte("\x7fELF")) {
		return Payload{}, &Error{SF: "SF1003", Op: "read the agent's file", Err: fmt.Errorf("%s is not a Linux program", path)}
	}
	return payload(content), nil
}

func payload(content []byte) Payload {
	return Payload{
		Name: AgentName, Size: int64(len(content)), SHA256: sha256.Sum256(content),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}
