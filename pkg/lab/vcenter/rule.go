package vcenter

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// Action is what a rule does to a call.
type Action int

// The actions. The zero value is refused by Plan.
const (
	noAction Action = iota
	// Fault answers a SOAP fault of the type in Rule.Fault; the simulator does not see the call.
	Fault
	// Unavailable answers HTTP 503; the simulator does not see the call.
	Unavailable
	// Cut closes the connection before the simulator sees the call.
	Cut
	// CutAnswer lets the call happen, then closes the connection instead of answering.
	CutAnswer
	// Stall holds the call back for Rule.Delay (0: until the client leaves or the server is closed), then lets it happen.
	Stall
)

// Rule is one line of the fault plan.
type Rule struct {
	// Method is the SOAP method it applies to (the HTTP method for guest transfers); empty is every method.
	Method string
	// VM is the name, Folder/Name, moref or instance UUID of the VM the call must be about; empty is any call.
	VM     string
	Action Action
	// Fault is the fault type of Action Fault, such as TaskInProgress or NotAuthenticated.
	Fault string
	// Delay is the length of a Stall.
	Delay time.Duration
	// Skip lets that many calls pass first; Count is how many are then hit, 0 is all.
	Skip, Count int
}

type rules struct {
	mu   sync.Mutex
	list []*Rule
}

// Plan adds a rule; the first rule that matches a call is the one that is done. It refuses a rule that could never act.
func (s *Server) Plan(r Rule) error { return s.addRule(&s.rules, r) }

func (s *Server) addRule(to *rules, r Rule) error {
	if r.Action <= noAction || r.Action > Stall {
		return errors.New("plan fault of lab vcenter: the rule has no action")
	}
	if r.Action == Fault {
		if _, err := newFault(r.Fault); err != nil {
			return err
		}
	}
	if r.VM != "" {
		m := s.find(r.VM)
		if m == nil {
			return fmt.Errorf("plan fault of lab vcenter: no VM %q", r.VM)
		}
		r.VM = m.ref.Value
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	to.list = append(to.list, &r)
	return nil
}

// ClearPlan drops all rules.
func (s *Server) ClearPlan() {
	s.rules.mu.Lock()
	defer s.rules.mu.Unlock()
	s.rules.list = nil
}

// take returns the rule for a call and counts it; nil when the call passes.
func (r *rules) take(method, vm string) *Rule {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, rule := range r.list {
		if (rule.Method != "" && rule.Method != method) || (rule.VM != "" && rule.VM != vm) {
			continue
		}
		if rule.Skip > 0 {
			rule.Skip--
			continue
		}
		hit := *rule
		if rule.Count == 1 {
			r.list = append(r.list[:i:i], r.list[i+1:]...)
		} else if rule.Count > 1 {
			rule.Count--
		}
		return &hit
	}
	return nil
}

// newFault makes an empty fault of the named vSphere type.
func newFault(name string) (types.BaseMethodFault, error) {
	kind, ok := types.TypeFunc()(name)
	if !ok {
		return nil, fmt.Errorf("plan fault of lab vcenter: vSphere has no type %q", name)
	}
	fault, ok := reflect.New(kind).Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("plan fault of lab vcenter: vSphere's %q is not a fault", name)
	}
	return fault, nil
}
