// Package winrm is a double of Windows' WinRM service: NTLM, sealed messages, and shells whose commands are real processes.
//
// It shares no code with the product's client. Credible for the handshake, for sealing in both directions, for the loop of
// WS-Man messages and for downgrades, because an independent client agrees (judge.WinRM). Never emulates: the job object
// that ends all processes of a shell (only the one that was started is killed), quotas by policy, code pages, Kerberos.
package winrm

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	// requestLimit bounds a request's body. Windows takes 512,000 bytes (MaxEnvelopeSizekb).
	requestLimit = 512000
	// headerWait bounds how long a request's header may come in pieces.
	headerWait = 10 * time.Second
	// closeWait bounds the end of what is still being answered.
	closeWait = 5 * time.Second
)

// Options say who listens and what runs.
type Options struct {
	// Listener is used and closed, if it is there; else Address, such as 127.70.1.2:5985.
	Listener net.Listener
	Address  string
	// Certificate makes it an https server.
	Certificate *tls.Certificate
	Accounts    []Account
	// Start makes the process of a command line, not yet started. Its context is that of the shell.
	Start func(ctx context.Context, commandLine string) *exec.Cmd
}

// Server is a running double.
type Server struct {
	options  Options
	listener net.Listener
	http     *http.Server
	ended    chan error
	stop     context.CancelFunc
	stopped  <-chan struct{}

	mu       sync.Mutex
	switches Switches
	logons   int
	refused  []error
	shells   map[string]*shell
}

// Serve listens and answers until Close. The context's end kills the processes of all shells.
func Serve(ctx context.Context, o Options) (*Server, error) {
	if o.Start == nil {
		return nil, errors.New("the WinRM double has no way to start processes")
	}
	listener := o.Listener
	if listener == nil {
		var err error
		if listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.Address); err != nil {
			return nil, err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	s := &Server{options: o, listener: listener, ended: make(chan error, 1), stop: stop, stopped: ctx.Done(), shells: map[string]*shell{}}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerWait,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, stateKey{}, &state{})
		},
		ErrorLog:     log.New(io.Discard, "", 0),                               // of handshakes that clients broke off, as they should
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // one session lives on one connection: no HTTP/2
	}
	if o.Certificate != nil {
		s.listener = tls.NewListener(listener, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate(), nil
		}})
	}
	go func() { s.ended <- s.http.Serve(s.listener) }()
	return s, nil
}

// Address is host:port of the listener.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Set changes the switches, for what is asked from now on.
func (s *Server) Set(switches Switches) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.switches = switches
}

// Logons is how many times somebody has tried an account; Refused says why some were not let in.
func (s *Server) Logons() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logons
}

// Refused are the reasons why logons or messages were refused, which a client is not told.
func (s *Server) Refused() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error{}, s.refused...)
}

// Shells is how many shells are open.
func (s *Server) Shells() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shells)
}

// EndShells ends all shells, as an administrator of the guest can.
func (s *Server) EndShells() {
	s.mu.Lock()
	all := s.shells
	s.shells = map[string]*shell{}
	s.mu.Unlock()
	for _, sh := range all {
		sh.end()
	}
}

// Close ends all connections and processes, and waits for them.
func (s *Server) Close() error {
	s.stop()
	err := s.http.Close()
	s.EndShells()
	select {
	case served := <-s.ended:
		if !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	case <-time.After(closeWait):
		err = errors.Join(err, fmt.Errorf("the WinRM double still serves after %v", closeWait))
	}
	return err
}

func (s *Server) current() Switches {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.switches
}

func (s *Server) certificate() *tls.Certificate {
	if other := s.current().Certificate; other != nil {
		return other
	}
	return s.options.Certificate
}

func (s *Server) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, err)
}

// state is what a connection has come to. Requests on one connection come one after the other.
type state struct {
	acceptor *acceptor
	session  *session
}

type stateKey struct{}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	st := r.Context().Value(stateKey{}).(*state) // ConnContext has put it there
	sw := s.current()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestLimit))
	switch {
	case err != nil:
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case sw.DropEmpty && len(body) == 0:
		s.drop(w)
	case sw.Status != 0:
		w.WriteHeader(sw.Status)
	case r.Method != http.MethodPost || r.URL.Path != "/wsman":
		w.WriteHeader(http.StatusNotFound)
	case strings.HasPrefix(r.Header.Get("Authorization"), "Negotiate ") && !sw.NoNegotiate:
		s.negotiate(w, r, st, sw, body)
	case st.session != nil:
		s.message(w, r, st.session, sw, body)
	case sw.Basic && s.basic(r):
		s.plain(w, r, sw, body)
	default:
		s.unauthorized(w, sw, "")
	}
}

// drop closes a connection without an answer.
func (s *Server) drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		s.refuse(err)
	}
}

