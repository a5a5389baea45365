// Package vsphere speaks to one vCenter or ESXi host.
package vsphere

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/session/keepalive"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/internal/failpoint"
)

const (
	dialLimit      = 5 * time.Second
	dialKeepAlive  = 15 * time.Second
	handshakeLimit = 5500 * time.Millisecond
	callLimit      = 60 * time.Second // one SOAP call that is no long poll
	waitSeconds    = 50               // one long poll; some load balancers cut idle connections at 60 s
	waitLimit      = 75 * time.Second // one long poll, when even its empty answer does not come
	closeLimit     = 7 * time.Second  // clean-up calls of one Close
	idleLimit      = 90 * time.Second
	keepaliveEvery = 5 * time.Minute // vCenter's idle limit is 30 min by default
	// idleConns are kept open. How many there are at once is not bounded: each prepared snapshot has a long poll and a call, a
	// call that waited for a free connection would wait with its guest frozen, and whoever calls is bounded already.
	idleConns = 1024
	warmConns = 2 // one carries the create call, one is spare; the long poll has its own
)

var (
	errHandshakeLimit = errors.New("TLS handshake took too long")
	errCallLimit      = errors.New("no answer in time")
	errRedirect       = errors.New("redirected elsewhere")
)

// hostAgent is the API type of a single ESXi host.
const hostAgent = "HostAgent"

// Options say which vCenter or ESXi host, what makes its certificate trusted, whose account.
type Options struct {
	// URL is the SDK's address; the path defaults to /sdk. Its user is used only when Login is nil. http is accepted only
	// together with Insecure.
	URL *url.URL
	// CAFile is a PEM file of roots; Thumbprint a SHA-1 or SHA-256 hex sum of the server's own certificate; Insecure
	// accepts anything. At most one may be given; with none the system's roots count.
	CAFile, Thumbprint string
	Insecure           bool
	// Login gives the account. It is asked again at each login, so that a rotated password is picked up.
	Login func(context.Context) (*url.Userinfo, error)
	// Proxy is the HTTP proxy; nil means none, whatever the environment says.
	Proxy *url.URL
	// Agent is the HTTP user agent.
	Agent string
	// Observer hears of calls and tasks; nil is nobody.
	Observer Observer
	// Now is the wall clock by which certificates are judged; nil is this machine's. A pinned one is not judged by it.
	Now func() time.Time
}

func (o *Options) check() error {
	given := 0
	for _, g := range []bool{o.CAFile != "", o.Thumbprint != "", o.Insecure} {
		if g {
			given++
		}
	}
	switch {
	case o.URL == nil || o.URL.Host == "":
		return errors.New("no vCenter address given")
	case o.URL.Scheme != "https" && o.URL.Scheme != "http":
		return fmt.Errorf("scheme %q is not https", o.URL.Scheme)
	case o.URL.Scheme == "http" && !o.Insecure:
		return errors.New("plain http needs the explicit insecure setting")
	case given > 1:
		return errors.New("CA file, thumbprint, insecure: only one may be given")
	}
	return nil
}

// Endpoint is one logged-in vCenter or ESXi host. It is safe for concurrent use. Who opens it closes it.
type Endpoint struct {
	vim       *vim25.Client // its RoundTripper is steady
	host      string
	trust     trust
	transport *http.Transport
	files     *http.Client // guest file transfers through this endpoint itself

	account    *credential
	loginSlot  chan struct{} // one login at a time
	generation atomic.Int64  // counts logins
	calls      atomic.Int64
	observer   Observer
	down       atomic.Bool // what the last answer said of the session
	perfMu     sync.Mutex
	perf       map[string]int32 // ids of performance counters by their names
	prefix     string           // of operation ids, so that vpxd.log can be joined

	keeper  *keepalive.HandlerSOAP
	stop    context.CancelFunc
	closing sync.Once
	closed  error
}

