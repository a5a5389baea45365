// Package enrolment remembers the persistent agents in guests, with the identities of ours that they let in.
package enrolment

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/filelock"
)

// The names in the folder. Each agent has a file of its own, named by the VM's instance UUID.
const (
	identities = "identities.pem"
	lockName   = "lock"
	suffix     = ".json"
	draft      = ".new"
)

const (
	// Life is how long an identity of ours is good. Both sides check fingerprints, not the time, but a key is not to be used
	// for ever: a new one is made and announced when less than a third of it is left.
	Life = 2 * 365 * 24 * time.Hour
	// lockLimit is how long another process may write.
	lockLimit = 10 * time.Second
	maxFile   = 1 << 20
)

// Error is why the book cannot be used. Its code is SF1105.
type Error struct {
	Op  string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return "SF1105" }

// Agent is one persistent agent.
type Agent struct {
	// VM is the VM's instance UUID; Path is where vCenter had it, for people; VCenter its vCenter's host.
	VM      string `json:"vm_instance_uuid"`
	Path    string `json:"vm_path"`
	VCenter string `json:"vcenter"`
	// Fingerprint is that of the agent's certificate; Next is one that it will have, empty for none.
	Fingerprint string `json:"fingerprint"`
	Next        string `json:"next_fingerprint,omitempty"`
	// Own is the fingerprint of ours that it lets in.
	Own  string `json:"own_fingerprint"`
	Port uint16 `json:"port"`
	// Exe is its program in the guest, Version what it said last of itself, System windows or linux.
	Exe     string `json:"exe"`
	Version string `json:"version"`
	System  string `json:"system"`
	// Trouble is why the certificates could not be looked after in the last session; empty when they were.
	Trouble string `json:"trouble,omitempty"`
	// EnrolledAt and SeenAt are by the wall clock, for people.
	EnrolledAt time.Time `json:"enrolled_at"`
	SeenAt     time.Time `json:"seen_at"`
}

// Identity is a certificate of ours with its key.
type Identity struct {
	Certificate tls.Certificate
	Fingerprint protocol.Fingerprint
	NotAfter    time.Time
}

// Book is a folder, made when something is written. It holds no file between calls and needs no closing. It is safe for
// concurrent use, also by many processes. Its identities are keys: the folder is its owner's alone.
type Book struct{ dir string }

// Open names the folder, an absolute path.
func Open(dir string) (*Book, error) {
	if !filepath.IsAbs(dir) {
		return nil, &Error{"use the folder of agents " + dir, errors.New("its path is not absolute")}
	}
	return &Book{dir}, nil
}

// uuid is how an instance UUID is written: it becomes a file's name.
var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (b *Book) path(vm string) (string, error) {
	if !uuid.MatchString(vm) {
		return "", fmt.Errorf("%q is no instance UUID", vm)
	}
	return filepath.Join(b.dir, strings.ToLower(vm)+suffix), nil
}

// Agent reads the agent of a VM; false when there is none.
func (b *Book) Agent(vm string) (a Agent, found bool, err error) {
	path, err := b.path(vm)
	if err != nil {
		return a, false, nil //nolint:nilerr // a VM without such a UUID has no agent
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		return a, false, &Error{"read the agent of VM " + vm, err}
	}
	return a, true, nil
}

// Agents lists all of them, by the path of their VM.
func (b *Book) Agents() ([]Agent, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, "*"+suffix))
	if err != nil {
		return nil, &Error{"list the agents", err}
	}
	all := []Agent{}
	for _, f := range files {
		a, found, err := b.Agent(strings.TrimSuffix(filepath.Base(f), suffix))
		if err != nil {
			return nil, err
		}
		if found {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b Agent) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// Put writes an agent down in the place of the VM's former one. It is on the disk when Put returns.
func (b *Book) Put(ctx context.Context, a Agent) error {
	path, err := b.path(a.VM)
	if err != nil {
		return &Error{"write down an agent", err}
	}
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return &Error{"write down an agent", err}
	}
	return b.locked(ctx, "write down the agent of VM "+a.VM, func() error { return write(path, append(text, '\n')) })
}

