package provider

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// Method counts of the interfaces, IUnknown's three included (vsprov.h, vss.h, unknwn.h).
const (
	softwareSlots      = 13
	createSetSlots     = 10
	notificationsSlots = 5
	enumSlots          = 7
	factorySlots       = 5
)

// The interfaces (vsprov.h, vss.h, unknwn.h).
var (
	iidUnknown       = com.MustGUID("00000000-0000-0000-c000-000000000046")
	iidClassFactory  = com.MustGUID("00000001-0000-0000-c000-000000000046")
	iidSoftware      = com.MustGUID("609e123e-2c5a-44d3-8f01-0b1d9a47d1ff")
	iidCreateSet     = com.MustGUID("5f894e5b-1e39-4778-8e23-9abad9f0e08c")
	iidNotifications = com.MustGUID("e561901f-03a5-4afe-86d0-72baeece7004")
	iidEnumObject    = com.MustGUID("ae1c7110-2f60-11d3-8a39-00c04f72d8e3")
)

// face is one interface of an object as COM sees it: a pointer to a table of methods. Faces and tables live as long as
// the process, so other processes' references can never outlive them.
type face struct{ table unsafe.Pointer }

// The provider's faces, its enumerator and its factory. References are counted together and never free anything.
var (
	software, createSet, notifications, enum, factory face

	softwareTable      [softwareSlots]uintptr
	createSetTable     [createSetSlots]uintptr
	notificationsTable [notificationsSlots]uintptr
	enumTable          [enumSlots]uintptr
	factoryTable       [factorySlots]uintptr

	references atomic.Int32
	// served is the one Provider of this process, behind all faces.
	served atomic.Pointer[Provider]
)

// makeTables makes the methods' callbacks, once: the system gives a process about 2000 and takes none back.
var makeTables = sync.OnceFunc(func() {
	addRef, release := syscall.NewCallback(addRef), syscall.NewCallback(release)
	query := syscall.NewCallback(queryProvider)
	softwareTable = [softwareSlots]uintptr{query, addRef, release}
	for i, method := range softwareMethods() {
		softwareTable[3+i] = syscall.NewCallback(method)
	}
	createSetTable = [createSetSlots]uintptr{query, addRef, release}
	for i, method := range createSetMethods() {
		createSetTable[3+i] = syscall.NewCallback(method)
	}
	notificationsTable = [notificationsSlots]uintptr{query, addRef, release, syscall.NewCallback(onLoad), syscall.NewCallback(onUnload)}
	enumTable = [enumSlots]uintptr{
		syscall.NewCallback(queryEnum), addRef, release,
		syscall.NewCallback(enumNext), syscall.NewCallback(enumSkip), syscall.NewCallback(enumReset), syscall.NewCallback(enumClone),
	}
	factoryTable = [factorySlots]uintptr{
		syscall.NewCallback(queryFactory), addRef, release, syscall.NewCallback(createInstance), syscall.NewCallback(lockServer),
	}
	software.table, createSet.table = unsafe.Pointer(&softwareTable), unsafe.Pointer(&createSetTable)
	notifications.table, enum.table = unsafe.Pointer(&notificationsTable), unsafe.Pointer(&enumTable)
	factory.table = unsafe.Pointer(&factoryTable)
})

func addRef(*face) uintptr { return uintptr(references.Add(1)) }

func release(*face) uintptr { return uintptr(max(references.Add(-1), 0)) }

// give answers QueryInterface with f, or with nothing.
func give(f *face, out **face) uintptr {
	if out == nil {
		return uintptr(vsscode.E_POINTER)
	}
	*out = f
	if f == nil {
		return uintptr(vsscode.E_NOINTERFACE)
	}
	references.Add(1)
	return uintptr(vsscode.S_OK)
}

func queryProvider(_ *face, iid *com.GUID, out **face) uintptr {
	switch *iid {
	case iidUnknown, iidSoftware: // the same face for IUnknown, always: that is the object's identity
		return give(&software, out)
	case iidCreateSet:
		return give(&createSet, out)
	case iidNotifications:
		return give(&notifications, out)
	}
	return give(nil, out)
}

func queryEnum(_ *face, iid *com.GUID, out **face) uintptr {
	if *iid == iidUnknown || *iid == iidEnumObject {
		return give(&enum, out)
	}
	return give(nil, out)
}

func queryFactory(_ *face, iid *com.GUID, out **face) uintptr {
	if *iid == iidUnknown || *iid == iidClassFactory {
		return give(&factory, out)
	}
	return give(nil, out)
}

func createInstance(_ *face, outer unsafe.Pointer, iid *com.GUID, out **face) uintptr {
	if outer != nil {
		return uintptr(vsscode.CLASS_E_NOAGGREGATION)
	}
	return queryProvider(&software, iid, out)
}

func lockServer(*face, int32) uintptr { return uintptr(vsscode.S_OK) }

// answer runs one callback of VSS. A panic in it is a veto: it must not unwind into COM, and the set must not succeed.
func answer(what string, call func(*Provider) vsscode.HRESULT) (hr uintptr) {
	p := served.Load()
	defer func() {
		if recover() != nil {
			hr = uintptr(p.answer(what+": panic", vsscode.VSS_E_PROVIDER_VETO))
		}
	}()
	return uintptr(call(p))
}
