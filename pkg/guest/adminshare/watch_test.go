package adminshare

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// answer is one SMB2 reply as it stands on the wire, with a body of size bytes that begins with first.
func answer(command uint16, status uint32, first []byte, size int) []byte {
	header := make([]byte, headerBytes)
	copy(header, "\xfeSMB")
	binary.LittleEndian.PutUint32(header[8:], status)
	binary.LittleEndian.PutUint16(header[12:], command)
	body := make([]byte, size)
	copy(body, first)
	frame := binary.BigEndian.AppendUint32(nil, uint32(headerBytes+size))
	return append(append(frame, header...), body...)
}

// stream is a connection that only reads.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func TestWatch(t *testing.T) {
	negotiated := answer(commandNegotiate, 0, []byte{65, 0, 3, 0, 0x11, 3}, 200)
	more := answer(commandSessionSetup, 0xC0000016, []byte{9, 0, 0, 0}, 300)
	set := func(flags byte) []byte { return answer(commandSessionSetup, 0, []byte{9, 0, flags, 0}, 90) }
	for name, c := range map[string]struct {
		replies [][]byte
		want    terms
	}{
		"nothing":            {nil, terms{}},
		"negotiated":         {[][]byte{negotiated}, terms{negotiated: true, dialect: 0x0311, signingRequired: true}},
		"under way":          {[][]byte{negotiated, more}, terms{negotiated: true, dialect: 0x0311, signingRequired: true}},
		"encrypted":          {[][]byte{negotiated, more, set(4)}, terms{negotiated: true, dialect: 0x0311, signingRequired: true, set: true, encrypts: true}},
		"plain":              {[][]byte{negotiated, more, set(0)}, terms{negotiated: true, dialect: 0x0311, signingRequired: true, set: true}},
		"guest":              {[][]byte{negotiated, more, set(1)}, terms{negotiated: true, dialect: 0x0311, signingRequired: true, set: true, guest: true}},
		"nobody":             {[][]byte{negotiated, set(2)}, terms{negotiated: true, dialect: 0x0311, signingRequired: true, set: true, guest: true}},
		"nothing after that": {[][]byte{negotiated, set(0), set(1)}, terms{negotiated: true, dialect: 0x0311, signingRequired: true, set: true}},
		"refused":            {[][]byte{answer(commandNegotiate, 0xC00000BB, []byte{9, 0, 0, 0}, 9)}, terms{}},
		"SMB 1":              {[][]byte{[]byte("\x00\x00\x00\x50\xffSMB" + string(make([]byte, 76)))}, terms{}},
		"a keep-alive":       {[][]byte{{0x85, 0, 0, 0}, negotiated}, terms{negotiated: true, dialect: 0x0311, signingRequired: true}},
		"a short frame":      {[][]byte{{0, 0, 0, 3, 1, 2, 3}, negotiated}, terms{negotiated: true, dialect: 0x0311, signingRequired: true}},
	} {
		t.Run(name, func(t *testing.T) {
			all := bytes.Join(c.replies, nil)
			for how, r := range map[string]io.Reader{"at once": bytes.NewReader(all), "byte by byte": iotest.OneByteReader(bytes.NewReader(all))} {
				w := &watched{Conn: stream{Reader: r}}
				got, err := io.ReadAll(w)
				if err != nil || !bytes.Equal(got, all) {
					t.Errorf("%s: the watch changed what it read, %v", how, err)
				}
				if w.agreed() != c.want {
					t.Errorf("%s: terms are %+v, want %+v", how, w.agreed(), c.want)
				}
			}
		})
	}
}

// FuzzWatch: whatever a server sends passes unchanged, and nothing breaks.
func FuzzWatch(f *testing.F) {
	f.Add(answer(commandNegotiate, 0, []byte{65, 0, 3, 0, 0x11, 3}, 200), 7)
	f.Add(answer(commandSessionSetup, 0, []byte{9, 0, 4, 0}, 9), 1)
	f.Add([]byte("\x00\xff\xff\xff\xfeSMB"), 3)
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		if piece < 1 || piece > len(sent) {
			piece = len(sent) + 1
		}
		w := &watched{}
		for rest := sent; len(rest) > 0; {
			n := min(piece, len(rest))
			if !w.terms.set {
				w.look(rest[:n])
			}
			rest = rest[n:]
		}
		if len(w.head) > lengthBytes+keptBytes || w.left < 0 {
			t.Errorf("the watch keeps %d bytes, %d left", len(w.head), w.left)
		}
	})
}
