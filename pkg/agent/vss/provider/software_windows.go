package provider

import (
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// softwareMethods are those of IVssSoftwareSnapshotProvider, in the order of vsprov.h, after IUnknown's. Parameters of 32
// bits arrive with a dirty upper half, so they have their true type; GUIDs and VARIANTs by value arrive as pointers.
func softwareMethods() [softwareSlots - 3]any {
	return [...]any{
		setContext, getSnapshotProperties, query, deleteSnapshots, beginPrepareSnapshot, isVolumeSupported,
		isVolumeSnapshotted, setSnapshotProperty, revertToSnapshot, queryRevertStatus,
	}
}

func setContext(_ *face, _ uint32) uintptr {
	return answer("SetContext", func(p *Provider) vsscode.HRESULT { return p.answer("SetContext", vsscode.S_OK) })
}

// getSnapshotProperties knows no shadow copy: this provider makes none.
func getSnapshotProperties(_ *face, _ *com.GUID, _ unsafe.Pointer) uintptr {
	return uintptr(vsscode.VSS_E_OBJECT_NOT_FOUND)
}

// query gives an empty list, so that listing the shadow copies of the machine goes on working.
func query(_ *face, _ *com.GUID, _, _ uint32, out **face) uintptr { return give(&enum, out) }

func deleteSnapshots(_ *face, id *com.GUID, _ uint32, _ int32, deleted *int32, kept *com.GUID) uintptr {
	if deleted == nil || kept == nil {
		return uintptr(vsscode.E_POINTER)
	}
	*deleted, *kept = 0, *id
	return uintptr(vsscode.VSS_E_OBJECT_NOT_FOUND)
}

func beginPrepareSnapshot(_ *face, set, _ *com.GUID, volume *uint16, _ uint32) uintptr {
	return answer("BeginPrepareSnapshot", func(p *Provider) vsscode.HRESULT {
		return p.beginPrepare(*set, windows.UTF16PtrToString(volume))
	})
}

func isVolumeSupported(_ *face, volume *uint16, supported *int32) uintptr {
	return answer("IsVolumeSupported", func(p *Provider) vsscode.HRESULT {
		if volume == nil || supported == nil {
			return vsscode.E_POINTER
		}
		*supported = 0
		if p.supports(windows.UTF16PtrToString(volume)) {
			*supported = 1
		}
		return vsscode.S_OK
	})
}

func isVolumeSnapshotted(_ *face, _ *uint16, present, compatibility *int32) uintptr {
	if present == nil || compatibility == nil {
		return uintptr(vsscode.E_POINTER)
	}
	*present, *compatibility = 0, 0
	return uintptr(vsscode.S_OK)
}

func setSnapshotProperty(_ *face, _ *com.GUID, _ uint32, _ unsafe.Pointer) uintptr {
	return uintptr(vsscode.E_NOTIMPL)
}

func revertToSnapshot(*face, *com.GUID) uintptr { return uintptr(vsscode.E_NOTIMPL) }

func queryRevertStatus(*face, *uint16, **face) uintptr { return uintptr(vsscode.E_NOTIMPL) }
