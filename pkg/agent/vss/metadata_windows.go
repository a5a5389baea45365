package vss

import (
	"fmt"
	"unsafe"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// The methods of IVssExamineWriterMetadata and IVssWMComponent (vsbackup.h), and of IVssWMFiledesc (vswriter.h).
const (
	slotGetIdentity       = 3
	slotGetFileCounts     = 4
	slotGetComponent      = 7
	slotGetComponentInfo  = 3
	slotFreeComponentInfo = 4
	slotGetFile           = 5
	slotGetDatabaseFile   = 6
	slotGetDatabaseLog    = 7
	slotGetPath           = 3
)

// componentInfo is VSS_COMPONENTINFO (vsbackup.h): 72 bytes on amd64.
type componentInfo struct {
	kind                  vsscode.ComponentType
	path, name, caption   *uint16
	icon                  *byte
	iconBytes             uint32
	restoreMetadata       byte
	notifyOnComplete      byte
	selectable            byte
	selectableForRestore  byte
	flags                 uint32
	files, databases      uint32
	databaseLogs, depends uint32
}

// maxRows bounds what is read of one writer; a writer that says more has gone wrong.
const maxRows = 100_000

// metadata reads what GatherWriterMetadata brought, and frees it.
func (b *backup) metadata() ([]writer, error) {
	var count uint32
	if err := b.call("count the writers", slotGetWriterMetadataCount, uintptr(unsafe.Pointer(&count))); err != nil {
		return nil, err
	}
	writers := make([]writer, 0, count)
	for i := range min(count, maxRows) {
		w, err := b.readWriter(i)
		if err != nil {
			return nil, err
		}
		writers = append(writers, w)
	}
	return writers, nil
}

func (b *backup) readWriter(i uint32) (w writer, err error) {
	var examine *com.Object
	var instance com.GUID
	err = b.call("read a writer's metadata", slotGetWriterMetadata, uintptr(i), uintptr(unsafe.Pointer(&instance)), uintptr(unsafe.Pointer(&examine)))
	if err != nil {
		return w, err
	}
	defer examine.Release()
	var name *uint16
	var usage, source uint32
	hr := examine.Call(slotGetIdentity, uintptr(unsafe.Pointer(&w.instance)), uintptr(unsafe.Pointer(&w.class)), uintptr(unsafe.Pointer(&name)),
		uintptr(unsafe.Pointer(&usage)), uintptr(unsafe.Pointer(&source)))
	w.name = com.TakeString(name)
	if err := result("read a writer's identity", hr); err != nil {
		return w, err
	}
	var includes, excludes, components uint32
	hr = examine.Call(slotGetFileCounts, uintptr(unsafe.Pointer(&includes)), uintptr(unsafe.Pointer(&excludes)), uintptr(unsafe.Pointer(&components)))
	if err := result("count the components of "+w.name, hr); err != nil {
		return w, err
	}
	for j := range min(components, maxRows) {
		c, err := readComponent(examine, j)
		if err != nil {
			return w, fmt.Errorf("component %d of %s: %w", j, w.name, err)
		}
		w.components = append(w.components, c)
	}
	return w, nil
}

func readComponent(examine *com.Object, j uint32) (c component, err error) {
	var object *com.Object
	if err := result("read", examine.Call(slotGetComponent, uintptr(j), uintptr(unsafe.Pointer(&object)))); err != nil {
		return c, err
	}
	defer object.Release()
	var info *componentInfo
	if err := result("read its description", object.Call(slotGetComponentInfo, uintptr(unsafe.Pointer(&info)))); err != nil {
		return c, err
	}
	c.kind, c.selectable = info.kind, info.selectable != 0
	c.path, c.name = text(info.path), text(info.name)
	counts := [...]struct {
		slot  int
		files uint32
	}{{slotGetFile, info.files}, {slotGetDatabaseFile, info.databases}, {slotGetDatabaseLog, info.databaseLogs}}
	if err := result("free its description", object.Call(slotFreeComponentInfo, uintptr(unsafe.Pointer(info)))); err != nil {
		return c, err
	}
	for _, of := range counts {
		for k := range min(of.files, maxRows) {
			folder, err := readFolder(object, of.slot, k)
			if err != nil {
				return c, err
			}
			c.folders = append(c.folders, folder)
		}
	}
	return c, nil
}

// readFolder gives where the k-th file group of a kind lies.
func readFolder(object *com.Object, slot int, k uint32) (string, error) {
	var file *com.Object
	if err := result("read a file group", object.Call(slot, uintptr(k), uintptr(unsafe.Pointer(&file)))); err != nil {
		return "", err
	}
	defer file.Release()
	var path *uint16
	hr := file.Call(slotGetPath, uintptr(unsafe.Pointer(&path)))
	return com.TakeString(path), result("read the path of a file group", hr)
}
