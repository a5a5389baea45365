package winrm

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bodgit/ntlmssp"
	"github.com/google/go-cmp/cmp"
)

var signature = []byte{1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0}

// bareEnvelope is a reply without the tabs that Windows has, whose sealed bytes hold boundaries.
func bareEnvelope(sealed string) string {
	return "--Encrypted Boundary\r\nContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n" +
		fmt.Sprintf("OriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n", len(sealed)) +
		"--Encrypted Boundary\r\nContent-Type: application/octet-stream\r\n\x10\x00\x00\x00" + string(signature) + sealed + "--Encrypted Boundary--\r\n"
}

const nasty = "--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n--Encrypted Boundary--\r\n\x00\xff--Encrypted Boundary--"

func TestParseEnvelope(t *testing.T) {
	for name, body := range map[string]string{
		"ours":              string(envelope{len(nasty), signature, []byte(nasty)}.bytes()),
		"no tabs":           bareEnvelope(nasty),
		"without last line": strings.TrimSuffix(bareEnvelope(nasty), "\r\n"),
	} {
		got, err := parseEnvelope([]byte(body))
		if err != nil || string(got.sealed) != nasty || !bytes.Equal(got.signature, signature) {
			t.Errorf("%s: parseEnvelope() = %q, %v", name, got.sealed, err)
		}
	}
	good := bareEnvelope("sealed")
	for name, body := range map[string]string{
		"empty":             "",
		"SOAP":              `<?xml version="1.0"?>`,
		"one part":          good[:strings.LastIndex(good, "--Encrypted Boundary\r\n")],
		"no end":            strings.TrimSuffix(good, "--Encrypted Boundary--\r\n"),
		"half":              good[:len(good)/2],
		"shorter than said": strings.Replace(good, "Length=6", "Length=7", 1),
		"longer than said":  strings.Replace(good, "Length=6", "Length=5", 1),
		"no length":         strings.Replace(good, ";Length=6", "", 1),
		"negative":          strings.Replace(good, "Length=6", "Length=-6", 1),
		"huge":              strings.Replace(good, "Length=6", "Length=99999999999", 1),
		"no signature":      strings.Replace(good, "\x10\x00\x00\x00"+string(signature), "\x00\x00\x00\x00", 1),
		"long signature":    strings.Replace(good, "\x10\x00\x00\x00", "\xff\xff\xff\xff", 1),
		"version of it":     strings.Replace(good, "\x10\x00\x00\x00\x01", "\x10\x00\x00\x00\x02", 1),
		"protocol":          strings.Replace(good, "SPNEGO", "Kerberos", 1),
		"second part":       strings.Replace(good, "octet-stream", "xml", 1),
	} {
		if got, err := parseEnvelope([]byte(body)); err == nil {
			t.Errorf("%s: parseEnvelope() = %q, want an error", name, got.sealed)
		}
	}
}

func TestIsSealed(t *testing.T) {
	for contentType, want := range map[string]bool{
		sealedType: true,
		`multipart/encrypted; protocol="application/HTTP-SPNEGO-session-encrypted"; boundary="Encrypted Boundary"`:        true,
		`multipart/encrypted;protocol="application/HTTP-Kerberos-session-encrypted";boundary="Encrypted Boundary"`:        false,
		`multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Other"`:                       false,
		`multipart/x-multi-encrypted;protocol="application/HTTP-CredSSP-session-encrypted";boundary="Encrypted Boundary"`: false,
		soapType: false,
		"":       false,
	} {
		if got := isSealed(contentType); got != want {
			t.Errorf("isSealed(%s) = %v", contentType, got)
		}
	}
}

// pair is one of a target info.
type pair struct {
	id    uint16
	value string
}

// challengeWith makes a challenge, with an end to its pairs unless told otherwise.
func challengeWith(flags uint32, pairs ...pair) []byte {
	var info []byte
	for _, p := range pairs {
		info = binary.LittleEndian.AppendUint16(info, p.id)
		info = binary.LittleEndian.AppendUint16(info, uint16(len(p.value)))
		info = append(info, p.value...)
	}
	m := make([]byte, 56)
	copy(m, "NTLMSSP\x00\x02")
	binary.LittleEndian.PutUint32(m[20:], flags)
	binary.LittleEndian.PutUint16(m[40:], uint16(len(info)))
	binary.LittleEndian.PutUint32(m[44:], 56)
	return append(m, info...)
}

func goodChallenge() []byte {
	return challengeWith(flagsNeeded, pair{2, "D\x00"}, pair{avTimestamp, "12345678"}, pair{avFlags, "\x01\x00\x00\x00"}, pair{})
}

