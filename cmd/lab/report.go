package main

// report is what the demo reads of the object that `stillframe run -o json` prints.
type report struct {
	APIVersion string `json:"api_version"`
	RunID      string `json:"run_id"`
	VM         struct {
		Name         string `json:"name"`
		Moref        string `json:"moref"`
		InstanceUUID string `json:"instance_uuid"`
	} `json:"vm"`
	Outcome string `json:"outcome"`
	Verdict struct {
		Level   string   `json:"level"`
		Reasons []string `json:"reasons"`
	} `json:"verdict"`
	Window struct {
		Mode               string   `json:"mode"`
		BudgetSeconds      float64  `json:"budget_seconds"`
		HeldAtMostSeconds  *float64 `json:"held_at_most_seconds"`
		HeldByGuestSeconds *float64 `json:"held_by_guest_seconds"`
		Phases             []phase  `json:"phases"`
	} `json:"window"`
	Snapshot struct {
		Name        string   `json:"name"`
		Moref       string   `json:"moref"`
		TaskSeconds *float64 `json:"task_seconds"`
		Removed     bool     `json:"removed"`
	} `json:"snapshot"`
	Guest struct {
		Road         string    `json:"road"`
		Start        string    `json:"start"`
		Channel      string    `json:"channel"`
		AgentVersion string    `json:"agent_version"`
		Attempts     []attempt `json:"attempts"`
	} `json:"guest"`
	Writers  []writer  `json:"writers"`
	Findings []finding `json:"findings"`
}

// writer is one VSS writer of the report.
type writer struct {
	Name             string  `json:"name"`
	ClassID          string  `json:"class_id"`
	State            int     `json:"state"`
	StateName        string  `json:"state_name"`
	Phase            string  `json:"phase"`
	FailureHR        string  `json:"failure_hr"`
	Failure          string  `json:"failure"`
	HoldLimitSeconds float64 `json:"hold_limit_seconds"`
	Required         bool    `json:"required"`
}

type phase struct {
	Name            string  `json:"name"`
	StartSeconds    float64 `json:"start_seconds"`
	DurationSeconds float64 `json:"duration_seconds"`
}

type attempt struct {
	Road    string  `json:"road"`
	Start   string  `json:"start"`
	Stage   string  `json:"stage"`
	OK      bool    `json:"ok"`
	Code    string  `json:"code"`
	Seconds float64 `json:"seconds"`
}

type finding struct {
	Code     string   `json:"code"`
	Title    string   `json:"title"`
	Evidence []string `json:"evidence"`
	Next     []string `json:"next"`
}
