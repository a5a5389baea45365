package config

import (
	"encoding/json"
	"strings"

	"github.com/stillframe/stillframe/pkg/freezewindow"
	"github.com/stillframe/stillframe/pkg/schedule"
)

// Job is one standing order.
type Job struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
	// Priority is 1 to 4; 1 goes first.
	Priority int       `json:"priority"`
	Select   JobSelect `json:"select"`
	// Schedule is nil for a job that runs by hand only.
	Schedule *Schedule   `json:"schedule,omitempty"`
	Windows  []JobWindow `json:"windows"`
	// Level is the lowest that the job accepts.
	Level freezewindow.Level `json:"level"`
	// OnDegrade is fail, keep or retry; Admission refuse or warn; BackupType copy or full.
	OnDegrade  string   `json:"on_degrade"`
	Admission  string   `json:"admission"`
	BackupType string   `json:"backup_type"`
	Writers    Writers  `json:"writers"`
	Volumes    []string `json:"volumes"`
	Mover      Mover    `json:"mover"`
	Retry      Retry    `json:"retry"`
	// Postpone are the gates of preflight that put a run off instead of only warning.
	Postpone []string `json:"postpone"`
}

// JobSelect are the VMs of a job. Exclude is nil when none is left out.
type JobSelect struct {
	Selection
	Exclude *Rules `json:"exclude,omitempty"`
}

// Schedule is when a job is due. One of Cron and Monthly is set.
type Schedule struct {
	Cron    string `json:"cron,omitempty"`
	Monthly string `json:"monthly,omitempty"`
	Zone    string `json:"zone"`
	// Missed is run_once or skip.
	Missed     string   `json:"missed"`
	MaxCatchup Duration `json:"max_catchup"`
	Jitter     Duration `json:"jitter"`
}

// Text is the schedule as pkg/schedule reads it.
func (s Schedule) Text() string {
	if s.Cron != "" {
		return s.Cron
	}
	return s.Monthly
}

// CatchUp is what becomes of missed times, as pkg/schedule reads it.
func (s Schedule) CatchUp() (schedule.CatchUp, error) {
	return schedule.ParseCatchUp(s.Missed, s.MaxCatchup.Duration)
}

// JobWindow is a time in which runs may start, or may not.
type JobWindow struct {
	Name string `json:"name,omitempty"`
	// Effect is allow or deny.
	Effect   string   `json:"effect"`
	Weekdays []string `json:"weekdays,omitempty"`
	Start    string   `json:"start"`
	End      string   `json:"end"`
	Zone     string   `json:"zone"`
}

// Window is the window as pkg/schedule reads it. One without a name is called by its times.
func (w JobWindow) Window() (schedule.Window, error) {
	name := w.Name
	if name == "" {
		name = w.Start + "-" + w.End + " " + w.Zone
	}
	return schedule.ParseWindow(schedule.Row{
		Name: name, Zone: w.Zone, Weekdays: w.Weekdays, Start: w.Start, End: w.End, Effect: schedule.Effect(w.Effect),
	})
}

// Writers say whose failure counts.
type Writers struct {
	Required  []ClassID `json:"required"`
	Tolerated []ClassID `json:"tolerated"`
	Excluded  []ClassID `json:"excluded"`
}

// ClassID is the class id of a VSS writer, in lower case and without braces.
type ClassID string

// UnmarshalJSON reads the text that the schema lets through.
func (c *ClassID) UnmarshalJSON(text []byte) error {
	var s string
	err := json.Unmarshal(text, &s)
	*c = ClassID(strings.ToLower(strings.Trim(s, "{}")))
	return err
}

// Mover is what is done with the snapshot while it exists.
type Mover struct {
	// Kind is none or exec; Command is set for exec only.
	Kind    string   `json:"kind"`
	Command []string `json:"command,omitempty"`
	Limit   Duration `json:"limit"`
	// Silence is how long the command may go without progress; 0 asks for none.
	Silence Duration `json:"silence"`
	// KeepSnapshot is how long the snapshot stays afterwards; 0 removes it at once.
	KeepSnapshot Duration `json:"keep_snapshot"`
}

// Retry says what becomes of a run that failed in a way that may pass.
type Retry struct {
	// Attempts are the windows after the first.
	Attempts int      `json:"attempts"`
	Wait     Duration `json:"wait"`
}
