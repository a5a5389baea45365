package winrm_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare/winrm"
	double "github.com/stillframe/stillframe/pkg/lab/winrm"
)

func TestRun(t *testing.T) {
	s := serve(t, nil)
	c := open(t, asAdministrator(s.Address()))
	numbers := &bytes.Buffer{}
	for i := range 40000 {
		fmt.Fprintln(numbers, i+1)
	}
	tests := map[string]struct {
		command string
		args    []string
		stdin   string
		want    winrm.Output
	}{
		"output":               {"/bin/echo", []string{"READY", "8443"}, "", winrm.Output{Stdout: []byte("READY 8443\n")}},
		"input":                {"/bin/cat", nil, stdin, winrm.Output{Stdout: []byte(stdin)}},
		"most input":           {"/bin/cat", nil, strings.Repeat("x", 64<<10), winrm.Output{Stdout: bytes.Repeat([]byte("x"), 64<<10)}},
		"input nobody reads":   {"/bin/true", nil, strings.Repeat("x", 64<<10), winrm.Output{}},
		"both streams, status": {script(t, "echo out; echo err >&2; exit 7"), nil, "", winrm.Output{Stdout: []byte("out\n"), Stderr: []byte("err\n"), Exit: 7}},
		"in pieces":            {"/usr/bin/seq", []string{"1", "40000"}, "", winrm.Output{Stdout: numbers.Bytes()}},
		"no such program":      {"/no/such/program", nil, "", winrm.Output{Exit: 127}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := c.Run(t.Context(), tt.command, tt.args, []byte(tt.stdin))
			if name == "no such program" {
				got.Stderr = nil // the shell's own words
			}
			if err != nil || !cmp.Equal(got, tt.want) {
				t.Errorf("Run(%s %v) = %d bytes, %q, %d, %v, want %d bytes, %q, %d", tt.command, tt.args, len(got.Stdout), got.Stderr, got.Exit, err,
					len(tt.want.Stdout), tt.want.Stderr, tt.want.Exit)
			}
		})
	}
	if s.Logons() != 1 || s.Shells() != 0 {
		t.Errorf("%d logons and %d shells left, want 1 and 0", s.Logons(), s.Shells())
	}
}

