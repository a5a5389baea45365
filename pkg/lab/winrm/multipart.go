package winrm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	sealedType = `multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"`
	plainType  = "application/soap+xml;charset=UTF-8"
)

// enclose makes the body of a sealed reply. The tabs are Windows': clients of it count on them.
func enclose(signature, sealed []byte) []byte {
	head := fmt.Sprintf("--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n"+
		"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n", len(sealed))
	body := binary.LittleEndian.AppendUint32([]byte(head), uint32(len(signature)))
	body = append(append(body, signature...), sealed...)
	return append(body, "--Encrypted Boundary--\r\n"...)
}

// disclose finds signature and sealed bytes by the length that the sender gave.
func disclose(body []byte) (signature, sealed []byte, err error) {
	const marker = "application/octet-stream\r\n"
	at := bytes.Index(body, []byte(marker))
	if at < 0 {
		return nil, nil, errors.New("no octet-stream")
	}
	_, after, found := strings.Cut(string(body[:at]), "Length=")
	number, _, ended := strings.Cut(after, "\r\n")
	length, err := strconv.Atoi(number)
	if !found || !ended || err != nil || length < 0 {
		return nil, nil, errors.New("no length of the message")
	}
	rest := body[at+len(marker):]
	if len(rest) < 4+16+length || binary.LittleEndian.Uint32(rest) != 16 {
		return nil, nil, errors.New("no whole message with a signature of 16 bytes")
	}
	if string(rest[20+length:]) != "--Encrypted Boundary--\r\n" {
		return nil, nil, errors.New("no end of the message where its length has it")
	}
	return rest[4:20], rest[20 : 20+length], nil
}
