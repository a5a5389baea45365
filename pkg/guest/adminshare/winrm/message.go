package winrm

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/masterzen/winrm/soap"
)

// Actions and the resource of a shell of cmd.exe (MS-WSMV 3.1.4).
const (
	transferURI = "http://schemas.xmlsoap.org/ws/2004/09/transfer/"
	shellURI    = soap.NS_WIN_SHELL
	resource    = shellURI + "/cmd"
	anonymous   = soap.NS_ADDRESSING + "/role/anonymous"
)

const (
	// messageBytes is the largest reply that we ask for: what old servers have as MaxEnvelopeSizekb, 150 KiB.
	messageBytes = 153600
	// idleSeconds is after how long Windows drops a shell that nobody asks anything of: one whose connection broke. It is
	// longer than operationLimit, and at least the minute that Windows wants (unverified).
	idleSeconds = 120
	// codePage has cmd.exe and what it starts write UTF-8.
	codePage = "65001"
)

// validID says whether an identifier of the server may go into a message as it is.
var validID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`).MatchString

func seconds(d time.Duration) string { return fmt.Sprintf("PT%dS", int(d.Seconds())) }

// newMessage begins a message; shell is empty when there is none yet. The library escapes nothing: what is put into a
// message is either ours, or checked.
func newMessage(url, action, shell string, options ...*soap.HeaderOption) *soap.SoapMessage {
	m := soap.NewMessage()
	h := m.Header().To(url).ReplyTo(anonymous).MaxEnvelopeSize(messageBytes).Id("uuid:" + uuid.NewString()).
		Locale("en-US").Timeout(seconds(operationLimit)).Action(action).ResourceURI(resource)
	if shell != "" {
		h = h.ShellId(shell)
	}
	for _, option := range options {
		h = h.AddOption(option)
	}
	return h.Build()
}

// createMessage asks for a shell without the account's profile, which would take time and need rights.
func createMessage(url string) string {
	m := newMessage(url, transferURI+"Create", "", soap.NewHeaderOption("WINRS_NOPROFILE", "TRUE"), soap.NewHeaderOption("WINRS_CODEPAGE", codePage))
	body := m.CreateBodyElement("Shell", soap.DOM_NS_WIN_SHELL)
	m.CreateElement(body, "InputStreams", soap.DOM_NS_WIN_SHELL).SetContent("stdin")
	m.CreateElement(body, "OutputStreams", soap.DOM_NS_WIN_SHELL).SetContent("stdout stderr")
	m.CreateElement(body, "IdleTimeOut", soap.DOM_NS_WIN_SHELL).SetContent(seconds(idleSeconds * time.Second))
	return m.String()
}

// commandMessage needs a line of commandLine, in which nothing has to be escaped. The input is a pipe, not a console.
func commandMessage(url, shell, line string) string {
	m := newMessage(url, shellURI+"/Command", shell,
		soap.NewHeaderOption("WINRS_CONSOLEMODE_STDIN", "FALSE"), soap.NewHeaderOption("WINRS_SKIP_CMD_SHELL", "FALSE"))
	body := m.CreateBodyElement("CommandLine", soap.DOM_NS_WIN_SHELL)
	m.CreateElement(body, "Command", soap.DOM_NS_WIN_SHELL).SetContent(line)
	return m.String()
}

// sendMessage is the whole input of a command, with its end.
func sendMessage(url, shell, command string, data []byte) string {
	m := newMessage(url, shellURI+"/Send", shell)
	body := m.CreateBodyElement("Send", soap.DOM_NS_WIN_SHELL)
	m.CreateElement(body, "Stream", soap.DOM_NS_WIN_SHELL).SetAttr("Name", "stdin").SetAttr("CommandId", command).SetAttr("End", "true").
		SetContent(base64.StdEncoding.EncodeToString(data))
	return m.String()
}

func receiveMessage(url, shell, command string) string {
	m := newMessage(url, shellURI+"/Receive", shell)
	body := m.CreateBodyElement("Receive", soap.DOM_NS_WIN_SHELL)
	m.CreateElement(body, "DesiredStream", soap.DOM_NS_WIN_SHELL).SetAttr("CommandId", command).SetContent("stdout stderr")
	return m.String()
}

func deleteMessage(url, shell string) string {
	m := newMessage(url, transferURI+"Delete", shell)
	m.NewBody()
	return m.String()
}
