package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// addressInUse is what a port that somebody else has is reported with.
const addressInUse = windows.WSAEADDRINUSE

// foreverIdle is how long a persistent agent waits for its orchestrator.
const foreverIdle = 10 * 365 * 24 * time.Hour

// serve is the whole life of the agent in its service: it removes what dead agents left, serves one orchestrator, and
// removes every trace of itself but its folder, which the one who made it removes. One that stays serves session after
// session until it is stopped, and leaves its entry. When it has ended nobody listens to errors any more; the exit status
// is what is left.
func serve(ctx context.Context, s settings, stays bool) int {
	name := servicePrefix + s.deployment
	held, err := prepareAndServe(ctx, s, name, stays)
	if !stays {
		err = errors.Join(err, withServices(func(m *mgr.Mgr) error { return removeService(m, name) }))
	}
	switch {
	case held:
		return exitThawed
	case err != nil:
		return exitFailed
	}
	return exitOK
}

// prepareAndServe tells in the ready file how the start went. The file is gone when the agent leaves. It says whether the end of
// ctx released what was held.
func prepareAndServe(ctx context.Context, s settings, name string, stays bool) (held bool, err error) {
	ready := readyFile{s.readyFile}
	if stays {
		err = ready.remove() // of the time before the last start of Windows
	}
	exe, exeErr := executable()
	if err = errors.Join(err, exeErr); err == nil {
		err = withServices(func(m *mgr.Mgr) error { return removeLeftovers(m, name) })
	}
	if err != nil {
		return false, errors.Join(err, ready.write(errorLine(err)))
	}
	h, err := openHost(exe, name)
	if err != nil {
		return false, errors.Join(err, ready.write(errorLine(err)))
	}
	defer func() { err = errors.Join(err, h.close()) }()
	a, err := newServant(s, exe, h, stays)
	if err != nil {
		return false, errors.Join(err, ready.write(errorLine(err)))
	}
	listener, port, err := a.listen()
	if err != nil {
		return false, errors.Join(err, ready.write(errorLine(err)))
	}
	if err := ready.write(readyLine(a.fingerprint, port) + " " + strconv.Itoa(os.Getpid())); err != nil {
		return false, errors.Join(err, listener.Close())
	}
	for a.port = port; ; {
		servant := agent.New(a.options)
		err := servant.Serve(ctx, listener)
		if err == nil && stays && ctx.Err() == nil {
			if listener, _, err = a.listen(); err == nil {
				continue
			}
		}
		return servant.ReleasedByStop(), errors.Join(err, ready.remove())
	}
}

// servant is what the sessions of one agent have in common.
type servant struct {
	options     agent.Options
	config      *tls.Config
	fingerprint protocol.Fingerprint
	host        string
	port        int
}

func newServant(s settings, exe string, h *host, stays bool) (*servant, error) {
	seams := currentSeams()
	options, err := guest(seams, exe)
	if err != nil {
		return nil, err
	}
	options.Freezer = newFreezer(seams, h)
	var own tls.Certificate
	a := servant{options: options, host: seams.listenHost, port: s.port}
	if stays {
		a.options.Idle = foreverIdle
		own, a.fingerprint, err = storedIdentity(filepath.Dir(s.readyFile))
	} else {
		own, a.fingerprint, err = protocol.NewIdentity(identityLife)
	}
	a.config = protocol.ServerTLS(own, s.peer)
	return &a, err
}

// listen opens the control port; the one of the first session is kept for the others.
func (a *servant) listen() (net.Listener, int, error) {
	return listen(a.host, a.port, a.config)
}
