package guests

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/stillframe/stillframe/pkg/lab/svcctl"
)

// wineServices are the services of a wine guest, by its real service control manager: Wine's. Its tools are a process of
// their own, so that a start that takes its time keeps nobody from the guest's processes.
//
// Wine's manager is credible for processes, states, exit codes and names. It does not wait for the handles of a deleted
// service, and gives a process that does not report 10 s instead of 30.
type wineServices struct{ tools *wineTools }

var _ svcctl.Services = (*wineServices)(nil)

// Services are those of the guest, for the double of pkg/lab/svcctl. They end with the guest.
func (g *Wine) Services() svcctl.Services { return &wineServices{g.manager} }

// ask gives the answer to a command about services.
func (s *wineServices) ask(words ...string) (string, error) {
	for _, w := range words {
		if strings.ContainsAny(w, "\t\r\n") {
			return "", svcctl.ERROR_INVALID_PARAMETER
		}
	}
	s.tools.mu.Lock()
	defer s.tools.mu.Unlock()
	answer, err := s.tools.ask(nil, strings.Join(append([]string{"service"}, words...), "\t"))
	if err != nil {
		return "", err
	}
	return answer, refusal(answer)
}

// refusal is the number of Windows in an answer, if it is one.
func refusal(answer string) error {
	text, refused := strings.CutPrefix(answer, "error ")
	if !refused {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return fmt.Errorf("the guest's tools answered %q", answer)
	}
	return svcctl.Win32(n)
}

// Create makes a service of an own process, started on demand, that ends nothing when it fails.
func (s *wineServices) Create(name, display, path string) error {
	_, err := s.ask("create", name, display, path)
	return err
}

// Start returns when the process has reported, or 10 s have passed.
func (s *wineServices) Start(name string) error {
	_, err := s.ask("start", name)
	return err
}

// Stop asks a service to stop.
func (s *wineServices) Stop(name string) error {
	_, err := s.ask("stop", name)
	return err
}

// Delete removes the entry when the service has stopped.
func (s *wineServices) Delete(name string) error {
	_, err := s.ask("delete", name)
	return err
}

// Query tells how a service is.
func (s *wineServices) Query(name string) (svcctl.Status, error) {
	answer, err := s.ask("query", name)
	if err != nil {
		return svcctl.Status{}, err
	}
	text, _ := strings.CutPrefix(answer, "status ")
	return status(text)
}

// status reads the nine numbers of a SERVICE_STATUS_PROCESS.
func status(text string) (svcctl.Status, error) {
	fields := strings.Fields(text)
	var n [9]uint32
	for i := range n {
		if len(fields) != len(n) {
			return svcctl.Status{}, fmt.Errorf("the guest's tools tell of a service with %q", text)
		}
		one, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return svcctl.Status{}, fmt.Errorf("the guest's tools tell of a service with %q", text)
		}
		n[i] = uint32(one)
	}
	return svcctl.Status{
		Type: n[0], State: n[1], Accepted: n[2], Win32Exit: n[3], SpecificExit: n[4], CheckPoint: n[5], WaitHint: n[6], PID: n[7], Flags: n[8],
	}, nil
}

// Config tells what a service is made of.
func (s *wineServices) Config(name string) (svcctl.Config, error) {
	answer, err := s.ask("config", name)
	if err != nil {
		return svcctl.Config{}, err
	}
	fields := strings.Split(answer, "\t")
	var c svcctl.Config
	if n, err := fmt.Sscanf(fields[0], "config %d %d %d", &c.Type, &c.Start, &c.ErrorControl); err != nil || n != 3 || len(fields) != 4 {
		return svcctl.Config{}, fmt.Errorf("the guest's tools tell of a service with %q", answer)
	}
	c.Path, c.Account, c.Display = fields[1], fields[2], fields[3]
	return c, nil
}

// List gives all services that are no drivers.
func (s *wineServices) List() ([]svcctl.Entry, error) {
	s.tools.mu.Lock()
	defer s.tools.mu.Unlock()
	line, err := s.tools.ask(nil, "service\tlist")
	var all []svcctl.Entry
	for ; err == nil && line != "."; line, err = s.tools.answer() {
		if err := refusal(line); err != nil {
			return nil, err
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("the guest's tools list %q", line)
		}
		how, err := status(fields[2])
		if err != nil {
			return nil, err
		}
		all = append(all, svcctl.Entry{Name: fields[0], Display: fields[1], Status: how})
	}
	return all, err
}
