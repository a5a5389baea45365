package svcctl

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// handle is a context handle; the zero handle is none.
type handle [20]byte

// object is what a handle stands for: the manager, or the service of that name.
type object struct {
	manager bool
	service string
	access  uint32
}

// Rights of handles (MS-SCMR 3.1.4).
const (
	rightCreate, rightEnumerate                     = 0x2, 0x4
	rightConfig, rightStatus, rightStart, rightStop = 0x1, 0x4, 0x10, 0x20
	rightDelete                                     = 0x10000
	maximumAllowed, genericAll                      = 0x02000000, 0x10000000
)

// What a service of ours is (winsvc.h).
const (
	ownProcess, demandStart = 0x10, 3
	controlStop             = 1
)

// call is one call of the interface: it reads its request and gives the reply without the number of Windows at its end.
// refused is a number that it is to answer with before anything was done.
type call struct {
	name Call
	do   func(c *conversation, r *request, refused Win32) (out stub, about string, err error)
}

// calls are those of MS-SCMR 3.1.4 that the lab has, by their numbers.
var calls = map[uint16]call{
	0:  {CloseHandle, (*conversation).closeHandle},
	1:  {ControlService, (*conversation).control},
	2:  {DeleteService, (*conversation).deleteService},
	6:  {QueryStatus, (*conversation).queryStatus},
	12: {CreateService, (*conversation).createService},
	14: {EnumServicesStatus, (*conversation).enumerate},
	15: {OpenSCManager, (*conversation).openManager},
	16: {OpenService, (*conversation).openService},
	17: {QueryConfig, (*conversation).queryConfig},
	19: {StartService, (*conversation).startService},
	40: {QueryStatusEx, (*conversation).queryStatusEx},
}

// make makes a call, unless the fault refuses it.
func (c *conversation) make(call call, r *request, f *Fault) (stub, Record) {
	refused := Win32(0)
	if f != nil && f.Effect == Refuse {
		refused = f.Win32
	}
	out, about, err := call.do(c, r, refused)
	number := Win32(0)
	if err != nil && !errors.As(err, &number) {
		number = ERROR_GEN_FAILURE // the guest does not answer
	}
	return out.number(uint32(number)), Record{Call: call.name, Service: about, Account: c.pipe.account, Win32: number}
}

// open makes a handle.
func (c *conversation) open(o object) handle {
	var h handle
	rand.Read(h[4:])
	c.handles[h] = o
	return h
}

// manager finds a handle of the manager with rights.
func (c *conversation) manager(h handle, rights uint32) error {
	o, ok := c.handles[h]
	switch {
	case !ok || !o.manager:
		return ERROR_INVALID_HANDLE
	case !o.may(rights):
		return ERROR_ACCESS_DENIED
	}
	return nil
}

// service finds the service of a handle with rights.
func (c *conversation) service(h handle, rights uint32) (string, error) {
	o, ok := c.handles[h]
	switch {
	case !ok || o.manager:
		return "", ERROR_INVALID_HANDLE
	case !o.may(rights):
		return o.service, ERROR_ACCESS_DENIED
	}
	return o.service, nil
}

func (o object) may(rights uint32) bool {
	return o.access&(maximumAllowed|genericAll) != 0 || o.access&rights == rights
}

// firstOf is the number that refuses a call, or the error that it found by itself, or nil.
func firstOf(refused Win32, err error) error {
	if refused != 0 {
		return refused
	}
	return err
}

func (c *conversation) openManager(r *request, refused Win32) (stub, string, error) {
	r.pointedText() // whose
	r.pointedText() // which database
	access := r.number()
	err := firstOf(refused, nil)
	if err == nil && c.server.ordinary(c.pipe.account) {
		err = ERROR_ACCESS_DENIED
	}
	if err != nil || r.bad {
		return stub{}.handle(handle{}), "", err
	}
	return stub{}.handle(c.open(object{manager: true, access: access})), "", nil
}

