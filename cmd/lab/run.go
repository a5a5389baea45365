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
	dir := flags.String("dir", "", "directory of the world, made if it is not there")
	readyFD := flags.Int("ready-fd", 0, "descriptor for the line of JSON, in place of standard output")
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
	if file == "" || *dir == "" {
		return usageError{errors.New("run needs a scenario and --dir")}
	}
	scenario, err := lab.ReadScenario(file)
	if err != nil {
		return err
	}
	world, err := start(ctx, scenario, *dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close(ctx)) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the admin: %w", err)
	}
	admin := &http.Server{Handler: world.Admin(), ReadHeaderTimeout: adminPatience}
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
func start(ctx context.Context, s lab.Scenario, dir string) (*lab.World, error) {
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
	return lab.Start(ctx, s, lab.Options{Dir: dir, Self: []string{self}})
}

// announce writes the ready line, then closes a descriptor of its own so that a reader sees the end.
func announce(r lab.Ready, fd int, stdout io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("say that the world is ready: %w", err)
	}
	line = append(line, '\n')
	if fd == 0 {
		_, err = stdout.Write(line)
	} else {
		f := os.NewFile(uintptr(fd), "ready")
		if f == nil {
			return usageError{fmt.Errorf("--ready-fd %d is no descriptor", fd)}
		}
		_, err = f.Write(line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("say that the world is ready: %w", err)
	}
	return nil
}
