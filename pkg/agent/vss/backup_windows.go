package vss

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// The methods of IVssBackupComponents (vsbackup.h), and of IVssBackupComponentsEx3.
const (
	slotInitializeForBackup    = 5
	slotSetBackupState         = 6
	slotGatherWriterMetadata   = 9
	slotGetWriterMetadataCount = 10
	slotGetWriterMetadata      = 11
	slotFreeWriterMetadata     = 12
	slotAddComponent           = 13
	slotPrepareForBackup       = 14
	slotAbortBackup            = 15
	slotGatherWriterStatus     = 16
	slotGetWriterStatusCount   = 17
	slotFreeWriterStatus       = 18
	slotGetWriterStatus        = 19
	slotSetBackupSucceeded     = 20
	slotBackupComplete         = 27
	slotSetContext             = 35
	slotStartSnapshotSet       = 36
	slotAddToSnapshotSet       = 37
	slotDoSnapshotSet          = 38
	slotDisableWriterClasses   = 45
	slotGetWriterStatusEx      = 60
)

// The methods of IVssAsync (vss.h).
const (
	slotCancel      = 3
	slotWait        = 4
	slotQueryStatus = 5
)

var iidBackupComponentsEx3 = com.MustGUID("c191bfbc-b602-4675-8bd1-67d642f529d5") // vsbackup.h

// backup is IVssBackupComponents. It is made, used and released on one thread, and never used again after its end.
type backup struct {
	object *com.Object
	// ex3 is the same object, which tells more of the writers' status since Windows 7; nil before.
	ex3 *com.Object
}

// The names under which vssapi.dll exports the maker of IVssBackupComponents: newer ones, then the one of vsbackup.h's
// inline function.
var makers = [...]string{"CreateVssBackupComponentsInternal", "?CreateVssBackupComponents@@YAJPEAPEAVIVssBackupComponents@@@Z"}

var vssapi = windows.NewLazySystemDLL("vssapi.dll")

func openBackup() (*backup, error) {
	var errs []error
	for _, name := range makers {
		maker := vssapi.NewProc(name)
		if err := maker.Find(); err != nil {
			errs = append(errs, err)
			continue
		}
		b := new(backup)
		hr, _, _ := maker.Call(uintptr(unsafe.Pointer(&b.object))) //nolint:errcheck // GetLastError means nothing after a COM call
		if vsscode.HRESULT(hr).Failed() {
			return nil, fmt.Errorf("open a backup session: %w", vsscode.HRESULT(hr))
		}
		b.ex3 = b.object.Query(iidBackupComponentsEx3)
		return b, nil
	}
	return nil, fmt.Errorf("open a backup session: %w", errors.Join(errs...))
}

func (b *backup) release() {
	b.ex3.Release()
	b.object.Release()
	b.object, b.ex3 = nil, nil
}

// call calls a method and gives a failure as an error with its HRESULT. Operation is a verb phrase.
//
//go:uintptrescapes
func (b *backup) call(operation string, slot int, args ...uintptr) error {
	return result(operation, b.object.Call(slot, args...))
}

func result(operation string, hr uint32) error {
	if h := vsscode.HRESULT(hr); h.Failed() {
		return fmt.Errorf("%s: %w", operation, h)
	}
	return nil
}

func flag(b bool) uintptr {
	if b {
		return 1
	}
	return 0
}

// begin makes the session a backup of chosen components, in the first context that this edition of Windows has.
func (b *backup) begin(kind vsscode.BackupType) error {
	const selects, bootable, partial = true, false, false
	if err := b.call("set the backup's type", slotSetBackupState, flag(selects), flag(bootable), uintptr(kind), flag(partial)); err != nil {
		return err
	}
	err := b.call("set the context", slotSetContext, uintptr(vsscode.ServerContext))
	if errors.Is(err, vsscode.VSS_E_UNSUPPORTED_CONTEXT) {
		err = b.call("set the context of a client edition", slotSetContext, uintptr(vsscode.ClientContext))
	}
	return err
}

func (b *backup) disable(classes []com.GUID) error {
	if len(classes) == 0 {
		return nil
	}
	return b.call("disable writers", slotDisableWriterClasses, uintptr(unsafe.Pointer(&classes[0])), uintptr(len(classes)))
}

