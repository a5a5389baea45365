package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// addressInUse is what a port that somebody else has is reported with.
const addressInUse = windows.WSAEADDRINUSE

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
	var gone []string
	if err = errors.Join(err, exeErr); err == nil {
		err = withServices(func(m *mgr.Mgr) (err error) {
			gone, err = removeLeftovers(m, name)
			return err
		})
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
	listener, port, err := a.listen(ctx)
	if err != nil {
		return false, errors.Join(err, ready.write(errorLine(err)))
	}
	closeFirewall := a.openFirewall(firewallRule{name, exe, port, s.allow}, gone)
	defer func() { err = errors.Join(err, closeFirewall()) }()
	if err := ready.write(readyLine(a.fingerprint, port) + " " + strconv.Itoa(os.Getpid())); err != nil {
		return false, errors.Join(err, listener.Close())
	}
	a.port = port
	held, err = a.serve(ctx, listener)
	return held, errors.Join(err, ready.remove())
}

// openFirewall lets the orchestrator in, where it is known whence it comes, and takes away the rules of services and
// programs that have gone. What fails is a note: the orchestrator finds out whether it gets through.
func (a *servant) openFirewall(rule firewallRule, gone []string) (closeIt func() error) {
	orphaned, unread := orphanedRules()
	if unread != nil {
		a.options.Notes = append(a.options.Notes, unread)
	}
	var err error
	for _, name := range append(gone, orphaned...) {
		if err = forgetRules(name); err != nil {
			break
		}
	}
	opened := len(rule.from) > 0 && err == nil
	if opened {
		err = rule.open()
	}
	if err != nil {
		a.options.Notes = append(a.options.Notes, err)
	}
	if !opened || err != nil {
		return func() error { return nil }
	}
	return rule.close
}

// serve serves one session, or session after session until ctx ends or one of them cannot be.
func (a *servant) serve(ctx context.Context, listener net.Listener) (held bool, err error) {
	for session := agent.New(a.options); ; session = session.Next() {
		err := session.Serve(ctx, listener)
		if err == nil && a.home != nil && ctx.Err() == nil {
			if listener, _, err = a.listen(ctx); err == nil {
				continue
			}
		}
		if a.counted != nil {
			err = errors.Join(err, a.counted.err)
		}
		return session.ReleasedByStop(), err
	}
}

// servant is what the sessions of one agent have in common.
type servant struct {
	options     agent.Options
	settings    settings
	own         tls.Certificate
	fingerprint protocol.Fingerprint
	host        string
	port        int
	// home and counted are those of an agent that stays, nil for one that does not.
	home    *home
	counted *countedFreezer
}

func newServant(s settings, exe string, h *host, stays bool) (*servant, error) {
	seams := currentSeams()
	options, err := guest(seams, exe)
	if err != nil {
		return nil, err
	}
	freezer := newFreezer(seams, h)
	options.Freezer = freezer
	a := &servant{options: options, settings: s, host: seams.listenHost, port: s.port}
	if stays {
		return a, a.stay(s, freezer)
	}
	a.own, a.fingerprint, err = protocol.NewIdentity(identityLife)
	return a, err
}

// stay makes it one that stays.
func (a *servant) stay(s settings, freezer agent.Settler) error {
	dir := filepath.Dir(s.readyFile)
	home, err := openHome(dir, s.peer)
	if err != nil {
		return err
	}
	sessions, err := openWriterSessions(home.path(sessionsFile), a.options.BootID)
	if err != nil {
		return err
	}
	a.home, a.counted = home, &countedFreezer{Settler: freezer, sessions: sessions}
	a.options.Idle, a.options.Keeper, a.options.Leaked, a.options.Freezer = foreverIdle, home, sessions.count, a.counted
	a.fingerprint = home.fingerprint()
	return nil
}

// listen opens the way to the orchestrator; the port of the first session is kept for the others.
func (a *servant) listen(ctx context.Context) (net.Listener, int, error) {
	if a.home != nil {
		return listen(a.host, a.port, a.home.tls())
	}
	return channel(ctx, a.settings, a.host, a.port, a.own, &a.options)
}
