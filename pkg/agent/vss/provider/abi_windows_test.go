package provider

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// header is what mingw-w64's headers say (abi.exe of testing/cpp).
type header struct {
	Interfaces map[string]struct {
		IID   string
		Slots map[string]int
	}
	Classes map[string]struct{ ID string }
	Enums   map[string]int
}

// TestABI compares the methods and ids of this package with what a C++ compiler made of the headers. The lab runs it.
func TestABI(t *testing.T) {
	raw, err := os.ReadFile(`C:\lab\abi.json`)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("nobody has written the headers' numbers")
	}
	var h header
	if err := errors.Join(err, json.Unmarshal(raw, &h)); err != nil {
		t.Fatal(err)
	}
	software, createSet := softwareMethods(), createSetMethods()
	for name, methods := range map[string][]any{
		"IVssSoftwareSnapshotProvider":  software[:],
		"IVssProviderCreateSnapshotSet": createSet[:],
		"IVssProviderNotifications":     {onLoad, onUnload},
		"IVssEnumObject":                {enumNext, enumSkip, enumReset, enumClone},
		"IClassFactory":                 {createInstance, lockServer},
	} {
		if got := len(h.Interfaces[name].Slots); got != len(methods) {
			t.Errorf("%s has %d methods here, %d in the headers", name, len(methods), got)
		}
		for i, m := range methods {
			full := runtime.FuncForPC(reflect.ValueOf(m).Pointer()).Name()
			method := strings.TrimPrefix(full[strings.LastIndex(full, ".")+1:], "enum")
			slot := -1
			for name, s := range h.Interfaces[name].Slots {
				if strings.EqualFold(name, method) {
					slot = s
				}
			}
			if slot != 3+i {
				t.Errorf("%s.%s is in slot %d here, %d in the headers", name, method, 3+i, slot)
			}
		}
	}
	for name, iid := range map[string]com.GUID{
		"IUnknown": iidUnknown, "IClassFactory": iidClassFactory, "IVssSoftwareSnapshotProvider": iidSoftware, "IVssProviderCreateSnapshotSet": iidCreateSet,
		"IVssProviderNotifications": iidNotifications, "IVssEnumObject": iidEnumObject, "IVssAdmin": iidAdmin,
	} {
		if h.Interfaces[name].IID != iid.String() {
			t.Errorf("%s is %s here, %s in the headers", name, iid, h.Interfaces[name].IID)
		}
	}
	admin := h.Interfaces["IVssAdmin"].Slots
	if admin["RegisterProvider"] != slotRegisterProvider || admin["UnregisterProvider"] != slotUnregisterProvider {
		t.Errorf("IVssAdmin has %v", admin)
	}
	if got := h.Classes["VSSCoordinator"].ID; got != classCoordinator.String() || h.Enums["VSS_PROV_SOFTWARE"] != vsscode.SoftwareProvider {
		t.Errorf("the coordinator is %s, a software provider %d", got, h.Enums["VSS_PROV_SOFTWARE"])
	}
}

// TestFaces asks the provider for its interfaces as COM does, through the tables.
func TestFaces(t *testing.T) {
	makeTables()
	served.CompareAndSwap(nil, New())
	object := (*com.Object)(unsafe.Pointer(&factory))
	var p *com.Object
	const slotCreateInstance = 3
	if hr := object.Call(slotCreateInstance, 0, uintptr(unsafe.Pointer(&iidUnknown)), uintptr(unsafe.Pointer(&p))); hr != 0 || p == nil {
		t.Fatalf("CreateInstance = %08x", hr)
	}
	defer p.Release()
	for _, iid := range []com.GUID{iidSoftware, iidCreateSet, iidNotifications} {
		face := p.Query(iid)
		if face == nil {
			t.Fatalf("no %s", iid)
		}
		if same := face.Query(iidUnknown); same != p {
			t.Errorf("IUnknown of %s is another object", iid)
		} else {
			same.Release()
		}
		face.Release()
	}
	if face := p.Query(iidEnumObject); face != nil {
		t.Error("the provider is an enumerator")
	}
	var list *com.Object
	if hr := p.Call(5, uintptr(unsafe.Pointer(&com.GUID{})), 1, 3, uintptr(unsafe.Pointer(&list))); hr != 0 || list == nil {
		t.Fatalf("Query = %08x", hr)
	}
	defer list.Release()
	fetched := uint32(7)
	if hr := list.Call(3, 1, 0, uintptr(unsafe.Pointer(&fetched))); vsscode.HRESULT(hr) != vsscode.S_FALSE || fetched != 0 {
		t.Errorf("Next = %08x with %d", hr, fetched)
	}
	var supported int32 = 7
	name := [...]uint16{'C', ':', '\\', 0}
	if hr := p.Call(8, uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&supported))); hr != 0 || supported != 0 {
		t.Errorf("IsVolumeSupported = %08x, %d", hr, supported)
	}
	set := com.MustGUID("00000000-0000-0000-0000-0000000000cc")
	create := p.Query(iidCreateSet)
	defer create.Release()
	if hr := create.Call(5, uintptr(unsafe.Pointer(&set))); vsscode.HRESULT(hr) != vsscode.VSS_E_OBJECT_NOT_FOUND {
		t.Errorf("CommitSnapshots of a set that is not armed = %08x", hr)
	}
	if hr := create.Call(9, uintptr(unsafe.Pointer(&set))); hr != 0 {
		t.Errorf("AbortSnapshots of a set that is not armed = %08x", hr)
	}
}

// TestPanicIsAVeto has a callback panic.
func TestPanicIsAVeto(t *testing.T) {
	served.CompareAndSwap(nil, New())
	if hr := answer("test", func(*Provider) vsscode.HRESULT { panic("test") }); vsscode.HRESULT(hr) != vsscode.VSS_E_PROVIDER_VETO {
		t.Errorf("a callback that panicked answers %08x", hr)
	}
}
