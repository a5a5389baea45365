package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// onlySystem lets SYSTEM and Administrators use a file, and nobody else: it inherits nothing.
const onlySystem = "O:BAG:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)"

// persistentDir is where a persistent agent keeps what is its own. Ordinary users may not create anything in it or above
// it, which %ProgramData% would let them.
func persistentDir() (string, error) {
	root, err := windows.GetSystemWindowsDirectory()
	if err != nil {
		return "", fmt.Errorf("find the folder of Windows: %w", err)
	}
	return filepath.Join(root, "Stillframe", "persistent"), nil
}

// makeHome makes the folder; its files have access rights of their own.
func makeHome(dir string) error { return os.MkdirAll(dir, 0o700) }

// writeSecret makes a file that only SYSTEM and Administrators can read, from its first moment on.
func writeSecret(path string, content []byte) error {
	sd, err := windows.SecurityDescriptorFromString(onlySystem)
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	attributes := windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: sd}
	handle, err := windows.CreateFile(name, windows.GENERIC_WRITE, 0, &attributes, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(handle), path)
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close())
}

// rename is durable when it returns: MOVEFILE_WRITE_THROUGH (winbase.h).
func rename(from, to string) error {
	one, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	two, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	if err := windows.MoveFileEx(one, two, windows.MOVEFILE_REPLACE_EXISTING|windows.MOVEFILE_WRITE_THROUGH); err != nil {
		return fmt.Errorf("rename %s: %w", from, err)
	}
	return nil
}