func TestCheckChallenge(t *testing.T) {
	if err := checkChallenge(goodChallenge()); err != nil {
		t.Fatal(err)
	}
	outside := goodChallenge()
	binary.LittleEndian.PutUint32(outside[44:], 0xfffffff0)
	tests := map[string][]byte{
		"short":           goodChallenge()[:40],
		"no end":          challengeWith(flagsNeeded, pair{avTimestamp, "12345678"}),
		"short flags":     challengeWith(flagsNeeded, pair{avTimestamp, "12345678"}, pair{avFlags, "\x01"}, pair{}),
		"short timestamp": challengeWith(flagsNeeded, pair{avTimestamp, "1"}, pair{}),
		"no timestamp":    challengeWith(flagsNeeded, pair{}),
		"no pairs":        challengeWith(flagsNeeded),
		"outside":         outside,
		"too long":        append(goodChallenge(), make([]byte, challengeLimit)...),
		"another type":    append([]byte("NTLMSSP\x00\x03"), goodChallenge()[9:]...),
	}
	for bit := range 32 {
		if flagsNeeded&(1<<bit) != 0 {
			tests[fmt.Sprintf("without flag %#x", 1<<bit)] = challengeWith(flagsNeeded&^(1<<bit), pair{avTimestamp, "12345678"}, pair{})
		}
	}
	for name, m := range tests {
		if checkChallenge(m) == nil {
			t.Errorf("%s: the challenge was taken", name)
		}
	}
}

func TestParseReply(t *testing.T) {
	wrap := func(body string) string {
		return `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:r="r"><s:Header/><s:Body>` + body + `</s:Body></s:Envelope>`
	}
	receive := func(inner string) string { return wrap("<r:ReceiveResponse>" + inner + "</r:ReceiveResponse>") }
	done := func(inner string) string {
		return receive(`<r:CommandState State="` + stateDone + `">` + inner + `</r:CommandState>`)
	}
	stream := func(name, data string) string {
		return receive(`<r:Stream Name="` + name + `">` + data + `</r:Stream>`)
	}
	tests := map[string]struct {
		raw  string
		want Output
		done bool
		err  string
	}{
		"running":           {receive(`<r:CommandState State="x/Running"/>`), Output{}, false, ""},
		"broken lines":      {stream("stdout", "\r\n aGFs\r\n bG8=\r\n"), Output{Stdout: []byte("hallo")}, false, ""},
		"done":              {done("<r:ExitCode>3221225786</r:ExitCode>"), Output{Exit: 3221225786}, true, ""},
		"negative":          {done("<r:ExitCode> -1 </r:ExitCode>"), Output{Exit: -1}, true, ""},
		"no status":         {done(""), Output{}, false, "without an exit status"},
		"status no number":  {done("<r:ExitCode>zero</r:ExitCode>"), Output{}, false, "no number"},
		"broken base64":     {stream("stdout", "a*b"), Output{}, false, "base64"},
		"another stream":    {stream("debug", ""), Output{}, false, "no stream"},
		"another namespace": {`<Envelope><Body/></Envelope>`, Output{}, false, "Envelope"},
		"two envelopes":     {wrap("") + wrap(""), Output{}, false, "follows"},
		"NUL at the end":    {wrap("") + "\x00", Output{}, false, "U+0000"},
		"line at the end":   {wrap("") + "\r\n", Output{}, false, ""},
		"deep":              {wrap(strings.Repeat("<a>", 20000) + strings.Repeat("</a>", 20000)), Output{}, false, ""},
		"not closed":        {`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">`, Output{}, false, "EOF"},
	}
	for name, tt := range tests {
		r, err := parseReply([]byte(tt.raw))
		var got Output
		ended := false
		if err == nil {
			err = r.output(&got)
		}
		if err == nil {
			ended, got.Exit, err = r.end()
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || tt.err == "" && err != nil {
			t.Errorf("%s: %v, want %q", name, err, tt.err)
		}
		if tt.err == "" && (!cmp.Equal(got, tt.want) || ended != tt.done) {
			t.Errorf("%s: %+v done %v, want %+v done %v", name, got, ended, tt.want, tt.done)
		}
	}
}

func TestFaultText(t *testing.T) {
	r, err := parseReply([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Reason><s:Text>Grund</s:Text></s:Reason>` +
		`<s:Detail><f:WSManFault xmlns:f="f" Code="2150858793"><f:Message>` + "Zeile\n\tzwei \u202e" + strings.Repeat("ä", 400) + `</f:Message></f:WSManFault></s:Detail></s:Fault></s:Body></s:Envelope>`))
	if err != nil {
		t.Fatal(err)
	}
	got := r.Fault.Error()
	if !strings.HasPrefix(got, `the server reports WSManFault 0x80338029: "Zeile zwei ää`) || len(got) > 400 || strings.ContainsAny(got, "\n\t\u202e") {
		t.Errorf("Error() = %q", got)
	}
}

// TestCodesAreTheCatalogues holds the table of faults to the error catalogue.
func TestCodesAreTheCatalogues(t *testing.T) {
	file, err := os.Open("../../../advice/data/error-catalogue.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	catalogue := map[string]string{} // domain, foreign code, symbol, our code
	for _, row := range rows {
		if row[0] == "winrm_wsman" {
			catalogue[row[1]] = row[3]
		}
	}
	for fault, code := range codes {
		if got := catalogue[fmt.Sprintf("0x%08X", fault)]; got != code {
			t.Errorf("fault %#x is %s here, %q in the catalogue", fault, code, got)
		}
	}
	if len(codes) < 10 || len(catalogue) < 20 {
		t.Errorf("%d faults here, %d in the catalogue", len(codes), len(catalogue))
	}
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"67A74734-DD32-4F10-89DE-49A060483810": true, "1": true, "": false, "a b": false, `"/><x`: false, strings.Repeat("a", 65): false, "a\n": false,
	} {
		if validID(id) != want {
			t.Errorf("validID(%q) = %v", id, !want)
		}
	}
}

// FuzzEnvelope: whatever comes is taken apart or refused, and what was taken apart is the same when put together again.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(bareEnvelope("sealed")))
	f.Add([]byte(bareEnvelope(nasty)))
	f.Add(envelope{6, signature, []byte("sealed")}.bytes())
	f.Add([]byte(strings.TrimSuffix(bareEnvelope(""), "\r\n")))
	f.Add([]byte("--Encrypted Boundary\r\n--Encrypted Boundary\r\n--Encrypted Boundary--"))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parseEnvelope(body)
		if err != nil {
			return
		}
		again, err := parseEnvelope(e.bytes())
		if err != nil || !bytes.Equal(again.sealed, e.sealed) || !bytes.Equal(again.signature, e.signature) {
			t.Errorf("%q came back as %q, %v", e.sealed, again.sealed, err)
		}
	})
}

