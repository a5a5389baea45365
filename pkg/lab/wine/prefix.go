// Package wine runs Windows programs under Wine, each world in a prefix of its own, with the fakes of testing/cpp where Windows has VSS and its event log.
//
// Credible for what testing/cpp/README.md says of the fakes, and for processes, services, registry and COM activation as
// Wine 8.0 has them. Never emulates: COM security, tokens and UAC, named pipes that carry data, antivirus, sessions; and
// svc.IsWindowsService is false in its services.
package wine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// loader and server are where Debian puts Wine; its wrapper in PATH speaks of 32 bits first.
	loader = "/usr/lib/wine/wine64"
	server = "/usr/lib/wine/wineserver"
	// lingerSeconds is how long a server outlives its last program, so that services do, and that a prefix whose test was
	// killed does not live for ever.
	lingerSeconds = 300
	// closeLimit bounds the end of a prefix.
	closeLimit = 30 * time.Second
	// answerLimit is how long a program's output may go on after its end: a child of its may still have it.
	answerLimit = 5 * time.Second
	// labFolder is where config, trace and event log of the fakes are.
	labFolder = `C:\lab`
)

// overrides let the fakes win against Wine's builtins.
const overrides = "vssapi=n;wevtapi=n;bcryptprimitives=n;netsh.exe=n;mscoree=;mshtml="

// Options say what a prefix has besides C:.
type Options struct {
	// Programs is the folder of winelab's programs; empty builds them in the tree that the working directory lies in.
	Programs string
	// Drives are letters of further fixed drives, such as "D".
	Drives []string
}

// Prefix is one Windows of its own: a drive C:, a registry, a service manager and all processes started in it.
type Prefix struct {
	dir    string
	closed bool
}

// Open makes a prefix: a copy of the cached template, with the fakes in system32 and registered. It takes about a second, on
// a machine's first time 10 to 40 s. Close must be called.
func Open(ctx context.Context, o Options) (*Prefix, error) {
	programs := o.Programs
	if programs == "" {
		var err error
		if programs, err = Build(ctx); err != nil {
			return nil, err
		}
	}
	programs, err := filepath.Abs(programs) // wineserver takes no other
	if err != nil {
		return nil, err
	}
	template, err := registeredTemplate(ctx, programs)
	if err != nil {
		return nil, err
	}
	for range startTries {
		var p *Prefix
		if p, err = newPrefix(programs); err != nil {
			return nil, err
		}
		if err = p.furnish(ctx, template, o); err == nil {
			return p, nil
		}
		err = errors.Join(fmt.Errorf("open a Wine prefix: %w", err), p.Close()) //nolint:contextcheck // it has a limit of its own
	}
	return nil, err
}

// newPrefix makes the folder, beside the templates, so that files can be linked; the process's id is in its name.
func newPrefix(programs string) (*Prefix, error) {
	dir, err := os.MkdirTemp(programs, fmt.Sprintf("prefix-%d-", os.Getpid()))
	return &Prefix{dir: dir}, err
}

func (p *Prefix) furnish(ctx context.Context, template string, o Options) error {
	if err := clone(template, p.dir); err != nil {
		return err
	}
	for _, letter := range o.Drives {
		if err := p.addDrive(letter); err != nil {
			return err
		}
	}
	return p.start(ctx)
}

// addDrive makes an empty fixed drive.
func (p *Prefix) addDrive(letter string) error {
	name := "drive_" + strings.ToLower(letter)
	if err := os.MkdirAll(filepath.Join(p.dir, name), 0o755); err != nil {
		return err
	}
	return os.Symlink(filepath.Join("..", name), filepath.Join(p.dir, "dosdevices", strings.ToLower(letter)+":"))
}

// start brings the server up and the processes of Wine's own, apart from any program's output.
func (p *Prefix) start(ctx context.Context) error {
	for _, cmd := range []*exec.Cmd{
		p.tool(ctx, server, "-p"+strconv.Itoa(lingerSeconds)),
		p.tool(ctx, loader, "cmd", "/c", "exit 0"),
	} {
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %v: %w", cmd.Args, err)
		}
	}
	return nil
}

// tool is a program of Wine's on this prefix, without any output.
func (p *Prefix) tool(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = p.dir
	cmd.Env = environment(p.dir)
	return cmd
}

