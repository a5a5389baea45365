package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the largest body of a frame in bytes. A larger one closes the connection: a peer that is confused or
// hostile must not make us allocate.
const MaxFrame = 1 << 20

// ErrFrameSize is returned for a frame whose body is empty or larger than MaxFrame.
var ErrFrameSize = errors.New("frame size outside 1 byte..1 MiB")

// ReadFrame reads one frame: a 4-byte big-endian length of the body, then the body. It blocks until the frame is whole,
// and never allocates more than MaxFrame. io.EOF means that the peer closed between two frames,
// io.ErrUnexpectedEOF within one.
func ReadFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", ErrFrameSize, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body, nil
}

// AppendFrame appends body as one frame to dst, so that a frame leaves in one write.
func AppendFrame(dst, body []byte) ([]byte, error) {
	if len(body) == 0 || len(body) > MaxFrame {
		return dst, fmt.Errorf("%w: %d bytes", ErrFrameSize, len(body))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...), nil
}
