package eventlog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Bounds of one harvest.
const (
	harvestLimit = 5 * time.Second
	maxEvents    = 200
	maxBytes     = 64 << 10 // of the XML of the events that are kept
	maxLooked    = 5000     // events of the window, wanted or not
)

// Values of winevt.h.
const (
	evtQueryChannelPath      = 0x1
	evtQueryForwardDirection = 0x100
	evtRenderEventXML        = 1
)

var (
	wevtapi       = windows.NewLazySystemDLL("wevtapi.dll")
	procEvtQuery  = wevtapi.NewProc("EvtQuery")
	procEvtNext   = wevtapi.NewProc("EvtNext")
	procEvtRender = wevtapi.NewProc("EvtRender")
	procEvtClose  = wevtapi.NewProc("EvtClose")
)

// Log is the outcome of a harvest.
type Log struct {
	// Events are those of the Application log, then those of the System log, each in the order of its log.
	Events []Event
	// Truncated says that a bound was met: the last events are missing.
	Truncated bool
}

// Harvest reads the events of the time before now that belong to a freeze, at most 200 with 64 KiB of XML together. It
// must run only when nothing is held any more, because it loads a DLL and calls another process. It takes at most 5 s;
// a call that has not returned then goes on in a goroutine of its own, which ends when it returns.
func Harvest(ctx context.Context, before time.Duration) (Log, error) {
	for _, p := range []*windows.LazyProc{procEvtQuery, procEvtNext, procEvtRender, procEvtClose} {
		if err := p.Find(); err != nil {
			return Log{}, fmt.Errorf("read the event log: %w", err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, harvestLimit, errors.New("the event log does not answer in time"))
	defer cancel()
	type answer struct {
		log Log
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var log Log
		h := harvester{left: maxBytes, buffer: make([]uint16, maxXML/2)}
		end, _ := ctx.Deadline()
		var err error
		for _, channel := range []string{"Application", "System"} {
			err = errors.Join(err, h.read(channel, before, end, &log))
		}
		answers <- answer{log, err}
	}()
	select {
	case a := <-answers:
		return a.log, a.err
	case <-ctx.Done():
		return Log{Truncated: true}, fmt.Errorf("read the event log: %w", context.Cause(ctx))
	}
}

// harvester is the state of one harvest.
type harvester struct {
	left   int // bytes
	looked int
	buffer []uint16
}

// read appends the wanted events of one channel.
func (h *harvester) read(channel string, before time.Duration, end time.Time, log *Log) (err error) {
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return err
	}
	query, err := windows.UTF16PtrFromString(fmt.Sprintf("*[System[TimeCreated[timediff(@SystemTime) <= %d]]]", before.Milliseconds()))
	if err != nil {
		return err
	}
	result, _, callErr := procEvtQuery.Call(0, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(query)), evtQueryChannelPath|evtQueryForwardDirection)
	runtime.KeepAlive(path)
	runtime.KeepAlive(query)
	if result == 0 {
		return fmt.Errorf("query the log %s: %w", channel, callErr)
	}
	defer func() { err = errors.Join(err, closeHandle(result)) }()
	for {
		if h.left <= 0 || h.looked >= maxLooked || len(log.Events) >= maxEvents || !time.Now().Before(end) {
			log.Truncated = true
			return nil
		}
		h.looked++
		var event uintptr
		var got uint32
		wait := max(time.Until(end).Milliseconds(), 0)
		ok, _, callErr := procEvtNext.Call(result, 1, uintptr(unsafe.Pointer(&event)), uintptr(wait), 0, uintptr(unsafe.Pointer(&got)))
		switch {
		case ok != 0 && got == 1:
		case errors.Is(callErr, windows.ERROR_NO_MORE_ITEMS):
			return nil
		default:
			return fmt.Errorf("read the log %s: %w", channel, callErr)
		}
		text, err := h.render(event)
		if err = errors.Join(err, closeHandle(event)); err != nil {
			return fmt.Errorf("read an event of the log %s: %w", channel, err)
		}
		e, err := Parse(text)
		if err != nil || !wanted(e) { // what is not an event as we know it belongs to nobody whom we ask
			continue
		}
		h.left -= len(text)
		log.Events = append(log.Events, e)
	}
}

// render gives an event's XML; an event that is larger than any of ours gives none.
func (h *harvester) render(event uintptr) (string, error) {
	var used, properties uint32
	ok, _, callErr := procEvtRender.Call(0, event, evtRenderEventXML, uintptr(2*len(h.buffer)), uintptr(unsafe.Pointer(&h.buffer[0])),
		uintptr(unsafe.Pointer(&used)), uintptr(unsafe.Pointer(&properties)))
	switch {
	case ok != 0:
		return windows.UTF16ToString(h.buffer[:min(int(used/2), len(h.buffer))]), nil
	case errors.Is(callErr, windows.ERROR_INSUFFICIENT_BUFFER):
		return "", nil
	}
	return "", callErr
}

func closeHandle(h uintptr) error {
	if ok, _, err := procEvtClose.Call(h); ok == 0 {
		return fmt.Errorf("close a handle of the event log: %w", err)
	}
	return nil
}
