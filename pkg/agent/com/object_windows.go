package com

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// The methods of IUnknown (unknwn.h).
const (
	slotQueryInterface = 0
	slotRelease        = 2
)

// maxSlots is more than any table has that is called here (IVssBackupComponentsEx4: 65).
const maxSlots = 80

// Object is somebody else's COM object. It stays on the thread that got it and is released by exactly one defer.
type Object struct{ table *[maxSlots]uintptr }

// Call calls the method in slot of the object's table and gives its HRESULT. Pointers are converted in the call
// expression, as unsafe.Pointer demands; what they point to outlives the call.
//
//go:uintptrescapes
func (o *Object) Call(slot int, args ...uintptr) uint32 {
	all := append([]uintptr{uintptr(unsafe.Pointer(o))}, args...)
	hr, _, _ := syscall.SyscallN(o.table[slot], all...) //nolint:errcheck // GetLastError means nothing after a COM call
	runtime.KeepAlive(o)
	return uint32(hr)
}

// Query asks the object for another of its interfaces; the caller releases it. It gives nil for what it has not.
func (o *Object) Query(iid GUID) *Object {
	var other *Object
	if hr := o.Call(slotQueryInterface, uintptr(unsafe.Pointer(&iid)), uintptr(unsafe.Pointer(&other))); hr != 0 {
		return nil
	}
	return other
}

// Release gives the object back; nil is fine.
func (o *Object) Release() {
	if o != nil {
		o.Call(slotRelease)
	}
}

// Contexts in which a class runs (wtypesbase.h, CLSCTX).
const (
	localServer = 0x4
	// anyServer is CLSCTX_ALL: in this process, in a handler, in a local or a remote server.
	anyServer = 0x17
)

// Create makes an object of a class, wherever the class lives; the caller releases it.
func Create(clsid, iid GUID) (*Object, error) {
	var o *Object
	if hr := coCreateInstance(&clsid, 0, anyServer, &iid, &o); hr != 0 {
		return nil, &Error{Op: "create an object of class " + clsid.Braced(), HRESULT: hr}
	}
	return o, nil
}

// Error is a refusal of COM.
type Error struct {
	Op string
	// HRESULT is the result as it came.
	HRESULT uint32
}

func (e *Error) Error() string { return fmt.Sprintf("%s: HRESULT 0x%08x", e.Op, e.HRESULT) }
