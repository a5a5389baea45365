package guestops_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/guestops"
	"github.com/stillframe/stillframe/pkg/inventory"
)

// coded is an error as *vsphere.Error looks like.
type coded string

func (c coded) Error() string { return "the guest says " + string(c) }
func (c coded) Code() string  { return string(c) }

// operations is a guest in memory: its files, and one program that can be started.
type operations struct {
	files map[string][]byte
	dirs  map[string]bool
	fail  map[string]error // by operation
	calls []string

	// spoil changes what is read back.
	spoil func([]byte) []byte
	// ready is what the agent writes when it is asked for the nth time (0 at once), and ends then with ends.
	ready      string
	readyAfter int
	ends       bool
	runs       bool
	deaf       bool          // does not end when terminated
	lives      map[int64]int // how many looks find a process; of others runs tells
	listed     []string      // what the guest pretends to have in the folder
	args       []string
	asked      []string // the commands of the agent that were started
	locked     int      // how many removals of a file fail, because its program has not ended
	exit       int
}

func newOperations() *operations {
	return &operations{files: map[string][]byte{}, dirs: map[string]bool{}, fail: map[string]error{}}
}

func (o *operations) call(what, path string) error {
	o.calls = append(o.calls, strings.TrimSpace(what+" "+path))
	return o.fail[what]
}

func (o *operations) Validate(context.Context) error { return o.call("validate", "") }

func (o *operations) MakeDir(_ context.Context, dir string) error {
	if err := o.call("mkdir", dir); err != nil {
		return err
	}
	o.dirs[dir] = true
	return nil
}

func (o *operations) Upload(_ context.Context, file string, size int64, r io.Reader) error {
	content, err := io.ReadAll(r)
	if err := errors.Join(err, o.call("upload", file)); err != nil {
		return err
	}
	if int64(len(content)) != size {
		return fmt.Errorf("%d bytes, announced were %d", len(content), size)
	}
	o.files[file] = content
	return nil
}

func (o *operations) Fetch(_ context.Context, file string, limit int64) ([]byte, error) {
	if err := o.call("fetch", file); err != nil {
		return nil, err
	}
	if _, name := split(file); name == "ready" && o.ready != "" {
		if o.readyAfter--; o.readyAfter < 0 {
			return []byte(o.ready), nil
		}
	}
	content, ok := o.files[file]
	if !ok {
		return nil, coded("SF3406")
	}
	if o.spoil != nil {
		content = o.spoil(bytes.Clone(content))
	}
	return content[:min(int64(len(content)), limit)], nil
}

func (o *operations) Start(_ context.Context, exe string, args, _ []string) (int64, error) {
	if err := o.call("start", exe); err != nil {
		return 0, err
	}
	o.args, o.asked = args, append(o.asked, args[0])
	if len(args) > 1 { // it serves
		o.runs = !o.ends
	}
	return 4711, nil
}

func (o *operations) Wait(context.Context, int64) (int, error) { return o.exit, o.call("wait", "") }

func (o *operations) Running(_ context.Context, pid int64) (bool, error) {
	if n, ok := o.lives[pid]; ok {
		o.lives[pid]--
		return n > 0, o.call("running", "")
	}
	return o.runs, o.call("running", "")
}

func (o *operations) List(_ context.Context, dir string) ([]string, error) {
	if err := o.call("list", dir); err != nil {
		return nil, err
	}
	if !o.dirs[dir] {
		return nil, coded("SF3406")
	}
	names := slices.Clone(o.listed)
	for file := range o.files {
		if in, name := split(file); in == dir {
			names = append(names, name)
		}
	}
	return names, nil
}

func (o *operations) Remove(_ context.Context, name string, dir bool) error {
	if err := o.call("remove", name); err != nil {
		return err
	}
	if o.locked > 0 && !dir {
		o.locked--
		return coded("SF3605")
	}
	if dir != o.dirs[name] {
		return coded("SF3406")
	}
	for file := range o.files {
		if in, _ := split(file); in == name {
			return coded("SF3605")
		}
	}
	delete(o.files, name)
	delete(o.dirs, name)
	return nil
}

func (o *operations) Terminate(_ context.Context, pid int64) error {
	delete(o.lives, pid)
	o.runs = o.deaf
	return o.call("terminate", "")
}

