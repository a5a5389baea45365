package com

import (
	"errors"
	"runtime"
	"unsafe"
)

const (
	multithreaded = 0 // COINIT_MULTITHREADED (objbase.h)
	sFalse        = 1 // S_FALSE: this thread was in the apartment already; CoUninitialize is due all the same
)

// Enter locks the goroutine to its thread and puts that into the multithreaded apartment, where a call that blocks keeps
// no other waiting. The caller calls leave on the same goroutine.
func Enter() (leave func(), err error) {
	runtime.LockOSThread()
	if hr := coInitializeEx(0, multithreaded); hr != 0 && hr != sFalse {
		runtime.UnlockOSThread()
		return nil, &Error{Op: "enter the multithreaded apartment", HRESULT: hr}
	}
	return func() {
		coUninitialize()
		runtime.UnlockOSThread()
	}, nil
}

var (
	// classGlobalOptions and iidGlobalOptions: objidl.h.
	classGlobalOptions = MustGUID("0000034b-0000-0000-c000-000000000046")
	iidGlobalOptions   = MustGUID("0000015b-0000-0000-c000-000000000046")
)

const (
	slotGlobalOptionsSet = 3 // IGlobalOptions::Set (objidl.h)
	exceptionHandling    = 1 // COMGLB_EXCEPTION_HANDLING
	doNotHandle          = 1 // COMGLB_EXCEPTION_DONOT_HANDLE
)

// FailOnFault tells COM not to swallow a fault in a callback: a process that faulted while it holds a guest must die,
// because its death releases the guest. A system without the option keeps its default.
func FailOnFault() error {
	o, err := Create(classGlobalOptions, iidGlobalOptions)
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) && (refused.HRESULT == classNotRegistered || refused.HRESULT == noInterface) {
			return nil
		}
		return err
	}
	defer o.Release()
	if hr := o.Call(slotGlobalOptionsSet, exceptionHandling, doNotHandle); hr != 0 {
		return &Error{Op: "set COMGLB_EXCEPTION_HANDLING", HRESULT: hr}
	}
	return nil
}

// Results that are no failure where they are expected (winerror.h).
const (
	classNotRegistered  = 0x80040154 // REGDB_E_CLASSNOTREG
	noInterface         = 0x80004002 // E_NOINTERFACE
	wrongServerIdentity = 0x80004015 // CO_E_WRONG_SERVER_IDENTITY: the service is stopping
)

// Flags of CoRegisterClassObject (combaseapi.h, REGCLS).
const (
	multipleUse = 1
	suspended   = 4
)

// ErrStopping is given by Serve while the service that owns the class is stopping.
var ErrStopping = errors.New("the service of this class is stopping")

// Serve offers the class of factory, a pointer to an object of ours with the methods of IClassFactory, to other
// processes, until revoke is called on the same thread.
func Serve(clsid GUID, factory unsafe.Pointer) (revoke func() error, err error) {
	var cookie uint32
	switch hr := coRegisterClassObject(&clsid, factory, localServer, multipleUse|suspended, &cookie); hr {
	case 0:
	case wrongServerIdentity:
		return nil, ErrStopping
	default:
		return nil, &Error{Op: "register the class " + clsid.Braced(), HRESULT: hr}
	}
	revoke = func() error {
		if hr := coRevokeClassObject(cookie); hr != 0 {
			return &Error{Op: "revoke the class " + clsid.Braced(), HRESULT: hr}
		}
		return nil
	}
	if hr := coResumeClassObjects(); hr != 0 {
		return nil, errors.Join(&Error{Op: "resume the class " + clsid.Braced(), HRESULT: hr}, revoke())
	}
	return revoke, nil
}