// add names a component to VSS; one that is there already is fine.
func (b *backup) add(w writer, c component) error {
	path, name, err := logical(c)
	if err != nil {
		return err
	}
	err = b.call(fmt.Sprintf("add component %s of %s", c.key(), w.name), slotAddComponent, uintptr(unsafe.Pointer(&w.instance)),
		uintptr(unsafe.Pointer(&w.class)), uintptr(c.kind), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(name)))
	if errors.Is(err, vsscode.VSS_E_OBJECT_ALREADY_EXISTS) {
		return nil
	}
	return err
}

func (b *backup) succeed(w writer, c component, ok bool) error {
	path, name, err := logical(c)
	if err != nil {
		return err
	}
	return b.call(fmt.Sprintf("tell how %s of %s went", c.key(), w.name), slotSetBackupSucceeded, uintptr(unsafe.Pointer(&w.instance)),
		uintptr(unsafe.Pointer(&w.class)), uintptr(c.kind), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(name)), flag(ok))
}

// logical gives the names of a component as VSS takes them: no path at all for an empty one.
func logical(c component) (path, name *uint16, err error) {
	if name, err = windows.UTF16PtrFromString(c.name); err != nil || c.path == "" {
		return nil, name, err
	}
	path, err = windows.UTF16PtrFromString(c.path)
	return path, name, err
}

func (b *backup) startSet() (set com.GUID, err error) {
	err = b.call("start a shadow copy set", slotStartSnapshotSet, uintptr(unsafe.Pointer(&set)))
	return set, err
}

// addVolume adds a volume to the set, with the provider named: VSS would choose another.
func (b *backup) addVolume(volume string, provider com.GUID) error {
	name, err := windows.UTF16PtrFromString(volume)
	if err != nil {
		return err
	}
	var snapshot com.GUID
	return b.call("add volume "+volume, slotAddToSnapshotSet, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&provider)),
		uintptr(unsafe.Pointer(&snapshot)))
}

// status reads what GatherWriterStatus brought.
func (b *backup) status() ([]status, error) {
	var count uint32
	if err := b.call("count the writers' statuses", slotGetWriterStatusCount, uintptr(unsafe.Pointer(&count))); err != nil {
		return nil, err
	}
	all := make([]status, 0, count)
	for i := range count {
		var s status
		var name, message *uint16
		var err error
		if b.ex3 != nil {
			err = result("read a writer's status", b.ex3.Call(slotGetWriterStatusEx, uintptr(i), uintptr(unsafe.Pointer(&s.instance)),
				uintptr(unsafe.Pointer(&s.class)), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&s.state)),
				uintptr(unsafe.Pointer(&s.failure)), uintptr(unsafe.Pointer(&s.application)), uintptr(unsafe.Pointer(&message))))
		} else {
			err = b.call("read a writer's status", slotGetWriterStatus, uintptr(i), uintptr(unsafe.Pointer(&s.instance)),
				uintptr(unsafe.Pointer(&s.class)), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&s.state)), uintptr(unsafe.Pointer(&s.failure)))
		}
		s.name, s.message = com.TakeString(name), com.TakeString(message)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// async is a call of VSS that goes on by itself. It is released by end.
type async struct {
	object    *com.Object
	operation string
}

func (b *backup) start(operation string, slot int) (*async, error) {
	a := &async{operation: operation}
	if err := b.call(operation, slot, uintptr(unsafe.Pointer(&a.object))); err != nil {
		return nil, err
	}
	return a, nil
}

// look waits a moment and says how the call stands: pending, or the HRESULT it ended with.
func (a *async) look() vsscode.HRESULT {
	if hr := vsscode.HRESULT(a.object.Call(slotWait, poll)); hr.Failed() {
		return hr // whoever ran the call is gone
	}
	var state vsscode.HRESULT
	if hr := vsscode.HRESULT(a.object.Call(slotQueryStatus, uintptr(unsafe.Pointer(&state)), 0)); hr.Failed() {
		return hr
	}
	return state
}

// cancel asks for an early end, which look tells of. A call that has ended already is as well.
func (a *async) cancel() error { return result("cancel: "+a.operation, a.object.Call(slotCancel)) }

func (a *async) end() { a.object.Release() }
