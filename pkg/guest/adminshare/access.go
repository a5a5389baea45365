// Package adminshare is the way into a Windows guest by its SMB admin share.
package adminshare

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
)

// Account is a logon of the guest or of its domain.
type Account struct {
	// Domain is empty for an account of the guest itself, and for user@realm.
	Domain, User string
	Password     string
}

// NewAccount reads the forms in which people write an account: DOMAIN\user, user@realm, .\user and user.
func NewAccount(name, password string) Account {
	domain, user, found := strings.Cut(name, `\`)
	if !found {
		return Account{User: name, Password: password}
	}
	if domain == "." {
		domain = ""
	}
	return Account{Domain: domain, User: user, Password: password}
}

// Options are what the road needs.
type Options struct {
	// Addresses are the guest's, tried in their order.
	Addresses []string
	Account   Account
	// Start says what starts the agent: guest.StartSCM or guest.StartWinRM.
	Start guest.Start
	// Library is the SMB library that fitted last time; empty chooses.
	Library Library
	// Logon is called around each logon, so that a refused password is tried once; nil tries always. At WinRM it is around the
	// command as well, because WinRM may refuse the account no sooner than there.
	Logon func(ctx context.Context, try func() error) error
	// Ledger is told before anything is put into the guest and when it is gone; nil for none.
	Ledger guest.Ledger
	// WinRM says how WinRM is reached, for guest.StartWinRM.
	WinRM WinRM
}

// Access is the road by the admin share into one guest. One goroutine uses it at a time.
type Access struct {
	o       Options
	starter starter
	present *session // nil when there is none
	// admitted is true once the server of the share has let the account in, whether or not to ADMIN$.
	admitted bool
	// idle is the deployment of which for certain nothing was started; empty for none.
	idle string
}

var _ guest.Access = (*Access)(nil)

// Polling of the guest, between the first and the longest pause.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 500 * time.Millisecond
	// leaveLimit is how long an agent that was greeted may take to leave by itself.
	leaveLimit = 12 * time.Second
	// removals is how often a file is tried to be removed, which its program may still lock, removePause the time between.
	removals    = 20
	removePause = 100 * time.Millisecond
	maxReady    = 4 << 10
	chunk       = 1 << 20
	// home is the folder of all pushed agents, below ADMIN$ and as the guest names it. Where Windows was installed in another
	// folder than C:\Windows the names do not fit (unverified: such guests were not seen).
	home    = "Stillframe"
	windows = `C:\Windows\`
)

// New makes the road. Nothing is contacted before Put, Rescue or Remove.
func New(o Options) *Access {
	a := &Access{o: o}
	if o.Logon == nil {
		a.o.Logon = func(_ context.Context, try func() error) error { return try() }
	}
	a.starter = &services{a}
	if o.Start == guest.StartWinRM {
		a.starter = &commands{Access: a, instead: services{a}}
	}
	return a
}

// Way is adminshare with the starter of the options.
func (a *Access) Way() guest.Way { return guest.Way{Road: guest.RoadAdminShare, Start: a.o.Start} }

// Library is the one that the last session used; empty before the first.
func (a *Access) Library() Library { return a.o.Library }

// session gives the present session, and makes it where there is none.
func (a *Access) session(ctx context.Context) (*session, error) {
	if a.present != nil {
		return a.present, nil
	}
	err := a.o.Logon(ctx, func() (err error) {
		a.present, err = open(ctx, a.o)
		return err
	})
	var mount *mountError
	a.admitted = a.admitted || err == nil || errors.As(err, &mount)
	if err != nil {
		return nil, err
	}
	a.o.Library = a.present.library
	return a.present, nil
}

// drop ends the present session. It comes after every error, because a call that was given up leaves the session unfit, and
// when nothing more is to be done.
func (a *Access) drop(ctx context.Context) {
	if a.present == nil {
		return
	}
	a.present.close(ctx)
	a.present = nil
}

// with does something with the present session.
func (a *Access) with(ctx context.Context, op string, do func(*session) error) error {
	s, err := a.session(ctx)
	if err != nil {
		return err
	}
	if err := do(s); err != nil {
		err = explain(atFile, op, s.conn.agreed(), err)
		if code := guest.CodeOf(err); code != codeNotThere && code != codeInUse {
			a.drop(ctx)
		}
		return err
	}
	return nil
}

const (
	// codeNotThere is what a file that does not exist is reported with, codeInUse one that a program locks.
	codeNotThere = "SF3406"
	codeInUse    = "SF3307"
)

// Put pushes the payload into a fresh folder and reads it back.
func (a *Access) Put(ctx context.Context, p guest.Payload) (guest.Remote, error) {
	if _, err := a.session(ctx); err != nil {
		return guest.Remote{}, err
	}
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	r := remote(hex.EncodeToString(id[:]), p)
	if err := a.intend(ctx, guest.StagePush, r); err != nil {
		return guest.Remote{}, err
	}
	err := a.with(ctx, "make the folder "+r.Dir, func(s *session) error {
		if err := s.admin.Mkdir(ctx, home); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		err := s.admin.Mkdir(ctx, below(r.Dir))
		if errors.Is(err, fs.ErrExist) {
			return &guest.Error{SF: "SF3801", Op: "make the folder " + r.Dir, Err: errors.New("it is there already, although its name was drawn at random: somebody foresees it")}
		}
		return err
	})
	if err != nil {
		return r, err // it may exist all the same: the answer was lost
	}
	return r, a.with(ctx, "push the agent to "+r.Exe, func(s *session) error { return push(ctx, s.admin, p, r) })
}

// remote is a deployment of the payload.
func remote(deployment string, p guest.Payload) guest.Remote {
	dir := windows + home + `\` + deployment
	return guest.Remote{Deployment: deployment, Dir: dir, Exe: dir + `\` + p.Name}
}

// push writes the program and compares what is read back.
func push(ctx context.Context, share Share, p guest.Payload, r guest.Remote) error {
	content, err := p.Open()
	if err != nil {
		return fmt.Errorf("open the agent: %w", err)
	}
	file, err := share.Create(ctx, below(r.Exe))
	if err != nil {
		return errors.Join(err, content.Close())
	}
	_, err = io.CopyBuffer(plainWriter{file}, plainReader{content}, make([]byte, chunk))
	if err := errors.Join(err, file.Close(), content.Close()); err != nil {
		return err
	}
	got, size, err := weigh(ctx, share, below(r.Exe), p.Size)
	if err != nil {
		return fmt.Errorf("read the agent back: %w", err)
	}
	if got != p.SHA256 {
		return &guest.Error{SF: "SF3801", Op: "compare what was read back from " + r.Exe, Err: fmt.Errorf(
			"it has %d bytes with SHA-256 %x, pushed were %d with %x", size, got, p.Size, p.SHA256)}
	}
	return nil
}

// weigh reads a file, at most one byte more than size.
func weigh(ctx context.Context, share Share, path string, size int64) (sum [sha256.Size]byte, n int64, err error) {
	file, err := share.Open(ctx, path)
	if err != nil {
		return sum, 0, err
	}
	var h hash.Hash = sha256.New()
	n, err = io.CopyBuffer(h, plainReader{io.LimitReader(file, size+1)}, make([]byte, chunk))
	h.Sum(sum[:0])
	return sum, n, errors.Join(err, file.Close())
}

// plainReader and plainWriter hide the methods by which io.CopyBuffer would do without its buffer.
type (
	plainReader struct{ io.Reader }
	plainWriter struct{ io.Writer }
)

// Start runs the agent and reads its READY file. The session ends with it: nothing is asked of the guest by it until the
// clean-up, which has its own.
func (a *Access) Start(ctx context.Context, r guest.Remote, b guest.Bootstrap) (guest.Identity, error) {
	defer a.drop(ctx)
	ready := r.Dir + `\ready`
	words := append(b.Words(), "--deployment", r.Deployment, "--ready-file", ready)
	if err := a.intend(ctx, guest.StageStart, r); err != nil {
		return guest.Identity{}, err
	}
	if a.o.Start == guest.StartSCM {
		a.tidy(ctx, r.Deployment)
	}
	began, err := a.starter.start(ctx, r, words)
	if !began {
		a.idle = r.Deployment
	}
	if err != nil {
		return guest.Identity{}, fmt.Errorf("start the agent: %w", err)
	}
	line, err := a.poll(ctx, r, ready)
	if err != nil {
		return guest.Identity{}, err
	}
	return guest.ParseReady(line, b.Listens())
}

// poll waits for the READY file, or for the agent's end. Its pauses grow slowly: what they overshoot is time that a run waits.
func (a *Access) poll(ctx context.Context, r guest.Remote, file string) (string, error) {
	const op = "wait for the agent to be ready"
	notReady := func(err error) error { return &guest.Error{SF: "SF3703", Op: op, Err: err} }
	ended := false
	for pause := firstPause; ; pause = min(pause*5/4, longestPause) {
		var line string
		err := a.with(ctx, "read "+file, func(s *session) (err error) {
			line, err = readLine(ctx, s.admin, below(file))
			return err
		})
		if err == nil && strings.HasSuffix(line, "\n") {
			return line, nil
		}
		if err != nil && guest.CodeOf(err) != codeNotThere && guest.CodeOf(err) != codeInUse {
			return "", fmt.Errorf("%s: %w", op, err)
		}
		if ended {
			err := a.starter.why(ctx, r)
			if guest.CodeOf(err) == "" { // else the agent has said it
				err = notReady(err)
			}
			return "", err
		}
		running, err := a.starter.running(ctx, r)
		if err != nil {
			return "", fmt.Errorf("%s: %w", op, err)
		}
		if !running { // one more look: it may have written why right before it ended
			ended = true
			continue
		}
		if err := sleep(ctx, pause); err != nil {
			return "", notReady(err)
		}
	}
}

func readLine(ctx context.Context, share Share, path string) (string, error) {
	file, err := share.Open(ctx, path)
	if err != nil {
		return "", err
	}
	line, err := io.ReadAll(io.LimitReader(file, maxReady))
	return string(line), errors.Join(err, file.Close())
}

// Rescue ends the agent and whatever it holds, by the agent's own "thaw", in a session of its own.
func (a *Access) Rescue(ctx context.Context, r guest.Remote) (released bool, err error) {
	if r.Exe == "" {
		return false, nil
	}
	a.drop(ctx)
	defer a.drop(ctx)
	return thaw(ctx, a.starter, r)
}

// Remove sees the agent leave, or ends it, and removes its folder, in a session of its own.
func (a *Access) Remove(ctx context.Context, r guest.Remote) error {
	if r.Dir == "" {
		return nil
	}
	a.drop(ctx)
	defer a.drop(ctx)
	names, err := a.look(ctx, r.Dir)
	gone := guest.CodeOf(err) == codeNotThere
	if err != nil && !gone {
		return err
	}
	if r.Started && a.idle != r.Deployment {
		if err := a.starter.end(ctx, r, slices.Contains(names, base(r.Exe))); err != nil {
			return err
		}
	}
	if gone {
		return a.settle(ctx, r)
	}
	kept := r.Keep && slices.Contains(names, base(r.Exe)) && a.keep(ctx, r, names) == nil
	if r.Keep {
		names = append(names, guest.KeptFile) // it may have been begun
	}
	if !kept {
		if err := a.empty(ctx, r.Dir, names); err != nil {
			return err
		}
	}
	return a.settle(ctx, r)
}

// look gives the names of what is in a folder of ours.
func (a *Access) look(ctx context.Context, dir string) (names []string, err error) {
	err = a.with(ctx, "look into "+dir, func(s *session) (err error) {
		names, err = list(ctx, s.admin, below(dir))
		return err
	})
	return names, err
}

// list gives the names of a folder. The guest is not trusted: what names no file in the folder itself is left out.
func list(ctx context.Context, share Share, dir string) ([]string, error) {
	files, err := share.List(ctx, dir)
	var names []string
	for _, f := range files {
		if name := f.Name(); name != "" && name != "." && name != ".." && !strings.ContainsAny(name, `\/:`) {
			names = append(names, name)
		}
	}
	return names, err
}

// empty removes files of a folder, then the folder.
func (a *Access) empty(ctx context.Context, dir string, names []string) (err error) {
	for _, name := range append(names, "") {
		err = errors.Join(err, a.remove(ctx, strings.TrimSuffix(dir+`\`+name, `\`)))
	}
	return err
}

// remove removes a file or an empty folder; what is not there is removed. A program that has just ended still locks its file.
func (a *Access) remove(ctx context.Context, path string) error {
	for try := 1; ; try++ {
		err := a.with(ctx, "remove "+path, func(s *session) error { return s.admin.Remove(ctx, below(path)) })
		if err == nil || guest.CodeOf(err) == codeNotThere {
			return nil
		}
		if try == removals {
			return err
		}
		if sleepErr := sleep(ctx, removePause); sleepErr != nil {
			return errors.Join(err, sleepErr)
		}
	}
}

// below is a path of the guest as ADMIN$ has it.
func below(path string) string { return strings.TrimPrefix(path, windows) }

// base is the last element of a path of the guest.
func base(path string) string { return path[strings.LastIndexByte(path, '\\')+1:] }

func (a *Access) intend(ctx context.Context, stage guest.Stage, r guest.Remote) error {
	if a.o.Ledger == nil {
		return nil
	}
	return a.o.Ledger.Intend(ctx, stage, r)
}

func (a *Access) settle(ctx context.Context, r guest.Remote) error {
	if a.o.Ledger == nil {
		return nil
	}
	return a.o.Ledger.Settle(ctx, r)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
