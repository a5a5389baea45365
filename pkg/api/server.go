// Package api is the daemon's HTTP interface.
//
// It knows neither the database nor the engine: what it needs of them stands here as small interfaces and plain types. It
// serves a unix socket, whose peers are administrators by the word of the kernel, and if configured one TCP address, where
// each request carries a token. docs/api.md is the page for those who call it, api/openapi.yaml its specification.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"
)

// Prefix is where all operations are.
const Prefix = "/api/v1"

// Limits of the server.
const (
	headerLimit   = 5 * time.Second
	requestLimit  = 30 * time.Second // a whole request, its body included
	answerLimit   = time.Minute
	idleLimit     = 2 * time.Minute
	maxHeader     = 16 << 10
	maxBody       = 1 << 20
	maxConns      = 256 // each listener has its own, so that the network never closes the socket's door
	shutdownLimit = 10 * time.Second
)

// Backends are what the API speaks for. All are needed.
type Backends struct {
	Jobs      Jobs
	Runs      Runs
	Work      Work
	VMs       VMs
	Snapshots Snapshots
	Doctor    Doctor
	Tokens    Tokens
	Keys      Keys
	Config    Config
	Health    Health
	Audit     Trail
	Feed      *Feed
	// Metrics answers /metrics.
	Metrics http.Handler
}

func (b Backends) check() error {
	if b.Jobs == nil || b.Runs == nil || b.Work == nil || b.VMs == nil || b.Snapshots == nil || b.Doctor == nil || b.Tokens == nil ||
		b.Keys == nil || b.Config == nil || b.Health == nil || b.Audit == nil || b.Feed == nil || b.Metrics == nil {
		return errors.New("the API lacks one of its backends")
	}
	return nil
}

// Options say where the API is served.
type Options struct {
	// Socket is the path of the unix socket; its folder must exist. Group may open it; empty is the group of this process.
	Socket, Group string
	// Address is host:port of the TCP listener, empty for none. Without TLS only a loopback address is taken.
	Address string
	TLS     *tls.Config
	// Version is the program's, for the specification.
	Version string
	Log     *zap.Logger
	// Now is the wall clock of tokens and idempotency keys; nil is this machine's.
	Now func() time.Time
}

// Server serves the API. Its owner calls Listen, then Serve.
type Server struct {
	b     Backends
	o     Options
	log   *zap.Logger
	now   func() time.Time
	huma  huma.API
	known names
	wrong lockout
	http  *http.Server
	// open are the listeners between Listen and Serve.
	open []net.Listener
}

// New builds the API; nothing listens yet.
func New(b Backends, o Options) (*Server, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	replaceErrors()
	troubles, err := zap.NewStdLogAt(o.Log.Named("http"), zap.WarnLevel)
	if err != nil {
		return nil, err
	}
	s := &Server{b: b, o: o, log: o.Log.Named("api"), now: o.Now, wrong: lockout{wrong: map[string]strikes{}}}
	s.http = &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: headerLimit, ReadTimeout: requestLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader,
		ConnContext: withPeer, ErrorLog: troubles,
	}
	s.http.RegisterOnShutdown(b.Feed.Close)
	return s, nil
}

// routes registers every operation.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Stillframe", Version: s.o.Version,
				Description: "The daemon's interface. Errors are problem documents (RFC 9457) that never repeat what was sent.",
			},
			// No server URL and no link is made from a request: its Host header is whatever the sender likes.
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token": {Type: "http", Scheme: "bearer", Description: "A token of ours on the TCP listener; the unix socket knows its peer without one"},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json", RejectUnknownQueryParameters: true,
		Transformers: []huma.Transformer{s.clean},
	}
	// Answers may get more fields; what is sent to us has none that we do not know.
	config.AllowAdditionalPropertiesByDefault = true
	s.huma = humago.New(&verbs{mux: mux, by: map[string]map[string]http.HandlerFunc{}}, config)
	s.huma.UseMiddleware(s.authorize)
	s.jobRoutes()
	s.runRoutes()
	s.vmRoutes()
	s.windowRoutes()
	s.snapshotRoutes()
	s.doctorRoutes()
	s.tokenRoutes()
	s.auditRoutes()
	s.configRoutes()
	s.eventRoutes()
	s.known = namesOf(s.huma.OpenAPI())
	mux.HandleFunc("GET /healthz", s.alive)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, newProblem(http.StatusNotFound, "SF1717", "there is no such path, or not with this method"))
	})
	return s.gate(mux)
}

// Specification is the OpenAPI document in YAML, as api/openapi.yaml holds it.
func (s *Server) Specification() ([]byte, error) { return s.huma.OpenAPI().YAML() }

// Serve answers requests until ctx ends, then lets those in work end, for at most 10 s. It closes what Listen opened.
func (s *Server) Serve(ctx context.Context) error {
	var group sync.WaitGroup
	ended := make(chan error, len(s.open))
	for _, l := range s.open {
		group.Go(func() { ended <- s.http.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	if late := s.http.Shutdown(limit); late != nil {
		err = errors.Join(err, late, s.http.Close())
	}
	group.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
