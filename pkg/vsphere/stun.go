package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

const (
	// maxStun: a stun that long is a risk (unverified: judgement; published stuns of creations are 0.2 to 0.4 s).
	maxStun    = 2 * time.Second
	absurdStun = time.Hour               // above it the line is not believed
	lastStuns  = 5                       // are judged: what was longer ago says little of the next one
	maxLogEnd  = 256 << 10               // bytes
	logLimit   = 4900 * time.Millisecond // one read of a log's end; below dialLimit
	logFolder  = "config.files.logDirectory"
	logName    = "vmware.log"
)

var (
	errLogLimit = errors.New("no answer within " + logLimit.String())
	errLongLog  = errors.New("more than the asked-for end of it was sent")
	errNoFolder = errors.New("its folder or its datacenter is not known")
)

// unstun is the whole line that a VM's log has of each stun: the time first, up to a blank or, before ESXi 7, a bar.
var unstun = regexp.MustCompile(`(?m)^([^\s|]*)[^\n]*Checkpoint_Unstun: vm stopped for (\d+) us\b[^\n]*\n`)

// stun is one time for which a VM stood still.
type stun struct {
	at     time.Time // zero when the log's line does not tell
	length time.Duration
}

// stuns are what the end of the VM's log tells, the oldest first; why says why it is not known.
type stuns struct {
	known bool
	list  []stun
	why   string
}

// parseStuns finds the stuns in a log. Numbers that cannot be are left out.
func parseStuns(log []byte) []stun {
	var all []stun
	for _, m := range unstun.FindAllSubmatch(log, -1) {
		us, err := strconv.ParseInt(string(m[2]), 10, 64)
		if err != nil || us > absurdStun.Microseconds() {
			continue
		}
		at, err := time.Parse(time.RFC3339, string(m[1]))
		if err != nil {
			at = time.Time{}
		}
		all = append(all, stun{at, time.Duration(us) * time.Microsecond})
	}
	return all
}

// recall completes a view with the stuns that the end of the VM's log tells of, with one GET. That it cannot be read is no error.
func (v *view) recall(ctx context.Context, e *Endpoint) {
	if !v.on() {
		v.stuns.why = "the VM is not powered on"
		return
	}
	log, err := e.logEnd(ctx, v)
	if err != nil {
		v.stuns.why = "the VM's " + logName + " could not be read: " + err.Error()
		return
	}
	v.stuns.known, v.stuns.list = true, parseStuns(log)
}

// logEnd reads the end of the VM's log, from a line's beginning. It blocks for at most logLimit.
func (e *Endpoint) logEnd(ctx context.Context, v *view) ([]byte, error) {
	if err := refused(ctx); err != nil {
		return nil, err
	}
	datastore, folder, ok := strings.Cut(strings.TrimPrefix(text(v.vm, logFolder), "["), "]") // [datastore] folder
	if !ok || v.datacenter == "" {
		return nil, errNoFolder
	}
	u := e.vim.URL()
	u.Path = path.Join("/folder", path.Clean("/"+strings.TrimSpace(folder)), logName)
	u.RawQuery = url.Values{"dcPath": {v.datacenter}, "dsName": {datastore}}.Encode()
	ctx, cancel := context.WithTimeoutCause(ctx, logLimit, errLogLimit)
	defer cancel()
	log, err := e.fileEnd(ctx, u)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(log) == maxLogEnd { // it was cut within a line
		log = log[slices.Index(log, '\n')+1:]
	}
	return log, err
}

// fileEnd reads at most maxLogEnd bytes from the end of a file on a datastore, in the endpoint's own session.
func (e *Endpoint) fileEnd(ctx context.Context, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", "bytes=-"+strconv.Itoa(maxLogEnd))
	for _, c := range e.vim.Jar.Cookies(u) {
		req.AddCookie(c)
	}
	res, err := e.files.Do(req)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return nil, wrapped.Err // without the URL
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		return nil, errors.Join(errors.New("answer "+res.Status), res.Body.Close())
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxLogEnd+1))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxLogEnd {
		return nil, errLongLog
	}
	return data, nil
}

// datacenterPath is the inventory path of the datacenter among folders and datacenters; empty when there is none.
func datacenterPath(entities map[types.ManagedObjectReference]map[string]any) string {
	for ref, p := range entities {
		if ref.Type != "Datacenter" {
			continue
		}
		at := ""
		for range maxDepth {
			above, ok := p["parent"].(types.ManagedObjectReference)
			if !ok {
				break // the root folder has no part in paths
			}
			at = "/" + text(p, "name") + at
			p = entities[key(above)]
		}
		return at
	}
	return ""
}

// judgeStun finds a VM that stood still for long when its last snapshots were made: the next one would be no better.
func judgeStun(v *view) finding {
	if !v.stuns.known {
		return unknown(cmp.Or(v.stuns.why, "the VM's "+logName+" was not read"))
	}
	last := v.stuns.list[max(0, len(v.stuns.list)-lastStuns):]
	if len(last) == 0 {
		return fine()
	}
	longest := slices.MaxFunc(last, func(a, b stun) int { return cmp.Compare(a.length, b.length) })
	if longest.length < maxStun {
		return fine()
	}
	when := ""
	if !longest.at.IsZero() {
		when = " at " + longest.at.UTC().Format(time.RFC3339)
	}
	return warn(fmt.Sprintf("the longest of the VM's last stuns (%d) took %.1f s%s, %.0f s or more is too long", len(last), longest.length.Seconds(), when, maxStun.Seconds()))
}
