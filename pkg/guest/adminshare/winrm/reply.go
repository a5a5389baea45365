package winrm

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// stateDone is the state of a command that has ended (MS-WSMV 2.2.4.10).
const stateDone = shellURI + "/CommandState/Done"

// soapReply is what we read of a reply. The library's own readers are not used: they take broken base64 for no output, and a
// broken exit status for 0.
type soapReply struct {
	XMLName   xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
	ShellID   string   `xml:"Body>Shell>ShellId"`
	Selectors []struct {
		Name  string `xml:"Name,attr"`
		Value string `xml:",chardata"`
	} `xml:"Body>ResourceCreated>ReferenceParameters>SelectorSet>Selector"`
	Command string `xml:"Body>CommandResponse>CommandId"`
	Streams []struct {
		Name string `xml:"Name,attr"`
		Data string `xml:",chardata"`
	} `xml:"Body>ReceiveResponse>Stream"`
	State *struct {
		State string  `xml:"State,attr"`
		Exit  *string `xml:"ExitCode"`
	} `xml:"Body>ReceiveResponse>CommandState"`
	Fault *Fault `xml:"Body>Fault"`
}

// parseReply reads one envelope with nothing behind it.
func parseReply(raw []byte) (soapReply, error) {
	var r soapReply
	d := xml.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&r); err != nil {
		return soapReply{}, err
	}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return soapReply{}, err
		}
		if text, ok := token.(xml.CharData); !ok || strings.Trim(string(text), " \t\r\n\x00") != "" {
			return soapReply{}, errors.New("something follows the envelope")
		}
	}
}

// shell is the identifier of a new shell, which servers give in one of two places or in both.
func (r soapReply) shell() string {
	for _, s := range r.Selectors {
		if s.Name == "ShellId" {
			return strings.TrimSpace(s.Value)
		}
	}
	return strings.TrimSpace(r.ShellID)
}

// output adds what the reply has of both streams.
func (r soapReply) output(out *Output) error {
	for _, s := range r.Streams {
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s.Data), ""))
		if err != nil {
			return err
		}
		switch s.Name {
		case "stdout":
			out.Stdout = append(out.Stdout, data...)
		case "stderr":
			out.Stderr = append(out.Stderr, data...)
		default:
			return fmt.Errorf("there is no stream %q", s.Name)
		}
	}
	return nil
}

// end says whether the command has ended, and with what.
func (r soapReply) end() (done bool, exit int, err error) {
	if r.State == nil || r.State.State != stateDone {
		return false, 0, nil
	}
	if r.State.Exit == nil {
		return false, 0, errors.New("the command ended without an exit status")
	}
	exit, err = strconv.Atoi(strings.TrimSpace(*r.State.Exit))
	if err != nil {
		return false, 0, fmt.Errorf("the exit status of the command is no number: %w", err)
	}
	return true, exit, nil
}