func (c *conversation) openService(r *request, refused Win32) (stub, string, error) {
	h, name, access := r.handle(), r.text(), r.number()
	err := firstOf(refused, c.manager(h, 0))
	if err == nil && !r.bad {
		_, err = c.server.options.Services.Query(name)
	}
	if err != nil || r.bad {
		return stub{}.handle(handle{}), name, err
	}
	return stub{}.handle(c.open(object{service: name, access: access})), name, nil
}

func (c *conversation) createService(r *request, refused Win32) (stub, string, error) {
	h, name, display, access := r.handle(), r.text(), r.pointedText(), r.number()
	kind, start, control, path := r.number(), r.number(), r.number(), r.text()
	group := r.pointedText()
	tag := r.number()
	if tag != 0 {
		r.number()
	}
	r.pointedBytes() // dependencies
	r.number()
	account := r.pointedText()
	r.pointedBytes() // password
	r.number()
	err := firstOf(refused, c.manager(h, rightCreate))
	if err == nil && (kind != ownProcess || start != demandStart || control > 1 || group != "" || account != "" && account != "LocalSystem") {
		err = ERROR_INVALID_PARAMETER // more than Services can do
	}
	if err == nil && !r.bad {
		err = c.server.options.Services.Create(name, display, splice(path, c.server.words(name)))
	}
	if err != nil || r.bad {
		return stub{}.number(0).handle(handle{}), name, err
	}
	return stub{}.number(0).handle(c.open(object{service: name, access: access})), name, nil
}

func (c *conversation) startService(r *request, refused Win32) (stub, string, error) {
	h, argc, argv := r.handle(), r.number(), r.number()
	name, err := c.service(h, rightStart)
	if err = firstOf(refused, err); err == nil && (argc != 0 || argv != 0) {
		err = ERROR_INVALID_PARAMETER // Services.Start has no arguments
	}
	if err == nil && !r.bad {
		err = c.server.options.Services.Start(name)
	}
	return nil, name, err
}

func (c *conversation) control(r *request, refused Win32) (stub, string, error) {
	h, what := r.handle(), r.number()
	name, err := c.service(h, rightStop)
	if err = firstOf(refused, err); err == nil && what != controlStop {
		err = ERROR_INVALID_PARAMETER
	}
	var status Status
	if err == nil && !r.bad {
		if err = c.server.options.Services.Stop(name); err == nil {
			status, err = c.server.options.Services.Query(name)
		}
	}
	return stub{}.number(status.seven()...), name, err
}

func (c *conversation) deleteService(r *request, refused Win32) (stub, string, error) {
	name, err := c.service(r.handle(), rightDelete)
	if err = firstOf(refused, err); err == nil && !r.bad {
		err = c.server.options.Services.Delete(name)
	}
	return nil, name, err
}

func (c *conversation) closeHandle(r *request, refused Win32) (stub, string, error) {
	h := r.handle()
	o, ok := c.handles[h]
	if err := firstOf(refused, nil); err != nil {
		return stub{}.handle(h), o.service, err
	}
	if !ok {
		return stub{}.handle(h), "", ERROR_INVALID_HANDLE
	}
	delete(c.handles, h)
	return stub{}.handle(handle{}), o.service, nil
}

func (c *conversation) queryStatus(r *request, refused Win32) (stub, string, error) {
	name, status, err := c.status(r, refused)
	return stub{}.number(status.seven()...), name, err
}

func (c *conversation) status(r *request, refused Win32) (name string, status Status, err error) {
	name, err = c.service(r.handle(), rightStatus)
	if err = firstOf(refused, err); err == nil && !r.bad {
		status, err = c.server.options.Services.Query(name)
	}
	return name, status, err
}

func (c *conversation) queryStatusEx(r *request, refused Win32) (stub, string, error) {
	name, status, err := c.status(r, refused)
	level, size := r.number(), r.number()
	const needed = 36
	switch {
	case size > 8<<10: // the range of MS-SCMR 3.1.4.24
		r.bad = true
		return nil, name, nil
	case err == nil && level != 0:
		err = ERROR_INVALID_LEVEL
	case err == nil && size < needed:
		err = ERROR_INSUFFICIENT_BUFFER
	}
	if err != nil {
		return stub{}.bytes(nil, int(size)).number(needed), name, err
	}
	return stub{}.bytes(stub{}.number(append(status.seven(), status.PID, status.Flags)...), int(size)).number(needed), name, nil
}

