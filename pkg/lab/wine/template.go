package wine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// fakes are what goes into each prefix's system32; the libraries among registered are registered there.
var (
	fakes = []string{
		"vssapi.dll", "vss_ps_fake.dll", "wevtapi.dll", "bcryptprimitives.dll", "fakevssvc.exe",
		"abi.exe", "selfprovider.exe", "selfrequestor.exe", "otherbackup.exe", "startservice.exe",
		"netsh.exe",
	}
	registered = []string{"vssapi.dll", "vss_ps_fake.dll"}
)

// registeredTemplate is a prefix with the fakes in it, made once for each version of Wine and of the fakes.
func registeredTemplate(ctx context.Context, programs string) (string, error) {
	plain, err := plainTemplate(ctx, programs)
	if err != nil {
		return "", err
	}
	key := sha256.New()
	_, err = io.WriteString(key, filepath.Base(plain))
	for _, name := range fakes {
		err = errors.Join(err, hashFile(key, filepath.Join(programs, name)))
	}
	if err != nil {
		return "", err
	}
	return cached(programs, "fakes-"+hex.EncodeToString(key.Sum(nil))[:16], func(dir string) error {
		return register(ctx, plain, programs, dir)
	})
}

func hashFile(to io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, f)
	return errors.Join(err, f.Close())
}

func register(ctx context.Context, plain, programs, dir string) error {
	if err := clone(plain, dir); err != nil {
		return err
	}
	p := &Prefix{dir: dir}
	for _, name := range fakes {
		if err := p.Install(filepath.Join(programs, name), `C:\windows\system32\`+name); err != nil {
			return err
		}
	}
	if err := os.Mkdir(p.Path(labFolder), 0o755); err != nil {
		return err
	}
	for _, name := range registered {
		if _, err := p.Run(ctx, "regsvr32", "/s", name); err != nil {
			return err
		}
	}
	// A program that crashes shall end at once, and not be looked at by a debugger for a minute.
	if _, err := p.Run(ctx, "reg", "delete", `HKLM\Software\Microsoft\Windows NT\CurrentVersion\AeDebug`, "/f"); err != nil {
		return err
	}
	return endServer(ctx, dir)
}

// plainTemplate is a prefix as Wine makes it, but without a drive that shows this machine's own files.
func plainTemplate(ctx context.Context, programs string) (string, error) {
	version, err := exec.CommandContext(ctx, loader, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("run %s (on Debian as root: apt install wine64): %w", loader, err)
	}
	sum := sha256.Sum256(version)
	return cached(programs, "plain-"+hex.EncodeToString(sum[:])[:16], func(dir string) error {
		boot := exec.CommandContext(ctx, loader, "wineboot", "-i")
		boot.Env = environment(dir)
		if err := boot.Run(); err != nil {
			return fmt.Errorf("make a Wine prefix: %w", err)
		}
		if err := endServer(ctx, dir); err != nil {
			return err
		}
		return os.Remove(filepath.Join(dir, "dosdevices", "z:"))
	})
}

// startTries is how often a prefix is begun: once in hundreds of times Wine 8.0 ends at once with exit status 53, the last byte of
// c0000135 (a library was not found), for a reason that is not known.
const startTries = 3

// cached makes a folder once, whoever else wants it at the same time: one makes it under a lock, and renames it when it is
// whole.
func cached(parent, name string, fill func(dir string) error) (_ string, err error) {
	whole := filepath.Join(parent, name)
	unlock, err := lock(filepath.Join(parent, name+".lock"))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := os.Stat(whole); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return whole, err
	}
	half := whole + ".half"
	for range startTries {
		if err = errors.Join(os.RemoveAll(half), os.Mkdir(half, 0o700)); err != nil {
			return "", err
		}
		if err = fill(half); err == nil {
			return whole, os.Rename(half, whole)
		}
	}
	return "", errors.Join(err, os.RemoveAll(half))
}

// lock waits for the one lock of that name among all processes.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}

// clone copies a prefix that nothing runs in. What is below windows are Wine's own files, which nobody writes in place: they
// are linked, 690 MB of them.
func clone(from, to string) error {
	windows := filepath.Join(from, "drive_c", "windows")
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			return copyLink(path, target)
		case below(path, windows):
			return os.Link(path, target)
		default:
			return copyFile(path, target)
		}
	})
}

func below(path, dir string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}
