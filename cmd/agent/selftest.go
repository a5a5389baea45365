package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// check is one line of the self-test.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says what was found, or what is wrong.
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// selfTest is the report of a self-test.
type selfTest struct {
	Mode        string            `json:"mode"`
	HoldSeconds float64           `json:"hold_seconds"`
	Checks      []check           `json:"checks"`
	Writers     []protocol.Writer `json:"writers"`
	Witness     map[string]string `json:"witness"`
	Inventory   inventory         `json:"inventory"`
	// Status is the exit status: 0, 1 failed, 7 the guest is not fit for a freeze.
	Status int `json:"status"`
}

// run does one check and says whether it went well; what does not becomes the report's status.
func (s *selfTest) run(name string, failed int, f func() (string, error)) bool {
	begin := time.Now()
	detail, err := f()
	c := check{Name: name, OK: err == nil, Detail: detail, Seconds: time.Since(begin).Seconds()}
	if err != nil {
		c.Detail = strings.Join(strings.Fields(err.Error()), " ")
		if s.Status == exitOK {
			s.Status = failed
		}
	}
	s.Checks = append(s.Checks, c)
	return c.OK
}

// print writes the report as JSON, or a line a check and a writer.
func (s *selfTest) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	var b strings.Builder
	for _, c := range s.Checks {
		word := "ok  "
		if !c.OK {
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s %s: %s (%.3f s)\n", word, c.Name, c.Detail, c.Seconds)
	}
	for _, r := range s.Writers {
		fmt.Fprintf(&b, "     writer %s %s, state %d, failure %s\n", r.ClassID, r.Name, r.State, r.FailureHR)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fitToken says whether the rights are those of a requestor.
func fitToken(t token) (string, error) {
	if !t.Elevated {
		return "", fmt.Errorf("the token of %s (RID 500: %t) is not elevated, its integrity is %s: it is no administrator's, or UAC filters it (KB1680)", t.User, t.BuiltInAdministrator, t.Integrity)
	}
	return fmt.Sprintf("%s, integrity %s", t.User, t.Integrity), nil
}

// fitServices says whether the services that a freeze goes through can run.
func fitServices(services []serviceState) (string, error) {
	var bad []string
	for _, s := range services {
		if s.Start == "disabled" || s.Start == "absent" {
			bad = append(bad, s.Name+" is "+s.Start)
		}
	}
	if len(bad) > 0 {
		return "", fmt.Errorf("SF3402 %s", strings.Join(bad, ", "))
	}
	return fmt.Sprintf("%d services can run", len(services)), nil
}

// fitVolumes says whether anything can be frozen.
func fitVolumes(volumes []protocol.Volume) (string, error) {
	good, why := 0, ""
	for _, v := range volumes {
		if v.Supported {
			good++
		} else {
			why = v.ID + ": " + v.Why
		}
	}
	if good == 0 {
		return "", fmt.Errorf("none of %d volumes can be frozen; %s", len(volumes), why)
	}
	return fmt.Sprintf("%d of %d volumes can be frozen", good, len(volumes)), nil
}