// Remove strikes an agent out; one that is not there is.
func (b *Book) Remove(ctx context.Context, vm string) error {
	path, err := b.path(vm)
	if err != nil {
		return &Error{"strike out an agent", err}
	}
	return b.locked(ctx, "strike out the agent of VM "+vm, func() error {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// Current gives the newest identity of ours, with which agents are enrolled, and makes one where there is none or the newest
// has less than a third of its life left at now.
func (b *Book) Current(ctx context.Context, now time.Time) (Identity, error) {
	var current Identity
	err := b.locked(ctx, "read our identities", func() error {
		all, err := b.identities()
		if err != nil {
			return err
		}
		if n := len(all); n > 0 && all[n-1].NotAfter.Sub(now) >= Life/3 {
			current = all[n-1]
			return nil
		}
		certificate, fingerprint, err := protocol.NewIdentity(Life)
		if err != nil {
			return err
		}
		current = Identity{certificate, fingerprint, now.Add(Life)}
		return b.keep(append(all, current))
	})
	return current, err
}

// Identity finds the identity of ours with a fingerprint.
func (b *Book) Identity(fingerprint string) (Identity, error) {
	all, err := b.identities()
	if err != nil {
		return Identity{}, &Error{"read our identities", err}
	}
	for _, one := range all {
		if one.Fingerprint.String() == fingerprint {
			return one, nil
		}
	}
	return Identity{}, &Error{"find our identity " + fingerprint, errors.New("it is not in " + filepath.Join(b.dir, identities) +
		": put that file back from a copy, or enrol the agents anew with \"stillframe agent deploy\"")}
}

// identities reads all of ours, the oldest first: a key and a certificate each.
func (b *Book) identities() ([]Identity, error) {
	text, err := os.ReadFile(filepath.Join(b.dir, identities))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Identity
	for {
		key, rest := pem.Decode(text)
		if key == nil {
			break
		}
		certificate, rest := pem.Decode(rest)
		if certificate == nil {
			return nil, fmt.Errorf("%s ends in the middle of an identity", identities)
		}
		one, err := identity(key.Bytes, certificate.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", identities, err)
		}
		all, text = append(all, one), rest
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, fmt.Errorf("%s is damaged", identities)
	}
	return all, nil
}

func identity(key, der []byte) (Identity, error) {
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return Identity{}, err
	}
	known, ok := private.(*ecdsa.PrivateKey)
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return Identity{}, err
	}
	if !ok || !known.PublicKey.Equal(certificate.PublicKey) {
		return Identity{}, errors.New("a key and a certificate do not belong together")
	}
	return Identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: known}, sha256.Sum256(der), certificate.NotAfter}, nil
}

// keep writes identities.
func (b *Book) keep(all []Identity) error {
	var out bytes.Buffer
	for _, one := range all {
		key, err := x509.MarshalPKCS8PrivateKey(one.Certificate.PrivateKey)
		if err != nil {
			return err
		}
		err = errors.Join(pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: key}),
			pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: one.Certificate.Certificate[0]}))
		if err != nil {
			return err
		}
	}
	return write(filepath.Join(b.dir, identities), out.Bytes())
}

// locked does something while no other process writes.
func (b *Book) locked(ctx context.Context, op string, do func() error) (err error) {
	defer func() {
		var known *Error
		if err != nil && !errors.As(err, &known) {
			err = &Error{op, err}
		}
	}()
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(b.dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others than its owner can use %s (mode %04o): chmod 0700", b.dir, info.Mode().Perm())
	}
	lock, err := os.OpenFile(filepath.Join(b.dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := filelock.Wait(ctx, lock, lockLimit); err != nil {
		return err
	}
	return do()
}

// write makes a file in the place of what is there, whole or not at all, and on the disk.
func write(path string, content []byte) error {
	if len(content) > maxFile {
		return fmt.Errorf("%s would have %d bytes", filepath.Base(path), len(content))
	}
	file, err := os.OpenFile(path+draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path+draft))
	}
	if err := os.Rename(path+draft, path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
