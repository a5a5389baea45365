package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// Hook is a hook of the guest's owner (docs/hooks.md).
type Hook struct {
	// Name is the file's name in the folder of the hooks.
	Name string `yaml:"name"`
	// Program is the text of the program; File is a file with it, seen from the scenario's own file. One of them is given.
	Program string `yaml:"program"`
	File    string `yaml:"file"`
	// Description is the text of its description. What finds the guest's PostgreSQL is added to it.
	Description string `yaml:"description"`
}

// checkApplications checks what runs in a guest.
func (v VM) checkApplications() error {
	var errs []error
	if v.Postgres && v.Guest != "linux" {
		errs = append(errs, errors.New("postgres needs a linux guest"))
	}
	if len(v.Hooks) > 0 && !oneOf(v.Guest, "linux", "scripted") {
		errs = append(errs, errors.New("hooks need a linux or scripted guest"))
	}
	for _, h := range v.Hooks {
		if h.Name == "" || filepath.Base(h.Name) != h.Name || (h.Program == "") == (h.File == "") || h.Description == "" {
			errs = append(errs, fmt.Errorf("hook %q needs a plain name, a description, and one of program and file", h.Name))
		}
	}
	return errors.Join(errs...)
}

// resolve reads the files that hooks name, seen from the scenario's file.
func (s *Scenario) resolve(path string) error {
	for i := range s.VMs {
		for j := range s.VMs[i].Hooks {
			h := &s.VMs[i].Hooks[j]
			if h.File == "" {
				continue
			}
			text, err := os.ReadFile(filepath.Join(filepath.Dir(path), h.File))
			if err != nil {
				return fmt.Errorf("read the hook %s: %w", h.Name, err)
			}
			h.Program, h.File = string(text), ""
		}
	}
	return nil
}

// startApplications starts the database and installs the hooks.
func (m *machine) startApplications(ctx context.Context) error {
	var settings strings.Builder
	if g, ok := m.guest.(*guests.Linux); ok && m.vm.Postgres {
		var err error
		if m.postgres, err = guests.StartPostgres(ctx, g); err != nil {
			return err
		}
		for _, variable := range m.postgres.HookEnv() {
			settings.WriteString("env." + variable + "\n")
		}
	}
	if len(m.vm.Hooks) == 0 {
		return nil
	}
	if err := os.Mkdir(m.hooksDir(), 0o755); err != nil {
		return err
	}
	for _, h := range m.vm.Hooks {
		program := filepath.Join(m.hooksDir(), h.Name)
		description := strings.TrimRight(h.Description, "\n") + "\n" + settings.String()
		if err := errors.Join(os.WriteFile(program, []byte(h.Program), 0o755), os.WriteFile(program+".conf", []byte(description), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) hooksDir() string { return filepath.Join(m.dir, "hooks") }

// hooksEnv tells an agent of a build tagged lab where the hooks are.
func (m *machine) hooksEnv() []string {
	if len(m.vm.Hooks) == 0 {
		return nil
	}
	return []string{"STILLFRAME_LAB_HOOKS_DIR=" + m.hooksDir()}
}

// killHooks kills every process whose command line names a program in the folder of the hooks, with its group.
func (m *machine) killHooks() error {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	killed := 0
	for _, file := range processes {
		command, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(command), m.hooksDir()+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			continue // only leaders; or it has gone
		}
		if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill hook %d: %w", pid, err)
		}
		killed++
	}
	if killed == 0 {
		return errors.New("no hook runs")
	}
	return nil
}

// DatabaseOf is what the lab knows of a guest's PostgreSQL.
type DatabaseOf struct {
	// AcknowledgedBefore counts for each image, by its snapshot, the transactions acknowledged before its copy began.
	AcknowledgedBefore map[string]int `json:"acknowledged_before"`
	Log                string         `json:"log"`
	Error              string         `json:"error,omitempty"`
}

// Database is the witness of a guest's database; ok is false when it has none.
func (w *World) Database(name string) (DatabaseOf, bool) {
	m := w.machine(name)
	if m == nil || m.postgres == nil {
		return DatabaseOf{}, false
	}
	d := DatabaseOf{AcknowledgedBefore: map[string]int{}}
	for _, im := range w.disks.Images(name) {
		d.AcknowledgedBefore[im.Snapshot] = m.postgres.AcknowledgedBefore(im.From)
	}
	var err error
	d.Log, err = m.postgres.Log()
	if err = errors.Join(err, m.postgres.Err()); err != nil {
		d.Error = err.Error()
	}
	return d, true
}

// adminApplications answers GET /vm/<name>/database.
func (w *World) adminApplications(mux *http.ServeMux) {
	mux.HandleFunc("GET /vm/{name}/database", func(rw http.ResponseWriter, r *http.Request) {
		d, ok := w.Database(r.PathValue("name"))
		answer(rw, d, ok)
	})
}