func TestAccounts(t *testing.T) {
	tests := map[string]struct {
		domain, user, password string
		code                   string
	}{
		"local":                 {"", "Administrator", password, ""},
		"local by a dot":        {".", "administrator", password, ""},
		"under the guest":       {"LABVM", "Administrator", password, ""},
		"domain, not all ASCII": {"corp", "backup", "zweites-Kennwort-ß€", ""},
		"wrong password":        {"", "Administrator", "falsch", "SF3001"},
		"wrong domain":          {"OTHER", "backup", "zweites-Kennwort-ß€", "SF3001"},
		"unknown":               {"", "nobody", password, "SF3001"},
		"disabled":              {"", "gone", password, "SF3001"},
		"locked":                {"", "shut", password, "SF3001"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, nil)
			c, err := winrm.Open(t.Context(), winrm.Options{Address: s.Address(), Domain: tt.domain, User: tt.user, Password: tt.password})
			if guest.CodeOf(err) != tt.code || (err == nil) != (tt.code == "") {
				t.Fatalf("Open() = %v, want code %q; the double: %v", err, tt.code, s.Refused())
			}
			if err == nil {
				if got, err := c.Run(t.Context(), "/bin/echo", []string{"in"}, nil); err != nil || string(got.Stdout) != "in\n" {
					t.Errorf("Run() = %q, %v", got.Stdout, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			if s.Logons() != 1 {
				t.Errorf("the account was tried %d times, want once", s.Logons())
			}
		})
	}
}

// switches are all settings of the double with what comes of Open or Run; no code is success.
var switches = map[string]struct {
	set  double.Switches
	code string
	says string
}{
	"as it comes":         {double.Switches{}, "", ""},
	"basic offered":       {double.Switches{Basic: true}, "", ""},
	"clear text allowed":  {double.Switches{Basic: true, AllowUnencrypted: true}, "", ""},
	"no negotiate":        {double.Switches{NoNegotiate: true}, "SF3007", "offers nothing"},
	"only basic":          {double.Switches{NoNegotiate: true, Basic: true, AllowUnencrypted: true}, "SF3007", "never Basic"},
	"no sealing":          {double.Switches{NoSealing: true}, "SF3505", "0x00000020"},
	"no timestamp":        {double.Switches{Bare: true}, "SF3505", "not signed"},
	"logon dropped":       {double.Switches{DropEmpty: true, AllowUnencrypted: true}, "SF3501", "ended"},
	"logon rechallenged":  {double.Switches{Rechallenge: true}, "SF3001", "not tried again"},
	"silent for output":   {double.Switches{StallReceive: true}, "SF3204", "patience"},
	"output by and by":    {double.Switches{OutputWait: time.Millisecond}, "", ""},
	"401":                 {double.Switches{Status: http.StatusUnauthorized}, "SF3007", ""},
	"404":                 {double.Switches{Status: http.StatusNotFound}, "SF3501", "404"},
	"500":                 {double.Switches{Status: http.StatusInternalServerError}, "SF3513", "500"},
	"503":                 {double.Switches{Status: http.StatusServiceUnavailable}, "SF3501", "503"},
	"elsewhere":           {double.Switches{Status: http.StatusTemporaryRedirect}, "SF3501", "307"},
	"no logon wanted":     {double.Switches{Status: http.StatusOK}, "SF3505", "no logon"},
	"filtered token":      {double.Switches{CreateFault: 5}, "SF3103", "filtered"},
	"quota of shells":     {double.Switches{CreateFault: 0x803381A5}, "SF3502", "0x803381a5"},
	"quota of operations": {double.Switches{CreateFault: 2150859174}, "SF3502", ""},
	"busy":                {double.Switches{CreateFault: 0x8033803F}, "SF3502", ""},
	"shells forbidden":    {double.Switches{CreateFault: 0x803381AC}, "SF3504", ""},
	"an unknown fault":    {double.Switches{CreateFault: 0x80338999}, "SF3513", "0x80338999"},
	"unsealed 200":        {double.Switches{Unsealed: 200}, "SF3505", "in clear"},
	"unsealed 500":        {double.Switches{Unsealed: 500}, "SF3505", "in clear"},
	"bad signature":       {double.Switches{BadSignature: true}, "SF3901", "not sealed by the guest"},
	"repeated number":     {double.Switches{RepeatSequence: true}, "SF3901", "out of order"},
	"truncated multipart": {double.Switches{TruncateMultipart: true}, "SF3901", "end is missing"},
	"closed in a body":    {double.Switches{CloseInBody: true}, "SF3501", "ended"},
}

var errPatience = errors.New("the test's patience")

// attempt opens, runs and closes.
func attempt(t *testing.T, o winrm.Options, args ...string) (winrm.Output, error) {
	t.Helper()
	c, err := winrm.Open(t.Context(), o)
	if err != nil {
		return winrm.Output{}, err
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errPatience)
	defer cancel()
	out, err := c.Run(ctx, "/bin/cat", args, []byte(stdin))
	closeErr := c.Close()
	if err == nil && closeErr != nil {
		t.Errorf("Close() = %v", closeErr)
	}
	return out, err
}

// TestSwitches has each switch of the double met by the client, with a man in the middle who keeps every byte.
func TestSwitches(t *testing.T) {
	name := filepath.Join(t.TempDir(), "named-in-the-command-line")
	if err := os.WriteFile(name, []byte("secret-of-the-output"), 0o600); err != nil {
		t.Fatal(err)
	}
	for title, tt := range switches {
		t.Run(title, func(t *testing.T) {
			s := serve(t, nil)
			s.Set(tt.set)
			r := between(t, s.Address(), 0)
			got, err := attempt(t, asAdministrator(r.address()), name)
			if guest.CodeOf(err) != tt.code || (err == nil) != (tt.code == "") || (tt.says != "" && !has(err, tt.says)) {
				t.Errorf("%v, want code %q and %q", err, tt.code, tt.says)
			}
			if err == nil && string(got.Stdout) != "secret-of-the-output" {
				t.Errorf("output %q", got.Stdout)
			}
			if s.Logons() > 1 {
				t.Errorf("the account was tried %d times", s.Logons())
			}
			// What an unsealed server says of itself is not the client's; what the client said must not be there.
			if found := leaks(r.recorded(), "named-in-the-command-line", stdin, "fingerprint-0123456789abcdef", password, "soap-envelope"); len(found) > 0 && tt.set.Unsealed == 0 {
				t.Errorf("on the wire in clear: %q", found)
			} else if found := leaks(r.recorded(), "named-in-the-command-line", stdin, password, "/Create<"); len(found) > 0 {
				t.Errorf("on the wire in clear: %q", found)
			}
		})
	}
}

// TestDroppedRequests has the man in the middle drop each request in turn: the client fails, and says nothing in clear.
func TestDroppedRequests(t *testing.T) {
	const requests = 7 // two of the logon, Create, Command, Send, Receive, Delete
	for drop := 1; drop <= requests; drop++ {
		t.Run(fmt.Sprint(drop), func(t *testing.T) {
			s := serve(t, nil)
			s.Set(double.Switches{Basic: true, AllowUnencrypted: true})
			r := between(t, s.Address(), drop)
			c, err := winrm.Open(t.Context(), asAdministrator(r.address()))
			if err == nil {
				_, err = c.Run(t.Context(), "/bin/cat", nil, []byte(stdin))
				err = errors.Join(err, c.Close())
			}
			if guest.CodeOf(err) != "SF3501" {
				t.Errorf("request %d dropped: %v, want SF3501", drop, err)
			}
			if n := r.count(); n != drop {
				t.Errorf("%d requests after number %d was dropped", n, drop)
			}
			if found := leaks(r.recorded(), "/bin/cat", stdin, password, "soap-envelope"); len(found) > 0 {
				t.Errorf("on the wire in clear: %q", found)
			}
		})
	}
}

// TestLeaksAreFound shows that what the other tests look for would be found.
func TestLeaksAreFound(t *testing.T) {
	s := serve(t, nil)
	r := between(t, s.Address(), 0)
	for _, allowed := range []bool{false, true} {
		s.Set(double.Switches{Basic: true, AllowUnencrypted: allowed})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.address()+"/wsman", strings.NewReader(
			`<Envelope><Header><Action>http://schemas.xmlsoap.org/ws/2004/09/transfer/Create</Action></Header></Envelope>`))
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("Administrator", password)
		transport := &http.Transport{DisableKeepAlives: true}
		answer, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || (answer.StatusCode == http.StatusOK) != allowed || strings.Contains(string(body), "ShellId") != allowed {
			t.Errorf("in clear: %d %s %v, want success: %v", answer.StatusCode, body, err, allowed)
		}
	}
	if found := leaks(r.recorded(), password, "transfer/Create"); len(found) != 2 {
		t.Errorf("found only %q", found)
	}
}

