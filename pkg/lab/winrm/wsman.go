package winrm

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Faults of wsmerror.h that the double gives by itself.
const (
	faultOperationTimeout = 2150858793
	faultInvalidSelectors = 2150858843
	faultInvalidAction    = 2150858767 // for an action that the double does not know
)

const (
	shellNamespace = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	transfer       = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
	faultAction    = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
	resource       = shellNamespace + "/cmd"

	// pieceBytes is how much of each stream one reply has at most.
	pieceBytes = 48 << 10
	// defaultWait is the OperationTimeout of who gives none (MS-WSMV).
	defaultWait = 60 * time.Second
)

// request is what the double reads of a message.
type request struct {
	XMLName   xml.Name `xml:"Envelope"`
	Action    string   `xml:"Header>Action"`
	ID        string   `xml:"Header>MessageID"`
	Timeout   string   `xml:"Header>OperationTimeout"`
	Selectors []struct {
		Name  string `xml:"Name,attr"`
		Value string `xml:",chardata"`
	} `xml:"Header>SelectorSet>Selector"`
	Command   string   `xml:"Body>CommandLine>Command"`
	Arguments []string `xml:"Body>CommandLine>Arguments"`
	Streams   []struct {
		CommandID string `xml:"CommandId,attr"`
		End       bool   `xml:"End,attr"`
		Data      string `xml:",chardata"`
	} `xml:"Body>Send>Stream"`
	Desired struct {
		CommandID string `xml:"CommandId,attr"`
	} `xml:"Body>Receive>DesiredStream"`
}

func (r request) shellID() string {
	for _, s := range r.Selectors {
		if s.Name == "ShellId" {
			return strings.TrimSpace(s.Value)
		}
	}
	return ""
}

// wait is the OperationTimeout: whole or broken seconds, as clients give it.
func (r request) wait() time.Duration {
	text := strings.TrimSpace(r.Timeout)
	d, err := time.ParseDuration(strings.ToLower(strings.TrimPrefix(text, "PT")))
	if err != nil || d <= 0 {
		return defaultWait
	}
	return d
}

// answer does what a message asks for. It returns false when there is to be no answer.
func (s *Server) answer(ctx context.Context, sw Switches, message []byte) (status int, reply []byte, ok bool) {
	var r request
	if err := xml.Unmarshal(message, &r); err != nil {
		s.refuse(err)
		return http.StatusBadRequest, nil, true
	}
	action := strings.TrimSpace(r.Action)
	if action == transfer+"/Create" {
		if sw.CreateFault != 0 {
			return fault(r, sw.CreateFault)
		}
		return s.create(r)
	}
	sh, found := s.shell(r.shellID())
	if !found {
		return fault(r, faultInvalidSelectors)
	}
	switch action {
	case transfer + "/Delete":
		s.forget(sh)
		sh.end()
		return envelope(r, transfer+"/DeleteResponse", "")
	case shellNamespace + "/Command":
		line := strings.Join(append([]string{r.Command}, r.Arguments...), " ")
		if err := sh.start(ctx, line, s.options.Start); err != nil {
			s.refuse(err)
			return fault(r, 2) // ERROR_FILE_NOT_FOUND
		}
		return envelope(r, action+"Response", "<rsp:CommandResponse><rsp:CommandId>"+sh.command+"</rsp:CommandId></rsp:CommandResponse>")
	case shellNamespace + "/Send":
		return s.send(r, sh)
	case shellNamespace + "/Receive":
		return s.receive(ctx, r, sh, sw)
	case shellNamespace + "/Signal":
		sh.kill()
		return envelope(r, action+"Response", "<rsp:SignalResponse/>")
	}
	return fault(r, faultInvalidAction)
}

func (s *Server) create(r request) (int, []byte, bool) {
	sh := newShell()
	s.mu.Lock()
	s.shells[sh.id] = sh
	s.mu.Unlock()
	go func() {
		select {
		case <-s.stopped:
			sh.end()
		case <-sh.over:
		}
	}()
	return envelope(r, transfer+"/CreateResponse", fmt.Sprintf(
		`<x:ResourceCreated><a:Address>http://%s/wsman</a:Address><a:ReferenceParameters><w:ResourceURI>%s</w:ResourceURI>`+
			`<w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>`+
			`<rsp:Shell><rsp:ShellId>%[3]s</rsp:ShellId></rsp:Shell>`, s.Address(), resource, sh.id))
}

