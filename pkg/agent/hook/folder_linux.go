package hook

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// hook is one program with its description.
type hook struct {
	description
	name, path, sha256 string
}

// load reads a folder of hooks in the order of their names. A folder that does not exist has none. Everything in it must
// belong to owner, or to root, and be writable by nobody else; so must every folder above it, which may be sticky instead.
func load(dir string, owner uint32) ([]hook, error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for above, kind := filepath.Clean(dir), fs.ModeDir; ; above, kind = filepath.Dir(above), fs.ModeDir|fs.ModeSticky {
		if err := trusted(above, owner, kind); err != nil {
			return nil, err
		}
		if above == filepath.Dir(above) {
			break
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of hooks: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	var hooks []hook
	for _, e := range entries {
		name := e.Name()
		switch program, isDescription := strings.CutSuffix(name, suffix); {
		case strings.HasPrefix(name, "."):
		case isDescription && names[program]:
			h, err := loadOne(dir, program, owner)
			if err != nil {
				return nil, err
			}
			hooks = append(hooks, h)
		case isDescription:
			return nil, fmt.Errorf("%s describes no hook: there is no %s", filepath.Join(dir, name), program)
		case !names[name+suffix]:
			return nil, fmt.Errorf("%s has no description: there is no %s", filepath.Join(dir, name), name+suffix)
		}
	}
	if len(hooks) > maxHooks {
		return nil, fmt.Errorf("%s has %d hooks, more than %d", dir, len(hooks), maxHooks)
	}
	return hooks, nil
}

func loadOne(dir, name string, owner uint32) (hook, error) {
	h := hook{name: name, path: filepath.Join(dir, name)}
	text, err := readTrusted(h.path+suffix, owner, maxDescription)
	if err == nil {
		h.description, err = parse(text)
	}
	if err != nil {
		return h, fmt.Errorf("read the hook's description %s: %w", h.path+suffix, err)
	}
	if err := trusted(h.path, owner, 0); err != nil {
		return h, err
	}
	file, err := os.Open(h.path)
	if err != nil {
		return h, fmt.Errorf("read the hook: %w", err)
	}
	sum := sha256.New()
	info, err := file.Stat()
	if err == nil && info.Mode()&0o100 == 0 {
		err = fmt.Errorf("%s is not executable", h.path)
	}
	if err == nil {
		_, err = io.Copy(sum, file)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return h, fmt.Errorf("read the hook: %w", err)
	}
	h.sha256 = hex.EncodeToString(sum.Sum(nil))
	return h, nil
}

func readTrusted(path string, owner uint32, limit int64) (string, error) {
	if err := trusted(path, owner, 0); err != nil {
		return "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	if int64(len(text)) > limit {
		return "", fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return string(text), nil
}

// trusted refuses what somebody else than the owner can change. Only such a one can race with the check. Sticky in kind
// lets others write into a folder that is sticky.
func trusted(path string, owner uint32, kind fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look at the hook: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%s: its owner is not known", path)
	case info.Mode().Type() != kind.Type():
		return fmt.Errorf("%s is no plain file, or no folder (%s)", path, info.Mode())
	case stat.Uid != owner && stat.Uid != 0:
		return fmt.Errorf("%s belongs to user %d, not to root: whoever owns a hook can run anything as root", path, stat.Uid)
	case info.Mode()&0o022 != 0 && (kind&fs.ModeSticky == 0 || info.Mode()&fs.ModeSticky == 0):
		return fmt.Errorf("%s can be written by others than its owner (%s)", path, info.Mode())
	}
	return nil
}