// TestAfterLogon changes the server under a session that works.
func TestAfterLogon(t *testing.T) {
	tests := map[string]struct {
		proved bool
		set    double.Switches
		code   string
	}{
		"stopped":               {true, double.Switches{Status: http.StatusServiceUnavailable}, "SF3501"},
		"no right to WinRM":     {false, double.Switches{Status: http.StatusUnauthorized}, "SF3001"},
		"session forgotten":     {true, double.Switches{Status: http.StatusUnauthorized}, "SF3505"},
		"in clear":              {true, double.Switches{Unsealed: 500}, "SF3505"},
		"200 with nothing":      {true, double.Switches{Status: http.StatusOK}, "SF3505"},
		"of the number before":  {true, double.Switches{RepeatSequence: true}, "SF3901"},
		"the wrong certificate": {true, double.Switches{BadSignature: true}, "SF3901"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, nil)
			c := open(t, asAdministrator(s.Address()))
			if tt.proved {
				if _, err := c.Run(t.Context(), "/bin/true", nil, nil); err != nil {
					t.Fatal(err)
				}
			}
			s.Set(tt.set)
			_, err := c.Run(t.Context(), "/bin/cat", nil, []byte(stdin))
			if guest.CodeOf(err) != tt.code {
				t.Errorf("Run() = %v, want %s", err, tt.code)
			}
			s.Set(double.Switches{})
			if _, err := c.Run(t.Context(), "/bin/true", nil, nil); guest.CodeOf(err) != tt.code || !has(err, "not used after") {
				t.Errorf("the next Run() = %v, want %s: the connection is spent", err, tt.code)
			}
			if s.Logons() != 1 {
				t.Errorf("%d logons, want 1", s.Logons())
			}
		})
	}
}

func TestNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := l.Addr().String()
	l.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts by its backlog, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stuck := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	tests := map[string]struct {
		options winrm.Options
		code    string
	}{
		"refused":       {asAdministrator(refusing), "SF3202"},
		"no way":        {winrm.Options{Address: "10.0.0.1:5985", User: "u", Password: "p", Dial: stuck}, "SF3201"},
		"silent":        {asAdministrator(silent.Addr().String()), "SF3204"},
		"silent, TLS":   {winrm.Options{Address: silent.Addr().String(), User: "u", Password: "p", TLS: true}, "SF3204"},
		"no port":       {winrm.Options{Address: "10.0.0.1", User: "u", Password: "p"}, ""},
		"header":        {winrm.Options{Address: "10.0.0.1\r\nX: y:5985", User: "u", Password: "p"}, ""},
		"nobody":        {winrm.Options{Address: "10.0.0.1:5985"}, ""},
		"pin, no TLS":   {winrm.Options{Address: "10.0.0.1:5985", User: "u", Password: "p", Pin: [32]byte{1}}, ""},
		"roots, no TLS": {winrm.Options{Address: "10.0.0.1:5985", User: "u", Password: "p", Roots: x509.NewCertPool()}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			c, err := winrm.Open(ctx, tt.options)
			if c != nil || err == nil || guest.CodeOf(err) != tt.code {
				t.Errorf("Open() = %v, want code %q", err, tt.code)
			}
		})
	}
}

// TestCancelled: an operator's or the run's own end is no fault of the guest.
func TestCancelled(t *testing.T) {
	s := serve(t, nil)
	c := open(t, asAdministrator(s.Address()))
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("the operator stopped the run")
	line, started := announced(t)
	go func() {
		started()
		cancel(stopped)
	}()
	_, err := c.Run(ctx, line, nil, nil)
	if !errors.Is(err, stopped) || guest.CodeOf(err) != "" {
		t.Errorf("Run() = %v, want the cause and no code", err)
	}
	if err := c.Close(); err != nil && !has(err, "delete the shell") {
		t.Errorf("Close() = %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("the second Close() = %v", err)
	}
}

// TestDeadline: a command that outlives its time is told from a server that does not answer, and the end comes in time.
func TestDeadline(t *testing.T) {
	s := serve(t, nil)
	c, err := winrm.Open(t.Context(), asAdministrator(s.Address()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errPatience)
	defer cancel()
	begin := time.Now()
	_, err = c.Run(ctx, "/bin/sleep", []string{"60"}, nil)
	t.Logf("a deadline of 200 ms: %v", time.Since(begin))
	if guest.CodeOf(err) != "SF3204" || !errors.Is(err, errPatience) {
		t.Errorf("Run() = %v, want SF3204 by the deadline", err)
	}
	if err := c.Close(); guest.CodeOf(err) != "SF3204" || !has(err, "delete the shell") {
		t.Errorf("Close() = %v, want the shell that was left", err)
	}
	if s.Shells() != 1 {
		t.Errorf("%d shells left, want the one that could not be deleted", s.Shells())
	}
}

func TestTooMuchOutput(t *testing.T) {
	s := serve(t, nil)
	c := open(t, asAdministrator(s.Address()))
	pid := filepath.Join(t.TempDir(), "pid")
	_, err := c.Run(t.Context(), script(t, "echo $$ >"+pid+"; exec yes"), nil, nil)
	if guest.CodeOf(err) != "SF3901" || !has(err, "1048576 bytes") {
		t.Errorf("Run(yes) = %v, want SF3901", err)
	}
	if s.Shells() != 0 {
		t.Error("the shell is still there")
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(number, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process is still there: %v", err)
	}
	if _, err := c.Run(t.Context(), "/bin/true", nil, nil); err != nil {
		t.Errorf("the next Run() = %v: the connection is sound", err)
	}
}

// TestSilentCommand: while there is no output, the server says so again and again, and that is no error.
func TestSilentCommand(t *testing.T) {
	s := serve(t, nil)
	s.Set(double.Switches{OutputWait: 20 * time.Millisecond})
	r := between(t, s.Address(), 0)
	c := open(t, asAdministrator(r.address()))
	got, err := c.Run(t.Context(), script(t, "sleep 0.3; echo READY"), nil, nil)
	if err != nil || string(got.Stdout) != "READY\n" {
		t.Errorf("Run() = %q, %v", got.Stdout, err)
	}
	if n := r.count(); n < 9 {
		t.Errorf("%d requests: nothing was asked again", n)
	}
}

// TestShellEnded: an administrator of the guest ends the shell.
func TestShellEnded(t *testing.T) {
	s := serve(t, nil)
	c := open(t, asAdministrator(s.Address()))
	line, started := announced(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		started()
		s.EndShells()
	}()
	_, err := c.Run(t.Context(), line, nil, nil)
	<-ended
	if guest.CodeOf(err) != "SF3512" {
		t.Errorf("Run() = %v, want SF3512", err)
	}
	if _, err := c.Run(t.Context(), "/bin/true", nil, nil); err != nil {
		t.Errorf("the next Run() = %v: the connection is sound", err)
	}
}

// TestHostileServer: whatever a server answers to a logon is an error with a code.
func TestHostileServer(t *testing.T) {
	challenge := base64.StdEncoding.EncodeToString([]byte("NTLMSSP\x00\x02\x00\x00\x00" + strings.Repeat("\xff", 60)))
	head := "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: "
	tests := map[string]struct{ answer, code string }{
		"nothing":              {"", "SF3501"},
		"another protocol":     {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "SF3501"},
		"no end of its fields": {"HTTP/1.1 401 Unauthorized\r\nX: " + strings.Repeat("x", 9<<20), "SF3501"},
		"100 first":            {"HTTP/1.1 100 Continue\r\n\r\n", "SF3501"},
		"bad base64":           {head + "Negotiate ***\r\nContent-Length: 0\r\n\r\n", "SF3901"},
		"no challenge":         {head + "Negotiate AAAA\r\nContent-Length: 0\r\n\r\n", "SF3901"},
		"a wild challenge":     {head + "Negotiate " + challenge + "\r\nContent-Length: 0\r\n\r\n", "SF3901"},
		"a huge body":          {head + "Negotiate\r\nContent-Length: 9000000\r\n\r\n" + strings.Repeat("x", 9000000), "SF3901"},
		"half a body":          {head + "Negotiate\r\nContent-Length: 100\r\n\r\nx", "SF3501"},
		"no Negotiate":         {head + "Basic realm=\"WSMAN\"\r\nContent-Length: 0\r\n\r\n", "SF3007"},
		"Kerberos alone":       {head + "Negotiate\r\nWWW-Authenticate: Kerberos\r\nContent-Length: 0\r\n\r\n", "SF3007"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					io.WriteString(conn, tt.answer) //nolint:errcheck // the client may have gone
				}
			}()
			c, err := winrm.Open(t.Context(), asAdministrator(l.Addr().String()))
			if c != nil || guest.CodeOf(err) != tt.code {
				t.Errorf("Open() = %v, want %s", err, tt.code)
			}
			l.Close()
			<-ended
		})
	}
}