// environment is all that a program in a prefix gets from here. No home: Wine would link the user's folders to it. GODEBUG is
// what the product's agent for Windows is built with (Makefile): the programs of tests are built without it.
func environment(dir string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "WINEPREFIX=" + dir, "WINEDEBUG=-all", "DISPLAY=",
		"WINEDLLOVERRIDES=" + overrides, "GODEBUG=asyncpreemptoff=1",
	}
}

// Command is a Windows program, by its Windows path or the name of one in system32. Its context kills only the program, as
// a crash would. Where its output is a pipe, whoever it starts may hold that open.
func (p *Prefix) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := p.tool(ctx, loader, append([]string{program}, args...)...)
	cmd.Dir = p.Path(`C:\`)
	cmd.WaitDelay = answerLimit
	return cmd
}

// Run runs a program to its end and returns what it wrote, to both streams. An error has its output, too.
func (p *Prefix) Run(ctx context.Context, program string, args ...string) (string, error) {
	// A file, not a pipe: a service that the program started would hold a pipe open.
	out, err := os.CreateTemp(p.dir, "output-")
	if err != nil {
		return "", err
	}
	cmd := p.Command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	runErr := cmd.Run()
	_, seekErr := out.Seek(0, io.SeekStart)
	text, readErr := io.ReadAll(out)
	if err := errors.Join(runErr, seekErr, readErr, out.Close(), os.Remove(out.Name())); err != nil {
		return string(text), fmt.Errorf("run %s %v: %w: %s", program, args, err, strings.TrimSpace(string(text)))
	}
	return string(text), nil
}

// Path is where a Windows path of this prefix lies, such as C:\lab\vss.conf.
func (p *Prefix) Path(windows string) string {
	drive, rest, _ := strings.Cut(windows, `:`)
	return filepath.Join(p.dir, "drive_"+strings.ToLower(drive), filepath.FromSlash(strings.ReplaceAll(rest, `\`, "/")))
}

// Install copies a file of this machine to a Windows path, over what is there.
func (p *Prefix) Install(file, windows string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return p.Write(windows, data)
}

// Write makes a file of a Windows path, in the place of what is there.
func (p *Prefix) Write(windows string, data []byte) error {
	path := p.Path(windows)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Never written in place: the file may be the template's, too.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, data, 0o755)
}

// Configure says what goes wrong in VSS from the next session on: lines of testing/cpp/README.md; none is all well.
func (p *Prefix) Configure(lines ...string) error {
	return p.Write(labFolder+`\vss.conf`, []byte(strings.Join(lines, "\n")+"\n"))
}

// AddEvents puts events, each one XML line, into the log that the fake wevtapi.dll serves.
func (p *Prefix) AddEvents(events ...string) error {
	f, err := os.OpenFile(p.Path(labFolder+`\events.xml`), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(events, "\n") + "\n")
	return errors.Join(err, f.Close())
}

// Events are the lines of that log.
func (p *Prefix) Events() ([]string, error) {
	raw, err := os.ReadFile(p.Path(labFolder + `\events.xml`))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n"), nil
}

// ForgetDeadServers makes COM forget the classes of processes that were killed, as Windows does by itself: Wine's rpcss keeps
// them, before newer ones of the same class. To be called after such a kill and before the next server starts, because the
// classes of the living are forgotten, too.
func (p *Prefix) ForgetDeadServers(ctx context.Context) error {
	_, err := p.Run(ctx, "taskkill", "/f", "/im", "rpcss.exe")
	return err
}

// Close ends everything that runs in the prefix, and only that, and removes it. It fails when something is left.
func (p *Prefix) Close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit) //nolint:forbidigo // the end is tried whatever became of the caller
	defer cancel()
	if err := endServer(ctx, p.dir); err != nil {
		return err
	}
	return os.RemoveAll(p.dir)
}

// endServer ends a prefix's processes and waits for them.
func endServer(ctx context.Context, dir string) error {
	kill := exec.CommandContext(ctx, server, "-k")
	kill.Env = environment(dir)
	err := kill.Run()
	var none *exec.ExitError
	if err != nil && !errors.As(err, &none) { // it exits with 2 when no server runs
		return fmt.Errorf("end Wine in %s: %w", dir, err)
	}
	for {
		left, err := Processes(dir)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still running in %s: %v", dir, left)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