// Open connects, logs in once, starts to keep the session alive. It blocks for at most ctx or about 70 s. A wrong password
// is SF2001 after exactly one attempt, an untrusted certificate SF2003, one that is not valid now SF2011, an address without answer SF2004, settings that
// cannot be used SF1003.
func Open(ctx context.Context, o Options) (*Endpoint, error) {
	if err := o.check(); err != nil {
		return nil, &Error{Op: "open vSphere endpoint", SF: "SF1003", Err: err}
	}
	t, err := newTrust(o.CAFile, o.Thumbprint, o.Insecure)
	if err != nil {
		return nil, &Error{Op: "open vSphere endpoint", SF: "SF1003", Err: err}
	}
	t.now = o.Now
	e := newEndpoint(&o, t)
	if err := e.connect(ctx, &o); err != nil {
		e.transport.CloseIdleConnections()
		return nil, err
	}
	e.keepAlive(ctx)
	return e, nil
}

func newEndpoint(o *Options, t trust) *Endpoint {
	source := o.Login
	if user := o.URL.User; source == nil && user != nil {
		source = func(context.Context) (*url.Userinfo, error) { return user, nil }
	}
	id := make([]byte, 4)
	rand.Read(id) // never fails (crypto/rand)
	return &Endpoint{
		host: o.URL.Host, trust: t, account: &credential{source: source}, loginSlot: make(chan struct{}, 1),
		prefix: "stillframe-" + rand.Text()[:8] + "-", observer: o.Observer,
	}
}

// connect makes the tuned client and logs in.
func (e *Endpoint) connect(ctx context.Context, o *Options) error {
	u := *o.URL
	u.User = nil
	if u.Path == "" || u.Path == "/" {
		u.Path = vim25.Path
	}
	client := soap.NewClient(&u, o.Insecure)
	client.UserAgent = o.Agent
	e.transport = client.DefaultTransport()
	e.tune(o)
	e.files = &http.Client{Transport: e.transport, CheckRedirect: refuseRedirect}
	ctx, cancel := context.WithTimeoutCause(ctx, callLimit, errCallLimit)
	defer cancel()
	failpoint.Before("vsphere", "RetrieveServiceContent")
	vim, err := vim25.NewClient(ctx, client)
	failpoint.After("vsphere", "RetrieveServiceContent")
	if err != nil {
		return failure("connect to", e.host, err)
	}
	e.vim = vim
	e.vim.RoundTripper = steady{e}
	return e.logIn(ctx)
}

// tune replaces what govmomi takes from Go's defaults or from the environment: two idle connections per host, a proxy from
// the environment, a dialer without limits.
func (e *Endpoint) tune(o *Options) {
	t := e.transport
	t.Proxy = nil
	if o.Proxy != nil {
		t.Proxy = http.ProxyURL(o.Proxy)
	}
	t.DialContext = newDialer().DialContext
	t.DialTLSContext = e.trust.dial
	t.TLSClientConfig = e.trust.config("") // counts only behind a proxy, where the transport itself shakes hands
	t.TLSHandshakeTimeout = handshakeLimit
	t.ForceAttemptHTTP2 = false
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost = idleConns, idleConns, 0
	t.IdleConnTimeout = idleLimit
}

func refuseRedirect(*http.Request, []*http.Request) error { return errRedirect }

// logIn makes one login call. A refused secret is remembered.
func (e *Endpoint) logIn(ctx context.Context) error {
	user, err := e.account.read(ctx)
	switch {
	case errors.Is(err, errNoCredential):
		return &Error{Op: "log in to", Subject: e.host, SF: "SF1002", Err: err}
	case err != nil:
		return secretFailure("log in to", e.host, err)
	}
	password, _ := user.Password()
	_, err = methods.Login(ctx, once{e}, &types.Login{
		This: *e.vim.ServiceContent.SessionManager, UserName: user.Username(), Password: password, Locale: "en_US",
	})
	if err == nil {
		e.generation.Add(1)
		return nil
	}
	refused := isFault[*types.InvalidLogin](err)
	err = failure("log in to", e.host, err)
	if refused {
		e.account.refuse(user, err)
	}
	return err
}

// secretFailure is the error of an account that could not be read; its own code counts if it has one.
func secretFailure(op, subject string, err error) error {
	var coded interface{ Code() string }
	if errors.As(err, &coded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s %s: %w", op, subject, err)
	}
	return &Error{Op: op, Subject: subject, SF: "SF1002", Err: fmt.Errorf("read the account: %w", err)}
}

