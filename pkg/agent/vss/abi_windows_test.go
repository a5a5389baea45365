package vss

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"testing"
	"unsafe"
)

// TestABI compares the slots and layouts of this package with what a C++ compiler made of mingw-w64's headers. The lab
// runs it, with what abi.exe of testing/cpp printed.
func TestABI(t *testing.T) {
	raw, err := os.ReadFile(`C:\lab\abi.json`)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("nobody has written the headers' numbers")
	}
	var h struct {
		Interfaces map[string]struct {
			IID   string
			Slots map[string]int
		}
		Structs map[string]struct {
			Size    int
			Offsets map[string]int
		}
	}
	if err := errors.Join(err, json.Unmarshal(raw, &h)); err != nil {
		t.Fatal(err)
	}
	for name, slots := range map[string]map[string]int{
		"IVssBackupComponents": {
			"InitializeForBackup": slotInitializeForBackup, "SetBackupState": slotSetBackupState, "GatherWriterMetadata": slotGatherWriterMetadata,
			"GetWriterMetadataCount": slotGetWriterMetadataCount, "GetWriterMetadata": slotGetWriterMetadata, "FreeWriterMetadata": slotFreeWriterMetadata,
			"AddComponent": slotAddComponent, "PrepareForBackup": slotPrepareForBackup, "AbortBackup": slotAbortBackup,
			"GatherWriterStatus": slotGatherWriterStatus, "GetWriterStatusCount": slotGetWriterStatusCount, "FreeWriterStatus": slotFreeWriterStatus,
			"GetWriterStatus": slotGetWriterStatus, "SetBackupSucceeded": slotSetBackupSucceeded, "BackupComplete": slotBackupComplete,
			"SetContext": slotSetContext, "StartSnapshotSet": slotStartSnapshotSet, "AddToSnapshotSet": slotAddToSnapshotSet,
			"DoSnapshotSet": slotDoSnapshotSet, "DisableWriterClasses": slotDisableWriterClasses,
		},
		"IVssBackupComponentsEx3":   {"GetWriterStatusEx": slotGetWriterStatusEx},
		"IVssAsync":                 {"Cancel": slotCancel, "Wait": slotWait, "QueryStatus": slotQueryStatus},
		"IVssExamineWriterMetadata": {"GetIdentity": slotGetIdentity, "GetFileCounts": slotGetFileCounts, "GetComponent": slotGetComponent},
		"IVssWMComponent": {
			"GetComponentInfo": slotGetComponentInfo, "FreeComponentInfo": slotFreeComponentInfo, "GetFile": slotGetFile,
			"GetDatabaseFile": slotGetDatabaseFile, "GetDatabaseLogFile": slotGetDatabaseLog,
		},
		"IVssWMFiledesc": {"GetPath": slotGetPath},
	} {
		for method, slot := range slots {
			if got, ok := h.Interfaces[name].Slots[method]; !ok || got != slot {
				t.Errorf("%s.%s is in slot %d here, %d in the headers", name, method, slot, got)
			}
		}
	}
	if got := h.Interfaces["IVssBackupComponentsEx3"].IID; got != iidBackupComponentsEx3.String() {
		t.Errorf("IVssBackupComponentsEx3 is %s in the headers", got)
	}
	var c componentInfo
	layout := h.Structs["VSS_COMPONENTINFO"]
	if int(unsafe.Sizeof(c)) != layout.Size {
		t.Errorf("VSS_COMPONENTINFO has %d bytes here, %d in the headers", unsafe.Sizeof(c), layout.Size)
	}
	for field, offset := range map[string]uintptr{
		"type": unsafe.Offsetof(c.kind), "bstrLogicalPath": unsafe.Offsetof(c.path), "bstrComponentName": unsafe.Offsetof(c.name),
		"bstrCaption": unsafe.Offsetof(c.caption), "pbIcon": unsafe.Offsetof(c.icon), "cbIcon": unsafe.Offsetof(c.iconBytes),
		"bRestoreMetadata": unsafe.Offsetof(c.restoreMetadata), "bNotifyOnBackupComplete": unsafe.Offsetof(c.notifyOnComplete),
		"bSelectable": unsafe.Offsetof(c.selectable), "bSelectableForRestore": unsafe.Offsetof(c.selectableForRestore),
		"dwComponentFlags": unsafe.Offsetof(c.flags), "cFileCount": unsafe.Offsetof(c.files), "cDatabases": unsafe.Offsetof(c.databases),
		"cLogFiles": unsafe.Offsetof(c.databaseLogs), "cDependencies": unsafe.Offsetof(c.depends),
	} {
		if got, ok := layout.Offsets[field]; !ok || got != int(offset) {
			t.Errorf("VSS_COMPONENTINFO.%s is at %d here, %d in the headers", field, offset, got)
		}
	}
}
