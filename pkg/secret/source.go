package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Limits: a larger secret is something else; a file of the store is longer than its secret.
const (
	maxBytes = 64 << 10
	maxFile  = 4 * maxBytes
)

// source reads what is not in the store.
type source struct{ getenv func(string) string }

// read gives the secret without its one trailing newline.
func (s source) read(ref Ref) ([]byte, error) {
	op := "read " + ref.String()
	if ref.IsZero() {
		op = "read a secret"
	}
	var content []byte
	var err error
	switch ref.kind {
	case kindCred:
		content, err = s.credential(ref.name)
	case kindFile:
		content, err = private(ref.name, true)
	case kindEnv:
		content = []byte(s.getenv(ref.name))
		if len(content) == 0 {
			return nil, because(codeMissing, op, "the environment variable is not set, or empty")
		}
	default:
		return nil, because(codeReference, op, "it cannot be read here")
	}
	var coded *Error
	switch {
	case err == nil:
	case errors.As(err, &coded):
		return nil, &Error{coded.SF, op, coded.Err}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Error{codeMissing, op, err}
	case errors.Is(err, fs.ErrPermission):
		return nil, &Error{codeExposed, op, err}
	default:
		return nil, &Error{codeUnusable, op, err}
	}
	return trim(op, content)
}

// trim cuts one newline, which editors and echo leave, with a carriage return before it, and refuses what no secret is.
func trim(op string, b []byte) ([]byte, error) {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n > 1 && b[n-2] == '\r' {
			b = b[:n-2]
		}
	}
	switch n := len(b); {
	case n == 0:
		return nil, because(codeUnusable, op, "it is empty")
	case n > maxBytes:
		return nil, because(codeUnusable, op, "it has more than %d bytes", maxBytes)
	}
	return b, nil
}

// credential reads a file of the folder that systemd made for this service. Its owner and mode are systemd's matter: it
// gives a service's own user access by an ACL.
func (s source) credential(name string) ([]byte, error) {
	dir := s.getenv("CREDENTIALS_DIRECTORY")
	if !filepath.IsAbs(dir) {
		return nil, because(codeMissing, "", "CREDENTIALS_DIRECTORY is not set: systemd sets it for a service with LoadCredential= or LoadCredentialEncrypted=")
	}
	return private(filepath.Join(dir, name), false)
}

// private reads a file, up to maxFile. A symbolic link is followed within the file's own folder
// only. With owned it must belong to this user or to root and be closed to everybody else.
func private(path string, owned bool) (content []byte, err error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	base := filepath.Base(path)
	file, err := root.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe without a writer would block
	if err != nil {
		if info, look := root.Lstat(base); look == nil && info.Mode()&fs.ModeSymlink != 0 && !errors.Is(err, fs.ErrNotExist) {
			return nil, because(codeExposed, "", "%s is a symbolic link that leads out of its folder: %w", path, err)
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if owned {
		if err := closed(path, info); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// closed wants a file of ours or root's that nobody else can read.
func closed(path string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int64(stat.Uid) != int64(os.Geteuid()) && stat.Uid != 0 {
		return because(codeExposed, "", "%s belongs neither to this user nor to root", path)
	}
	if mode := info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); mode != 0o400 && mode != 0o600 {
		return because(codeExposed, "", "%s has mode %04o: chmod 0400 or 0600", path, mode.Perm())
	}
	return nil
}
