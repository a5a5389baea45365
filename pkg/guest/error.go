// Package guest opens one session with one guest's agent.
package guest

import (
	"errors"
	"fmt"
	"slices"
)

// Error is what an operator can meet on the way into a guest.
type Error struct {
	// SF is the code of the error catalogue.
	SF string
	// Op is what was tried, as a verb phrase.
	Op  string
	Err error
	// gone is true when nobody is there who could answer.
	gone bool
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Code is the code of the error catalogue.
func (e *Error) Code() string { return e.SF }

// Gone says whether nobody is there who could answer.
func (e *Error) Gone() bool { return e.gone }

// CodeOf finds the code that an error carries, empty when it carries none.
func CodeOf(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return ""
}

// codeProtocol is what a guest is reported with that answers what no agent of ours answers.
const codeProtocol = "SF3901"

// AgentCode is the code that a guest gave, if it is one that our agent gives, else instead. A guest is not trusted: with a
// code of another part, such as that of a refused password, it would have us act on what never happened.
func AgentCode(code, instead string) string {
	if slices.Contains(agentCodes(), code) {
		return code
	}
	return instead
}

// agentCodes are the codes of the agent; a test holds them to its source.
func agentCodes() []string {
	return []string{
		"SF3102", "SF3103", "SF3104", "SF3306", "SF3401", "SF3402", "SF3403", "SF3404", "SF3406", "SF3407", "SF3409", "SF3410", "SF3703",
		"SF3704", "SF3705", "SF3722", "SF3723", "SF3724", "SF3725", "SF3850", "SF4001", "SF4002", "SF4003", "SF4004", "SF4007", "SF4008", "SF4013", "SF4019",
		"SF4020", "SF4021", "SF4022", "SF4023", "SF4031", "SF4032", "SF4033", "SF4034", "SF4035", "SF4036",
		"SF4037", "SF4038", "SF4039", "SF4040", "SF4101", "SF4102", "SF4104", "SF4105", "SF4106", "SF4107",
		"SF4108", "SF4109", "SF4201", "SF4202", "SF4203", "SF4204", "SF4205", "SF4206", "SF4207", "SF4208",
		"SF4209", "SF4210", "SF4211", "SF4212", "SF4213", "SF4214", "SF4215", "SF4216", "SF4217", "SF4303",
		"SF4304", "SF4305", "SF4421", "SF4422", "SF4423", "SF4424", "SF4425", "SF4426", "SF4427", "SF4428",
		"SF4429", "SF4601", "SF4701", "SF4702", "SF4703", "SF4705", "SF4706", "SF4707", "SF4709", "SF4910",
	}
}