func (s *Server) send(r request, sh *shell) (int, []byte, bool) {
	for _, stream := range r.Streams {
		data, err := base64.StdEncoding.DecodeString(stream.Data)
		if err != nil || stream.CommandID != sh.command {
			return fault(r, faultInvalidSelectors)
		}
		sh.input(data, stream.End)
	}
	return envelope(r, shellNamespace+"/SendResponse", "<rsp:SendResponse/>")
}

func (s *Server) receive(ctx context.Context, r request, sh *shell, sw Switches) (int, []byte, bool) {
	if r.Desired.CommandID != sh.command {
		return fault(r, faultInvalidSelectors)
	}
	if sw.StallReceive {
		select {
		case <-ctx.Done():
		case <-sh.over:
		}
		return 0, nil, false
	}
	wait := r.wait()
	if sw.OutputWait > 0 {
		wait = sw.OutputWait
	}
	p, come := sh.piece(ctx, wait)
	switch {
	case !come && sh.gone():
		return fault(r, faultInvalidSelectors)
	case !come:
		return fault(r, faultOperationTimeout)
	}
	var b strings.Builder
	b.WriteString("<rsp:ReceiveResponse>")
	for _, stream := range []struct {
		name string
		data []byte
	}{{"stdout", p.stdout}, {"stderr", p.stderr}} {
		if len(stream.data) > 0 {
			fmt.Fprintf(&b, `<rsp:Stream Name="%s" CommandId="%s">%s</rsp:Stream>`, stream.name, sh.command, base64.StdEncoding.EncodeToString(stream.data))
		}
	}
	if p.done {
		for _, name := range []string{"stdout", "stderr"} {
			fmt.Fprintf(&b, `<rsp:Stream Name="%s" CommandId="%s" End="true"></rsp:Stream>`, name, sh.command)
		}
		fmt.Fprintf(&b, `<rsp:CommandState CommandId="%s" State="%s/CommandState/Done"><rsp:ExitCode>%d</rsp:ExitCode></rsp:CommandState>`,
			sh.command, shellNamespace, p.exit)
	} else {
		fmt.Fprintf(&b, `<rsp:CommandState CommandId="%s" State="%s/CommandState/Running"/>`, sh.command, shellNamespace)
	}
	b.WriteString("</rsp:ReceiveResponse>")
	return envelope(r, shellNamespace+"/ReceiveResponse", b.String())
}

const envelopeFormat = `<?xml version="1.0" encoding="utf-8"?><s:Envelope xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope" ` +
	`xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer" ` +
	`xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:rsp="` + shellNamespace + `" ` +
	`xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"><s:Header><a:Action>%s</a:Action><a:MessageID>uuid:%s</a:MessageID>` +
	`<a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:To><a:RelatesTo>%s</a:RelatesTo></s:Header><s:Body>%s</s:Body></s:Envelope>`

func envelope(r request, action, body string) (int, []byte, bool) {
	var id bytes.Buffer
	if err := xml.EscapeText(&id, []byte(strings.TrimSpace(r.ID))); err != nil {
		return http.StatusInternalServerError, nil, true
	}
	return http.StatusOK, fmt.Appendf(nil, envelopeFormat, action, newID(), id.String(), body), true
}

// fault is an answer of status 500. Its text is German, so that nobody goes by it.
func fault(r request, code uint32) (int, []byte, bool) {
	subcode := "InternalError"
	switch code {
	case faultOperationTimeout:
		subcode = "TimedOut"
	case faultInvalidSelectors:
		subcode = "InvalidSelectors"
	case 5:
		subcode = "AccessDenied"
	}
	_, message, ok := envelope(r, faultAction, fmt.Sprintf(
		`<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:%s</s:Value></s:Subcode></s:Code>`+
			`<s:Reason><s:Text xml:lang="de-DE">Der WS-Verwaltungsdienst kann die Anforderung nicht verarbeiten.</s:Text></s:Reason>`+
			`<s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="%d" Machine="%s">`+
			`<f:Message>Vorgang abgebrochen (%[2]d).</f:Message></f:WSManFault></s:Detail></s:Fault>`, subcode, code, computer))
	return http.StatusInternalServerError, message, ok
}