// seven are the fields of a SERVICE_STATUS.
func (s Status) seven() []uint32 {
	return []uint32{s.Type, s.State, s.Accepted, s.Win32Exit, s.SpecificExit, s.CheckPoint, s.WaitHint}
}

func (c *conversation) queryConfig(r *request, refused Win32) (stub, string, error) {
	h, size := r.handle(), r.number()
	name, err := c.service(h, rightConfig)
	var config Config
	if err = firstOf(refused, err); err == nil && !r.bad {
		config, err = c.server.options.Services.Config(name)
	}
	config.Path = withoutWords(config.Path)
	const fixed = 64 // QUERY_SERVICE_CONFIGW of a 64-bit Windows
	needed := uint32(fixed + len(wide(config.Path)) + len(wide(config.Account)) + len(wide(config.Display)) + 4)
	if err == nil && size < needed {
		err = ERROR_INSUFFICIENT_BUFFER
	}
	if err != nil {
		return stub{}.number(0, 0, 0, 0, 0, 0, 0, 0, 0).number(needed), name, err
	}
	out := stub{}.number(config.Type, config.Start, config.ErrorControl, 1, 2, 0, 3, 4, 5)
	out = out.text(config.Path).text("").text("").text(config.Account).text(config.Display)
	return out.number(needed), name, nil
}

func (c *conversation) enumerate(r *request, refused Win32) (stub, string, error) {
	h, types, states, size := r.handle(), r.number(), r.number(), r.number()
	resume := uint32(0)
	if r.number() != 0 {
		resume = r.number()
	}
	if size > 256<<10 { // the range of MS-SCMR 3.1.4.15
		r.bad = true
		return nil, "", nil
	}
	var all []Entry
	err := firstOf(refused, c.manager(h, rightEnumerate))
	if err == nil && !r.bad {
		all, err = c.server.options.Services.List()
	}
	if err != nil || r.bad {
		return stub{}.bytes(nil, int(size)).number(0, 0, 1, 0), "", err
	}
	var asked []Entry
	for _, e := range all {
		state := uint32(1) // SERVICE_ACTIVE
		if e.Status.State == stopped {
			state = 2 // SERVICE_INACTIVE
		}
		if e.Status.Type&types != 0 && states&state != 0 {
			asked = append(asked, e)
		}
	}
	slices.SortStableFunc(asked, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	asked = asked[min(int(resume), len(asked)):]
	buffer, fit, needed := list(asked, int(size))
	next := uint32(0)
	if fit < len(asked) {
		err, next = ERROR_MORE_DATA, resume+uint32(fit)
	}
	return stub{}.bytes(buffer, int(size)).number(uint32(needed), uint32(fit), 1, next), "", err
}

// list lays out as many entries as fit into size bytes; needed is what the others want.
func list(entries []Entry, size int) (buffer []byte, fit, needed int) {
	const fixed = 36 // two offsets and a SERVICE_STATUS
	used := 0
	for _, e := range entries {
		one := fixed + len(wide(e.Name)) + len(wide(e.Display))
		if needed == 0 && used+one <= size {
			used, fit = used+one, fit+1
			continue
		}
		needed += one
	}
	buffer = make([]byte, fixed*fit, max(used, 1))
	for i, e := range entries[:fit] {
		at := buffer[i*fixed:]
		binary.LittleEndian.PutUint32(at, uint32(len(buffer)))
		buffer = append(buffer, wide(e.Name)...)
		binary.LittleEndian.PutUint32(at[4:], uint32(len(buffer)))
		buffer = append(buffer, wide(e.Display)...)
		for j, n := range e.Status.seven() {
			binary.LittleEndian.PutUint32(at[8+4*j:], n)
		}
	}
	return buffer, fit, needed
}