// split cuts a path of Linux or Windows before its last element.
func split(path string) (dir, name string) {
	i := strings.LastIndexAny(path, `/\`)
	return path[:max(i, 0)], path[i+1:]
}

// did says which operations were done, without their paths.
func (o *operations) did() []string {
	out := []string{}
	for _, c := range o.calls {
		out = append(out, strings.Fields(c)[0])
	}
	return out
}

func payload() guest.Payload {
	content := []byte("the agent's program")
	return guest.Payload{
		Name: "stillframe-agent", Size: int64(len(content)), SHA256: sha256.Sum256(content),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

func TestPut(t *testing.T) {
	boom := coded("SF3604")
	cases := map[string]struct {
		fail    string
		spoil   func([]byte) []byte
		code    string
		calls   []string
		nothing bool // that would have to be removed
	}{
		"well":                {calls: []string{"validate", "mkdir", "upload", "fetch"}},
		"wrong password":      {fail: "validate", code: "SF3604", calls: []string{"validate"}, nothing: true},
		"no folder":           {fail: "mkdir", code: "SF3604", calls: []string{"validate", "mkdir"}},
		"no upload":           {fail: "upload", code: "SF3604", calls: []string{"validate", "mkdir", "upload"}},
		"no read-back":        {fail: "fetch", code: "SF3604", calls: []string{"validate", "mkdir", "upload", "fetch"}},
		"read back: changed":  {spoil: func(b []byte) []byte { b[3] ^= 1; return b }, code: "SF3801", calls: []string{"validate", "mkdir", "upload", "fetch"}},
		"read back: longer":   {spoil: func(b []byte) []byte { return append(b, 'x') }, code: "SF3801", calls: []string{"validate", "mkdir", "upload", "fetch"}},
		"read back: cut":      {spoil: func(b []byte) []byte { return b[:4] }, code: "SF3801", calls: []string{"validate", "mkdir", "upload", "fetch"}},
		"read back: nothing ": {spoil: func([]byte) []byte { return nil }, code: "SF3801", calls: []string{"validate", "mkdir", "upload", "fetch"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := newOperations()
			o.spoil = c.spoil
			if c.fail != "" {
				o.fail[c.fail] = boom
			}
			r, err := guestops.New(o, inventory.Linux).Put(t.Context(), payload())
			if got := guest.CodeOf(err); got != c.code || (err != nil) != (c.code != "") {
				t.Errorf("Put = %v with code %q, want %q", err, got, c.code)
			}
			if diff := cmp.Diff(c.calls, o.did()); diff != "" {
				t.Errorf("operations (-want +got):\n%s", diff)
			}
			if c.nothing != (r.Dir == "") {
				t.Errorf("Put gave the folder %q to remove, want one: %t", r.Dir, !c.nothing)
			}
			if err == nil && (path.Dir(r.Exe) != r.Dir || len(r.Deployment) != 32 || !strings.HasPrefix(r.Dir, "/var/lib/stillframe/")) {
				t.Errorf("Put = %+v, want a program in its own folder named by 128 bits", r)
			}
		})
	}
}

func TestPutMakesFreshFolders(t *testing.T) {
	o := newOperations()
	a, err := guestops.New(o, inventory.Linux).Put(t.Context(), payload())
	b, err2 := guestops.New(o, inventory.Linux).Put(t.Context(), payload())
	if err := errors.Join(err, err2); err != nil || a.Dir == b.Dir {
		t.Errorf("two pushes went to %q and %q, %v, want two folders", a.Dir, b.Dir, err)
	}
}

func TestStart(t *testing.T) {
	pin := protocol.Fingerprint{1, 2, 0xff}
	good := fmt.Sprintf("READY %v 6465\n", pin)
	cases := map[string]struct {
		ready string
		after int
		ends  bool
		code  string
		text  string
	}{
		"at once":                        {ready: good},
		"a little later":                 {ready: good, after: 3},
		"refused":                        {ready: "ERROR SF4008 another agent serves this guest\n", ends: true, code: "SF4008", text: "another agent serves this guest"},
		"refused, seen after its end":    {ready: "ERROR SF4008 busy\n", after: 1, ends: true, code: "SF4008", text: "busy"},
		"refused without a text":         {ready: "ERROR SF4008\n", ends: true, code: "SF4008"},
		"refused without a code":         {ready: "ERROR no luck today\n", ends: true, code: "SF3703", text: "no luck"},
		"refused with another's code":    {ready: "ERROR SF3001 wrong password\n", ends: true, code: "SF3703", text: "SF3001"},
		"refused with a code of its own": {ready: "ERROR SF99999 x\n", ends: true, code: "SF3703"},
		"ended without a word":           {ends: true, code: "SF3703", text: "exit code 3"},
		"ended within its word":          {ready: "READY 01", ends: true, code: "SF3703", text: "exit code 3"},
		"never ready":                    {code: "SF3703", text: "deadline"},
		"never at the end of its line":   {ready: strings.TrimSpace(good), code: "SF3703", text: "deadline"},
		"empty line":                     {ready: "\n", code: "SF3703"},
		"rubbish":                        {ready: "\x00\xff\n", code: "SF3703"},
		"another word":                   {ready: fmt.Sprintf("STEADY %v 6465\n", pin), code: "SF3703"},
		"short fingerprint":              {ready: "READY 0102ff 6465\n", code: "SF3703", text: "not a fingerprint"},
		"long fingerprint":               {ready: fmt.Sprintf("READY %vff 6465\n", pin), code: "SF3703", text: "not a fingerprint"},
		"no hex":                         {ready: "READY " + strings.Repeat("zz", 32) + " 6465\n", code: "SF3703", text: "not a fingerprint"},
		"port 0":                         {ready: fmt.Sprintf("READY %v 0\n", pin), code: "SF3703", text: "not a port"},
		"port too large":                 {ready: fmt.Sprintf("READY %v 65536\n", pin), code: "SF3703", text: "not a port"},
		"no port":                        {ready: fmt.Sprintf("READY %v\n", pin), code: "SF3703"},
		"no process id":                  {ready: fmt.Sprintf("READY %v 6465 x\n", pin), code: "SF3703", text: "not a process id"},
		"process id 0":                   {ready: fmt.Sprintf("READY %v 6465 0\n", pin), code: "SF3703", text: "not a process id"},
		"one word too many":              {ready: fmt.Sprintf("READY %v 6465 6466 6467\n", pin), code: "SF3703"},
		"two lines":                      {ready: good + good, code: "SF3703"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperations()
				o.ready, o.readyAfter, o.ends, o.exit = c.ready, c.after, c.ends, 3
				ctx, cancel := context.WithTimeout(t.Context(), 31*time.Second)
				defer cancel()
				id, err := guestops.New(o, inventory.Linux).Start(ctx, guest.Remote{Deployment: "d", Dir: "/x/d", Exe: "/x/d/agent"}, guest.Bootstrap{Peer: pin, Port: 6465, OnlyMounts: []string{"/data", "/log"}})
				if got := guest.CodeOf(err); got != c.code || (err != nil) != (c.code != "") {
					t.Fatalf("Start = %v with code %q, want %q", err, got, c.code)
				}
				if err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("Start = %v, want a text with %q", err, c.text)
				}
				if id.PID != 4711 { // known also with an error, so that it can be ended
					t.Errorf("the process id is %d, want 4711", id.PID)
				}
				if err == nil && (id.Fingerprint != pin || id.Port != 6465) {
					t.Errorf("Start = %+v, want the fingerprint and the port of READY", id)
				}
				want := fmt.Sprintf("run --peer %v --port 6465 --deployment d --ready-file /x/d/ready --only-mount /data --only-mount /log", pin)
				if got := strings.Join(o.args, " "); got != want {
					t.Errorf("the agent was started with %q, want %q", got, want)
				}
			})
		})
	}
}

// An agent that dials is told where, and has no port.
func TestStartToDial(t *testing.T) {
	pin := protocol.Fingerprint{1, 2, 0xff}
	for ready, code := range map[string]string{
		fmt.Sprintf("READY %v 0 4712\n", pin): "",
		fmt.Sprintf("READY %v 6465\n", pin):   "SF3703",
		fmt.Sprintf("READY %v\n", pin):        "SF3703",
	} {
		o := newOperations()
		o.ready = ready
		id, err := guestops.New(o, inventory.Linux).Start(t.Context(), guest.Remote{Deployment: "d", Dir: "/x/d", Exe: "/x/d/agent"}, guest.Bootstrap{Peer: pin, DialTo: "192.0.2.1:6466"})
		if got := guest.CodeOf(err); got != code || (err != nil) != (code != "") {
			t.Errorf("Start = %v with code %q, want %q", err, got, code)
		}
		if err == nil && (id.Port != 0 || id.Fingerprint != pin || id.PID != 4712) {
			t.Errorf("Start = %+v, want the fingerprint and the process id of READY, and no port", id)
		}
		want := fmt.Sprintf("run --peer %v --dial 192.0.2.1:6466 --deployment d --ready-file /x/d/ready", pin)
		if got := strings.Join(o.args, " "); got != want {
			t.Errorf("the agent was started with %q, want %q", got, want)
		}
	}
}

func TestStartPassesFaultsOn(t *testing.T) {
	for _, operation := range []string{"start", "fetch", "running"} {
		o := newOperations()
		o.fail[operation] = coded("SF3501")
		_, err := guestops.New(o, inventory.Linux).Start(t.Context(), guest.Remote{Dir: "/x/d", Exe: "/x/d/agent"}, guest.Bootstrap{})
		if !errors.Is(err, coded("SF3501")) {
			t.Errorf("%s fails: Start = %v, want its error", operation, err)
		}
	}
}

func TestRemove(t *testing.T) {
	const dir = "/var/lib/stillframe/agent/d"
	gone := func(o *operations) { o.files, o.dirs = map[string][]byte{}, map[string]bool{} }
	cases := map[string]struct {
		change func(*operations)
		pid    int64
		ok     bool
		took   time.Duration
		left   int
	}{
		"the agent has left":         {func(*operations) {}, 4711, true, 0, 0},
		"the agent never ran":        {func(o *operations) { o.runs = true }, 0, true, 0, 0},
		"the agent has to be ended":  {func(o *operations) { o.runs = true }, 4711, true, 13 * time.Second, 0},
		"the agent cannot be ended":  {func(o *operations) { o.runs, o.deaf = true, true }, 4711, false, 25 * time.Second, 0},
		"the folder is gone":         {gone, 4711, true, 0, 0},
		"the list fails":             {func(o *operations) { o.fail["list"] = coded("SF3501") }, 0, false, 0, 3},
		"nothing can be removed":     {func(o *operations) { o.fail["remove"] = coded("SF3501") }, 0, false, 0, 3},
		"the process cannot be seen": {func(o *operations) { o.fail["running"] = coded("SF3501") }, 4711, false, 0, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperations()
				o.dirs[dir], o.files[dir+"/agent"], o.files[dir+"/ready"] = true, nil, nil
				c.change(o)
				a, r := guestops.New(o, inventory.Linux), guest.Remote{Deployment: "d", Dir: dir, Exe: dir + "/agent", PID: c.pid}
				ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
				defer cancel()
				begin := time.Now()
				err := a.Remove(ctx, r)
				if (err == nil) != c.ok {
					t.Errorf("Remove = %v, want success: %t", err, c.ok)
				}
				if took := time.Since(begin); took > c.took {
					t.Errorf("Remove took %v, want at most %v", took, c.took)
				}
				if left := len(o.files) + len(o.dirs); left != c.left {
					t.Errorf("%d files and folders are left, want %d", left, c.left)
				}
				if c.ok {
					if err := a.Remove(t.Context(), r); err != nil {
						t.Errorf("Remove again = %v, want nil", err)
					}
				}
			})
		})
	}
	if err := guestops.New(newOperations(), inventory.Linux).Remove(t.Context(), guest.Remote{}); err != nil {
		t.Errorf("Remove of nothing = %v, want nil", err)
	}
}

// What the guest lists cannot make us touch anything outside the folder.
func TestRemoveStaysInTheFolder(t *testing.T) {
	const dir = "/var/lib/stillframe/agent/d"
	o := newOperations()
	o.dirs[dir] = true
	o.listed = []string{".", "..", "/", "", "../..", "../../etc/shadow", "/etc/shadow", "a/..", "a/.", "..//", "x/../../y", "ready"}
	if err := guestops.New(o, inventory.Linux).Remove(t.Context(), guest.Remote{Dir: dir}); err != nil {
		t.Error(err)
	}
	for _, c := range o.calls {
		what, name, _ := strings.Cut(c, " ")
		if what == "remove" && path.Dir(name) != dir && name != dir {
			t.Errorf("%s, which lies outside of %s", c, dir)
		}
		if what == "remove" && name == dir && c != o.calls[len(o.calls)-1] {
			t.Errorf("the folder itself was removed as one of its files: %q", o.calls)
		}
	}
}

func TestRescue(t *testing.T) {
	r := guest.Remote{Dir: "/x/d", Exe: "/x/d/agent", PID: 4711}
	cases := map[string]struct {
		remote guest.Remote
		change func(*operations)
		ok     bool
	}{
		"something was frozen":     {r, func(o *operations) { o.exit = 9 }, true},
		"well":                     {r, func(*operations) {}, true},
		"the agent still runs":     {r, func(o *operations) { o.runs = true }, true},
		"nothing was pushed":       {guest.Remote{}, func(o *operations) { o.fail["start"] = coded("SF3501") }, true},
		"thaw does not start":      {r, func(o *operations) { o.fail["start"] = coded("SF3501") }, false},
		"thaw fails":               {r, func(o *operations) { o.exit = 1 }, false},
		"thaw cannot be waited on": {r, func(o *operations) { o.fail["wait"] = coded("SF3501") }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOperations()
				c.change(o)
				released, err := guestops.New(o, inventory.Linux).Rescue(t.Context(), c.remote)
				if (err == nil) != c.ok || released != (o.exit == 9) {
					t.Errorf("Rescue = %t, %v, want success: %t", released, err, c.ok)
				}
				if c.remote.Exe != "" && o.fail["start"] == nil && !slices.Equal(o.args, []string{"thaw"}) {
					t.Errorf("the guest was asked to run %q, want thaw", o.args)
				}
			})
		})
	}
}
