package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/lab"
)

// adminPatience bounds the reading of one admin request's head.
const adminPatience = 5 * time.Second

// runScenario runs a world until ctx ends.
func runScenario(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "directory of the world, made if it is not there (default: a temporary one)")
	programs := flags.String("wine-programs", "", "folder of winelab's programs, for wine guests (default: built, inside the tree)")
	readyFD := flags.Int("ready-fd", 0, "descriptor for one line of JSON, for programs (default: what to export, on standard output)")
	var file string
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		file, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return usageError{err}
	}
	if file == "" && flags.NArg() == 1 {
		file = flags.Arg(0)
	} else if flags.NArg() > 0 {
		return usageError{fmt.Errorf("run takes one scenario, not %q as well", flags.Arg(0))}
	}
	if file == "" {
		return usageError{errors.New("run needs a scenario")}
	}
	scenario, err := lab.ReadScenario(file)
	if err != nil {
		return err
	}
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "stillframe-lab-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	}
	world, err := start(ctx, scenario, *dir, *programs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close(ctx)) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the admin: %w", err)
	}
	admin := &http.Server{Handler: world.Admin(), ReadHeaderTimeout: adminPatience} //nolint:contextcheck // what an event brings back later outlives whoever asked for it
	served := make(chan error, 1)
	go func() { served <- admin.Serve(listener) }()
	ready := world.Ready()
	ready.Admin = "http://" + listener.Addr().String()
	if err := announce(ready, *readyFD, stdout); err != nil {
		return errors.Join(err, admin.Close())
	}
	select {
	case <-ctx.Done():
		return admin.Close()
	case err := <-served:
		return fmt.Errorf("serve the admin: %w", err)
	}
}

// start builds a world whose helper processes are this program.
func start(ctx context.Context, s lab.Scenario, dir, programs string) (*lab.World, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return lab.Start(ctx, s, lab.Options{Dir: dir, Self: []string{self}, Programs: programs})
}

// announce says that the world is ready: one line of JSON on a descriptor, which it closes so that a reader sees the end,
// or on standard output what to type into another shell.
func announce(r lab.Ready, fd int, stdout io.Writer) error {
	if fd == 0 {
		if _, err := io.WriteString(stdout, exports(r)); err != nil {
			return fmt.Errorf("say that the world is ready: %w", err)
		}
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("say that the world is ready: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ready")
	if f == nil {
		return usageError{fmt.Errorf("--ready-fd %d is no descriptor", fd)}
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("say that the world is ready: %w", err)
	}
	return nil
}

// mostListed bounds the guests that are listed for a person.
const mostListed = 20

// exports is what a person needs: variables that stillframe and govc read, and where to look.
func exports(r lab.Ready) string {
	var out strings.Builder
	set := func(key, value string) {
		fmt.Fprintf(&out, "export %s='%s'\n", key, strings.ReplaceAll(value, "'", `'\''`))
	}
	out.WriteString("# a world is ready; in another shell:\n")
	set("GOVC_URL", r.VCenter)
	set("GOVC_USERNAME", r.User)
	set("GOVC_PASSWORD", r.Password)
	set("GOVC_TLS_CA_CERTS", r.CAFile)
	for i, g := range r.Guests {
		if i == 0 {
			set("GOVC_VM", g.Name)
			set("GOVC_GUEST_LOGIN", g.User+":"+g.Password)
			set("STILLFRAME_LAB_ADMIN", r.Admin)
			out.WriteString("stillframe run --window-only --agent build/lab/stillframe-agent\n")
			out.WriteString("curl -s $STILLFRAME_LAB_ADMIN/vm/$GOVC_VM/holds\n")
			continue
		}
		if i == mostListed {
			fmt.Fprintf(&out, "# and %d VMs more\n", len(r.Guests)-i)
			break
		}
		fmt.Fprintf(&out, "# VM %s: GOVC_GUEST_LOGIN='%s:%s'\n", g.Name, g.User, g.Password)
	}
	fmt.Fprintf(&out, "# Ctrl-C ends it; process %d\n", r.PID)
	return out.String()
}