// FuzzChallenge: no challenge makes the library panic, nor a session that does not seal.
func FuzzChallenge(f *testing.F) {
	f.Add(goodChallenge(), false)
	f.Add(goodChallenge(), true)
	f.Add(challengeWith(flagsNeeded|1<<25|1<<2, pair{avTimestamp, "12345678"}, pair{10, "binding"}, pair{1, ""}, pair{}), true)
	f.Add(challengeWith(flagsNeeded|1<<11, pair{avTimestamp, "12345678"}, pair{avTimestamp, "87654321"}, pair{}), false)
	f.Add([]byte("NTLMSSP\x00\x02\x00\x00\x00"), true)
	f.Fuzz(func(t *testing.T, challenge []byte, bound bool) {
		if checkChallenge(challenge) != nil {
			return
		}
		client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo("u", "p"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Authenticate(nil, nil); err != nil {
			t.Fatal(err)
		}
		var b *ntlmssp.ChannelBindings
		if bound {
			b = &ntlmssp.ChannelBindings{ApplicationData: []byte("x")}
		}
		answer, err := answerTo(client, challenge, b)
		if err != nil {
			return
		}
		sealed, sum, err := client.SecuritySession().Wrap([]byte("twelve bytes"))
		if err != nil || len(sum) != signatureBytes || string(sealed) == "twelve bytes" || bytes.Equal(answer[72:88], make([]byte, 16)) {
			t.Errorf("a session that seals to %q with %x, %v, MIC %x", sealed, sum, err, answer[72:88])
		}
	})
}

// FuzzReply: whatever was sealed by the guest is read or refused.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><r:ReceiveResponse xmlns:r="r"><r:Stream Name="stdout">` +
		base64.StdEncoding.EncodeToString([]byte("x")) + `</r:Stream><r:CommandState State="` + stateDone + `"><r:ExitCode>1</r:ExitCode></r:CommandState></r:ReceiveResponse></s:Body></s:Envelope>`))
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Detail><f:WSManFault xmlns:f="f" Code="5"/></s:Detail></s:Fault></s:Body></s:Envelope>`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseReply(raw)
		if err != nil {
			return
		}
		var out Output
		if r.output(&out) == nil && len(out.Stdout)+len(out.Stderr) > len(raw) {
			t.Errorf("%d bytes of output in %d", len(out.Stdout)+len(out.Stderr), len(raw))
		}
		if r.Fault != nil && len(r.Fault.Error()) > 5*textLimit {
			t.Errorf("a text of %d bytes", len(r.Fault.Error()))
		}
		if done, _, err := r.end(); done && err != nil {
			t.Errorf("a command that has ended with %v", err)
		}
	})
}