// TestUnasked: what comes behind a reply is somebody else's.
func TestUnasked(t *testing.T) {
	s := serve(t, nil)
	o := asAdministrator(s.Address())
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &chatty{Conn: conn}, err
	}
	if _, err := attempt(t, o); guest.CodeOf(err) != "SF3901" || !has(err, "nobody asked for") {
		t.Errorf("%v, want SF3901", err)
	}
}

// chatty adds to what is read.
type chatty struct{ net.Conn }

func (c *chatty) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:len(b)/2])
	return n + copy(b[n:], "HTTP/1.1 200 OK\r\n\r\n"), err
}

func TestRefusedLines(t *testing.T) {
	s := serve(t, nil)
	r := between(t, s.Address(), 0)
	c := open(t, asAdministrator(r.address()))
	before := len(r.recorded())
	for _, word := range []string{"", "a b", "a\tb", "a\nb", "a\x00b", "\x7f", `a"b`, "it's", "%PATH%", "a&b", "a|b", "a<b", "a>b", "a^b", "!x!", "(a", "a)", "`id`", "ü", strings.Repeat("x", 8192)} {
		if _, err := c.Run(t.Context(), "/bin/echo", []string{"fine", word}, nil); err == nil {
			t.Errorf("the argument %.20q was taken", word)
		}
		if _, err := c.Run(t.Context(), word, nil, nil); err == nil {
			t.Errorf("the command %.20q was taken", word)
		}
	}
	if _, err := c.Run(t.Context(), "/bin/cat", nil, make([]byte, 64<<10+1)); err == nil {
		t.Error("too much input was taken")
	}
	if after := len(r.recorded()); after != before {
		t.Errorf("%d bytes were sent for what was refused", after-before)
	}
	if _, err := c.Run(t.Context(), "/bin/echo", []string{`C:\Windows\Stillframe\0f-a\agent.exe`, "--port=8443", "a_b,c;d~1", "@x", "$y", "[z]{}#*?+"}, nil); err != nil {
		t.Errorf("good words are refused: %v", err)
	}
}