func (s *Server) unauthorized(w http.ResponseWriter, sw Switches, token string) {
	if !sw.NoNegotiate {
		w.Header().Add("WWW-Authenticate", strings.TrimSpace("Negotiate "+token))
	}
	if sw.Basic {
		w.Header().Add("WWW-Authenticate", `Basic realm="WSMAN"`)
	}
	w.WriteHeader(http.StatusUnauthorized)
}

// negotiate plays one step of the handshake.
func (s *Server) negotiate(w http.ResponseWriter, r *http.Request, st *state, sw Switches, body []byte) {
	token, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Negotiate "))
	if err != nil {
		s.refuse(err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if messageType(token) == 3 && st.acceptor != nil {
		s.countLogon()
		session, err := st.acceptor.accept(token, s.options.Accounts, sw.StrictBinding)
		negotiate := st.acceptor.negotiate
		st.acceptor = nil
		switch {
		case err != nil:
			s.refuse(err)
			s.unauthorized(w, sw, "")
			return
		case !sw.Rechallenge:
			st.session = session
			s.message(w, r, session, sw, body)
			return
		}
		token = negotiate
	}
	flags := uint32(ntlmFlags)
	if sw.NoSealing {
		flags &^= ntlmSeal
	}
	var certificate *x509.Certificate
	if r.TLS != nil {
		certificate = s.leaf()
	}
	if st.acceptor, err = newAcceptor(token, flags, sw.Bare, certificate); err != nil {
		s.refuse(err)
		s.unauthorized(w, sw, "")
		return
	}
	s.unauthorized(w, sw, base64.StdEncoding.EncodeToString(st.acceptor.challenge))
}

func (s *Server) countLogon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logons++
}

func (s *Server) leaf() *x509.Certificate {
	leaf, err := x509.ParseCertificate(s.certificate().Certificate[0])
	if err != nil {
		s.refuse(err)
	}
	return leaf
}

func (s *Server) basic(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	s.countLogon()
	account, found := find(s.options.Accounts, user, "")
	if !found || account.Password != password || account.State != Usable {
		s.refuse(errRefused)
		return false
	}
	return true
}

// plain answers a message that came in clear, if that is allowed.
func (s *Server) plain(w http.ResponseWriter, r *http.Request, sw Switches, body []byte) {
	if !sw.AllowUnencrypted {
		s.refuse(errors.New("a message came in clear"))
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	status, answer, ok := s.answer(r.Context(), sw, body)
	if !ok {
		s.drop(w)
		return
	}
	w.Header().Set("Content-Type", plainType)
	w.WriteHeader(status)
	s.write(w, answer)
}

func (s *Server) write(w io.Writer, b []byte) {
	if _, err := w.Write(b); err != nil {
		s.refuse(err)
	}
}

// message answers what came on a connection with a session: nothing to nothing, else what was asked for.
func (s *Server) message(w http.ResponseWriter, r *http.Request, session *session, sw Switches, body []byte) {
	switch {
	case len(body) == 0:
		w.WriteHeader(http.StatusOK)
		return
	case !strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/encrypted"):
		s.plain(w, r, sw, body)
		return
	}
	signature, sealed, err := disclose(body)
	if err != nil {
		s.refuse(err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	message, err := session.open(signature, sealed)
	if err != nil {
		s.refuse(err)
		s.drop(w)
		return
	}
	status, answer, ok := s.answer(r.Context(), sw, message)
	switch {
	case !ok:
		s.drop(w)
	case sw.Unsealed != 0:
		w.Header().Set("Content-Type", plainType)
		w.WriteHeader(sw.Unsealed)
		s.write(w, answer)
	default:
		s.sealed(w, session, sw, status, answer)
	}
}

// sealed sends a message sealed, or damaged as the switches have it.
func (s *Server) sealed(w http.ResponseWriter, session *session, sw Switches, status int, answer []byte) {
	if sw.RepeatSequence && session.outSeq > 0 {
		session.outSeq--
	}
	signature, sealed := session.seal(answer)
	if sw.BadSignature {
		signature[4] ^= 1
	}
	body := enclose(signature, sealed)
	if sw.TruncateMultipart {
		body = bytes.TrimSuffix(body, []byte("--Encrypted Boundary--\r\n"))
	}
	if sw.CloseInBody {
		s.half(w, status, body)
		return
	}
	w.Header().Set("Content-Type", sealedType)
	w.WriteHeader(status)
	s.write(w, body)
}

// half sends the first half of a reply.
func (s *Server) half(w http.ResponseWriter, status int, body []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.refuse(err)
		return
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", status, sealedType, len(body), body[:len(body)/2])
	if err = errors.Join(err, conn.Close()); err != nil {
		s.refuse(err)
	}
}
