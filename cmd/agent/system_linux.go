package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// system names the guest's operating system by os-release(5) and the kernel's release. A missing file leaves blanks.
func system() (protocol.OS, error) {
	o := protocol.OS{Family: "linux", Arch: runtime.GOARCH}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return o, fmt.Errorf("ask for the kernel's name: %w", err)
	}
	o.Build = unix.ByteSliceToString(u.Release[:])
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return o, fmt.Errorf("read %s: %w", path, err)
		}
		values := parseRelease(string(text))
		o.Version, o.Edition = values["VERSION_ID"], values["PRETTY_NAME"]
		break
	}
	return o, nil
}

// parseRelease reads the assignments of os-release(5), without the quotes.
func parseRelease(text string) map[string]string {
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	return values
}