// renew logs in again unless somebody did so since generation was read. vCenter refuses a login on a live session as if
// the password were wrong, so it is called only after NotAuthenticated.
func (e *Endpoint) renew(ctx context.Context, generation int64) error {
	select {
	case e.loginSlot <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for the login to %s: %w", e.host, context.Cause(ctx))
	}
	defer func() { <-e.loginSlot }()
	if e.generation.Load() != generation {
		return nil
	}
	return e.logIn(ctx)
}

// keepAlive asks for the time each five minutes; the answer NotAuthenticated makes steady log in again. What goes wrong is
// met again, and reported, by the next real call.
func (e *Endpoint) keepAlive(ctx context.Context) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	e.keeper = keepalive.NewHandlerSOAP(e.vim, keepaliveEvery, func() error {
		if _, err := methods.GetCurrentTime(life, e.vim); err != nil && life.Err() != nil {
			return err
		}
		return nil
	})
	e.keeper.Start()
}

// Ready proves that the session lives (it logs in again if not) with connections open for the calls of a freeze window. Call
// it at most 5 s before a window: no login is made inside one.
func (e *Endpoint) Ready(ctx context.Context) error {
	var group sync.WaitGroup
	errs := make([]error, warmConns)
	for i := range errs {
		group.Go(func() { _, errs[i] = methods.GetCurrentTime(ctx, e.vim) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return failure("check the session with", e.host, err)
		}
	}
	return nil
}

// Close logs out and closes the connections. It is idempotent and blocks for at most 7 s. Close what watches tasks first.
func (e *Endpoint) Close(ctx context.Context) error {
	e.closing.Do(func() {
		e.stop()
		e.keeper.Stop()
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeLimit, errCallLimit)
		defer cancel()
		_, err := methods.Logout(ctx, once{e}, &types.Logout{This: *e.vim.ServiceContent.SessionManager})
		if !isFault[*types.NotAuthenticated](err) {
			e.closed = failure("log out of", e.host, err)
		}
		e.transport.CloseIdleConnections()
	})
	return e.closed
}

// once sends each call exactly once, with an operation id and a limit.
type once struct{ e *Endpoint }

// RoundTrip implements soap.RoundTripper.
func (o once) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	if err := refused(ctx); err != nil {
		return err
	}
	limit := callLimit
	if _, ok := req.(*methods.WaitForUpdatesExBody); ok {
		limit = waitLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errCallLimit)
	defer cancel()
	ctx = context.WithValue(ctx, types.ID{}, o.e.prefix+strconv.FormatInt(o.e.calls.Add(1), 10))
	failpoint.Before("vsphere", req)
	err := o.e.vim.Client.RoundTrip(ctx, req, res)
	failpoint.After("vsphere", req)
	o.e.heard(ctx, req, err)
	return err
}

// steady logs in again, once, when the session is gone: such a call has not been carried out. It repeats only reads, after
// network errors.
type steady struct{ e *Endpoint }

// RoundTrip implements soap.RoundTripper.
func (s steady) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	pauses := []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 1600 * time.Millisecond}
	renewed := false
	for {
		generation := s.e.generation.Load()
		err := once(s).RoundTrip(ctx, req, res)
		switch {
		case err == nil:
			return nil
		case !renewed && isFault[*types.NotAuthenticated](err):
			renewed = true
			if err := s.e.renew(ctx, generation); err != nil {
				return err
			}
		case len(pauses) > 0 && idempotent(req) && isNetwork(err):
			if !pause(ctx, pauses[0]) {
				return err
			}
			pauses = pauses[1:]
		default:
			return err
		}
		reflect.ValueOf(res).Elem().SetZero() // the old fault would be taken for the new answer
	}
}

// idempotent says whether asking twice is the same as asking once.
func idempotent(req soap.HasFault) bool {
	switch req.(type) {
	case *methods.RetrievePropertiesExBody, *methods.CurrentTimeBody, *methods.FindByUuidBody, *methods.HasPrivilegeOnEntitiesBody,
		*methods.FindByInventoryPathBody, *methods.ListProcessesInGuestBody, *methods.ListFilesInGuestBody:
		return true
	}
	return false
}

// pause waits for d; it gives false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
