package schedule

import "fmt"

// The codes of what an operator wrote.
const (
	codeSchedule = "SF1920"
	codeZone     = "SF1921"
	codeWindow   = "SF1922"
	codeCatchUp  = "SF1923"
)

// Error is a schedule, a zone or a window that cannot be used. Several at once come joined (errors.Join).
type Error struct {
	SF string
	// Field is the part of the row that is wrong: schedule, zone, name, weekdays, start, end, effect, missed or max_catchup.
	Field, Value string
	// Why says what is wrong with it, Try what to write instead.
	Why, Try string
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %s; %s", e.Field, e.Value, e.Why, e.Try) }

// Code is the code in the error catalogue.
func (e *Error) Code() string { return e.SF }
