package winrm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"mime"
	"strconv"
	"strings"
)

// The form of a sealed message (MS-WSMV 2.2.9.1): a multipart of two parts, of which the second is the length of the signature,
// the signature and the sealed bytes.
const (
	sealProtocol = "application/HTTP-SPNEGO-session-encrypted"
	boundary     = "Encrypted Boundary"
	opening      = "--" + boundary + "\r\n"
	closing      = "--" + boundary + "--"

	signatureBytes = 16
)

var errNoSeal = errors.New("the session does not seal")

// envelope is a sealed message.
type envelope struct {
	plainBytes        int // the length before sealing; RC4 keeps it
	signature, sealed []byte
}

func (e envelope) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, opening+"\tContent-Type: "+sealProtocol+"\r\n\tOriginalContent: type="+soapType+";Length=%d\r\n"+
		opening+"\tContent-Type: application/octet-stream\r\n", e.plainBytes)
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(e.signature))))
	b.Write(e.signature)
	b.Write(e.sealed)
	b.WriteString(closing + "\r\n")
	return b.Bytes()
}

// isSealed says whether a reply calls itself sealed by our protocol.
func isSealed(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "multipart/encrypted" && strings.EqualFold(params["protocol"], sealProtocol) && params["boundary"] == boundary
}

// parseEnvelope takes a body apart. The sealed bytes may hold anything, a boundary as well, so they are found from the
// front and the end alone. What it returns lies in body.
func parseEnvelope(body []byte) (envelope, error) {
	rest, ok := bytes.CutPrefix(body, []byte(opening))
	if !ok {
		return envelope{}, errors.New("it does not begin with a boundary")
	}
	head, rest, ok := bytes.Cut(rest, []byte(opening))
	if !ok {
		return envelope{}, errors.New("it has one part, not two")
	}
	length, err := plainLength(string(head))
	if err != nil {
		return envelope{}, err
	}
	head, rest, ok = bytes.Cut(rest, []byte("\r\n"))
	if !ok || !strings.EqualFold(strings.Trim(string(head), " \t"), "Content-Type: application/octet-stream") {
		return envelope{}, errors.New("its second part is no octet-stream")
	}
	rest, ok = bytes.CutSuffix(bytes.TrimSuffix(rest, []byte("\r\n")), []byte(closing))
	if !ok {
		return envelope{}, errors.New("its end is missing")
	}
	if len(rest) < 4+signatureBytes || binary.LittleEndian.Uint32(rest) != signatureBytes {
		return envelope{}, fmt.Errorf("it has no signature of %d bytes", signatureBytes)
	}
	rest = rest[4:]
	// Version 1 is the only one (MS-NLMP 2.2.2.9.1); the library does not look at it.
	if binary.LittleEndian.Uint32(rest) != 1 {
		return envelope{}, errors.New("its signature has an unknown version")
	}
	e := envelope{plainBytes: length, signature: rest[:signatureBytes], sealed: rest[signatureBytes:]}
	if len(e.sealed) != e.plainBytes {
		return envelope{}, fmt.Errorf("it says that it has %d bytes and has %d", e.plainBytes, len(e.sealed))
	}
	return e, nil
}

// plainLength reads the fields of the first part.
func plainLength(head string) (int, error) {
	protocol, length := false, -1
	for line := range strings.Lines(head) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Type"):
			protocol = strings.EqualFold(value, sealProtocol)
		case strings.EqualFold(name, "OriginalContent"):
			_, number, ok := strings.Cut(value, "Length=")
			n, err := strconv.Atoi(number)
			if !ok || err != nil || n < 0 || n > bodyLimit {
				return 0, errors.New("it does not say how long its message is")
			}
			length = n
		}
	}
	if !protocol || length < 0 {
		return 0, errors.New("its first part does not describe the second")
	}
	return length, nil
}
