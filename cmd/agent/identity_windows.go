package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

const (
	// persistentLife is how long the identity of a persistent agent lasts. Both sides check the fingerprint, not the time.
	persistentLife = 10 * 365 * 24 * time.Hour
	keyBytes       = 32
	// onlySystem lets SYSTEM and Administrators use a file, and nobody else: it inherits nothing.
	onlySystem = "O:BAG:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)"
)

// persistentDir is where a persistent agent keeps what is its own. Ordinary users may not create anything in it or above
// it, which %ProgramData% would let them.
func persistentDir() (string, error) {
	root, err := windows.GetSystemWindowsDirectory()
	if err != nil {
		return "", fmt.Errorf("find the folder of Windows: %w", err)
	}
	return filepath.Join(root, "Stillframe", "persistent"), nil
}

// storedIdentity loads the identity of a persistent agent, and makes it where there is none. The file holds the
// private scalar of P-256, 32 bytes, and the certificate in DER.
func storedIdentity(dir string) (tls.Certificate, protocol.Fingerprint, error) {
	path := filepath.Join(dir, "identity")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeIdentity(path)
	}
	if err != nil {
		return tls.Certificate{}, protocol.Fingerprint{}, fmt.Errorf("read the agent's identity: %w", err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw[:min(len(raw), keyBytes)])
	if err != nil {
		return tls.Certificate{}, protocol.Fingerprint{}, fmt.Errorf("read the agent's identity: %s is damaged: %w", path, err)
	}
	der := raw[keyBytes:]
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(der), nil
}

func makeIdentity(path string) (tls.Certificate, protocol.Fingerprint, error) {
	own, fingerprint, err := protocol.NewIdentity(persistentLife)
	if err != nil {
		return own, fingerprint, err
	}
	key, err := own.PrivateKey.(*ecdsa.PrivateKey).Bytes()
	if err == nil {
		err = writeSecret(path, append(key, own.Certificate[0]...))
	}
	if err != nil {
		return own, fingerprint, fmt.Errorf("keep the agent's identity: %w", err)
	}
	return own, fingerprint, nil
}

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
	return errors.Join(err, file.Close())
}