func TestTLS(t *testing.T) {
	own, leaf := certificate(t)
	other, _ := certificate(t)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	pin := sha256.Sum256(leaf.Raw)
	tests := map[string]struct {
		change func(*winrm.Options)
		set    double.Switches
		code   string
	}{
		"by its issuer":               {func(o *winrm.Options) { o.Roots = roots }, double.Switches{}, ""},
		"by its pin":                  {func(o *winrm.Options) { o.Pin = pin }, double.Switches{}, ""},
		"binding demanded":            {func(o *winrm.Options) { o.Pin = pin }, double.Switches{StrictBinding: true}, ""},
		"unknown":                     {func(*winrm.Options) {}, double.Switches{}, "SF3503"},
		"another, by its issuer":      {func(o *winrm.Options) { o.Roots = roots }, double.Switches{Certificate: other}, "SF3503"},
		"another, by its pin":         {func(o *winrm.Options) { o.Pin = pin }, double.Switches{Certificate: other}, "SF3503"},
		"sealed inside, or refused":   {func(o *winrm.Options) { o.Pin = pin }, double.Switches{Unsealed: 200}, "SF3505"},
		"no sealing, TLS or not":      {func(o *winrm.Options) { o.Pin = pin }, double.Switches{NoSealing: true}, "SF3505"},
		"a password that is not good": {func(o *winrm.Options) { o.Pin, o.Password = pin, "falsch" }, double.Switches{}, "SF3001"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := serve(t, own)
			s.Set(tt.set)
			o := asAdministrator(s.Address())
			o.TLS = true
			tt.change(&o)
			got, err := attempt(t, o)
			if guest.CodeOf(err) != tt.code || (err == nil) != (tt.code == "") || (err == nil && string(got.Stdout) != stdin) {
				t.Errorf("%q, %v, want code %q; the double: %v", got.Stdout, err, tt.code, s.Refused())
			}
			if tt.code == "SF3503" && s.Logons() != 0 {
				t.Error("a server that is not trusted was shown a logon")
			}
		})
	}
	t.Run("not TLS", func(t *testing.T) {
		o := asAdministrator(serve(t, nil).Address())
		o.TLS, o.Pin = true, pin
		if _, err := attempt(t, o); guest.CodeOf(err) != "SF3501" {
			t.Errorf("%v, want SF3501", err)
		}
	})
}

// TestLogonIsBoundToCertificate: who ends TLS in the middle, with a certificate that the client trusts, cannot use the logon.
func TestLogonIsBoundToCertificate(t *testing.T) {
	own, ownLeaf := certificate(t)
	his, hisLeaf := certificate(t)
	s := serve(t, own)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*his}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client, err := l.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		roots := x509.NewCertPool()
		roots.AddCert(ownLeaf)
		server, err := tls.Dial("tcp", s.Address(), &tls.Config{RootCAs: roots})
		if err != nil {
			return
		}
		defer server.Close()
		go func() {
			io.Copy(server, client) //nolint:errcheck // its end is the end of the connection
			server.Close()
		}()
		io.Copy(client, server) //nolint:errcheck // its end is the end of the connection
	}()
	o := asAdministrator(l.Addr().String())
	o.TLS, o.Pin = true, sha256.Sum256(hisLeaf.Raw)
	_, err = attempt(t, o)
	if guest.CodeOf(err) != "SF3001" {
		t.Errorf("through another's TLS: %v, want SF3001", err)
	}
	if refused := s.Refused(); len(refused) == 0 || !has(refused[0], "another certificate") {
		t.Errorf("the double refused for %v", refused)
	}
	l.Close()
	<-ended
}

// TestProxyIsNotAsked: the environment's proxy is no way into a guest.
func TestProxyIsNotAsked(t *testing.T) {
	asked, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "http://"+asked.Addr().String())
	}
	s := serve(t, nil)
	if _, err := attempt(t, asAdministrator(s.Address())); err != nil {
		t.Error(err)
	}
	if err := asked.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if conn, err := asked.Accept(); err == nil {
		conn.Close()
		t.Error("the proxy was asked")
	}
}

// BenchmarkRun is a command on a session that is open, BenchmarkSession with opening and closing it.
func BenchmarkRun(b *testing.B) {
	c := open(b, asAdministrator(serve(b, nil).Address()))
	for b.Loop() {
		if _, err := c.Run(b.Context(), "/bin/cat", nil, []byte(stdin)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	s := serve(b, nil)
	for b.Loop() {
		c, err := winrm.Open(b.Context(), asAdministrator(s.Address()))
		if err != nil {
			b.Fatal(err)
		}
		_, err = c.Run(b.Context(), "/bin/cat", nil, []byte(stdin))
		if err := errors.Join(err, c.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
