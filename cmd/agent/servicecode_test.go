package main

import (
	"testing"

	orchestrator "github.com/stillframe/stillframe/pkg/guest"
)

func TestServiceCode(t *testing.T) {
	for number, code := range serviceCodes {
		if got := serviceCode(number); got != code || orchestrator.AgentCode(got, "") == "" {
			t.Errorf("serviceCode(%d) = %q, which the orchestrator has to know", number, got)
		}
	}
	if got := serviceCode(4711); got != "SF3703" {
		t.Errorf("serviceCode(4711) = %q, want SF3703", got)
	}
}
