package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// variable reads one of the VM's variables in the simulator.
func (s *scene) variable(key string) (value string, set bool) {
	s.t.Helper()
	vm := s.machine()
	s.model.Service.Context.WithLock(vm, func() {
		for _, o := range vm.Config.ExtraConfig {
			if o := o.GetOptionValue(); o.Key == key {
				value, set = optionText(o.Value), true
			}
		}
	})
	return value, set
}

func (s *scene) machine() *simulator.VirtualMachine {
	return s.model.Map().Get(vmRef(s.vm.Moref)).(*simulator.VirtualMachine)
}

// say writes the guest's variable as the hypervisor does for a guest, so that watchers are told. The simulator's AutoUpdate
// would tell of the whole list, which a filter on one key does not match.
func (s *scene) say(text string) {
	s.t.Helper()
	vm, ctx := s.machine(), s.model.Service.Context
	change := types.PropertyChange{Name: pathUp, Op: types.PropertyChangeOpAssign, Val: option(keyUp, text)}
	ctx.WithLock(vm, func() {
		at := slices.IndexFunc(vm.Config.ExtraConfig, func(o types.BaseOptionValue) bool { return o.GetOptionValue().Key == keyUp })
		if at < 0 {
			vm.Config.ExtraConfig, change.Op = append(vm.Config.ExtraConfig, option(keyUp, text)), types.PropertyChangeOpAdd
		} else {
			vm.Config.ExtraConfig[at] = option(keyUp, text)
		}
		ctx.Update(vm, []types.PropertyChange{change})
	})
}

func (s *scene) mailbox() *Mailbox {
	s.t.Helper()
	m, err := OpenMailbox(s.t.Context(), s.e, s.vm)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	return m
}

// hears waits until the guest's text is want. The simulator may tell of a change again when it has told of a later one.
func (s *scene) hears(m *Mailbox, last, want string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for last != want {
		text, err := m.Next(ctx, last)
		if err != nil {
			s.t.Fatalf("after %.20q, before %.20q: %v", last, want, err)
		}
		last = text
	}
}

func TestMailbox(t *testing.T) {
	s := newScene(t, nil)
	s.say("left by a run that died")
	m := s.mailbox()
	if text, _ := s.variable(keyUp); text != "" {
		t.Errorf("the guest's variable is still %q", text)
	}
	ours := strings.Repeat("A.", 22<<10)
	if err := m.Put(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.variable(keyDown); got != ours {
		t.Errorf("our variable has %d characters, want %d", len(got), len(ours))
	}
	s.hears(m, "left by a run that died", "")
	last := ""
	for _, text := range []string{"first", "second", "", "third", ours} {
		s.say(text)
		s.hears(m, last, text)
		last = text
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if text, err := m.Next(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next without news = %.20q, %v, want the deadline", text, err)
	}
	if err := errors.Join(m.Close(t.Context()), m.Close(t.Context())); err != nil {
		t.Error(err)
	}
	for _, key := range []string{keyDown, keyUp} {
		if text, set := s.variable(key); set && text != "" {
			t.Errorf("%s is still %.20q", key, text)
		}
	}
	if err := m.Put(t.Context(), "x"); !errors.Is(err, errMailboxClosed) {
		t.Errorf("Put after Close = %v", err)
	}
	if _, err := m.Next(t.Context(), ""); !errors.Is(err, errMailboxClosed) {
		t.Errorf("Next after Close = %v", err)
	}
}

// What the guest says is waited for, never asked for.
func TestMailboxDoesNotPoll(t *testing.T) {
	s := newScene(t, nil)
	m := s.mailbox()
	if err := m.Put(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	s.take()
	got := make(chan string, 1)
	go func() {
		text, err := m.Next(context.WithoutCancel(t.Context()), "")
		if err != nil {
			text = err.Error()
		}
		got <- text
	}()
	timer := time.After(300 * time.Millisecond)
	<-timer
	s.say("b")
	if text := <-got; text != "b" {
		t.Errorf("Next = %q, want b", text)
	}
	for _, call := range s.take() {
		if call != "WaitForUpdatesEx" {
			t.Errorf("%s was called while nothing was said", call)
		}
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMailboxRefused(t *testing.T) {
	cases := map[string]struct {
		fault types.BaseMethodFault
		times int32 // that it is refused
		code  string
		calls int
	}{
		"busy":          {&types.TaskInProgress{}, 2, "", 3},
		"locked":        {&types.ConcurrentAccess{}, 1, "", 2},
		"busy for ever": {&types.TaskInProgress{}, 99, "SF2201", 4},
		"no privilege":  {&types.NoPermission{PrivilegeId: "VirtualMachine.Config.AdvancedConfig"}, 99, "SF2101", 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var left atomic.Int32 // refusals
			s := newScene(t, func(m *simulator.Model) {
				m.Service.Context.Map.Handler = func(_ *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
					if method.Name == "ReconfigVM_Task" && left.Add(-1) >= 0 {
						return nil, c.fault
					}
					return nil, nil
				}
			})
			m := s.mailbox()
			left.Store(c.times)
			before := s.count("ReconfigVM_Task")
			err := m.Put(t.Context(), "x")
			var coded interface{ Code() string }
			if code := ""; errors.As(err, &coded) {
				code = coded.Code()
				if code != c.code {
					t.Errorf("Put = %v with code %q, want %q", err, code, c.code)
				}
			} else if c.code != "" || err != nil {
				t.Errorf("Put = %v, want the code %q", err, c.code)
			}
			if n := s.count("ReconfigVM_Task") - before; n != c.calls {
				t.Errorf("it took %d calls, want %d", n, c.calls)
			}
			left.Store(0)
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A task that is accepted and then fails is told as well.
func TestMailboxTaskFails(t *testing.T) {
	s := newScene(t, nil)
	m := s.mailbox()
	err := m.once(t.Context(), &types.ReconfigVM_Task{This: vmRef(s.vm.Moref), Spec: types.VirtualMachineConfigSpec{
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: 9999}},
		}},
	}})
	var failed *taskFault
	if !errors.As(err, &failed) {
		t.Errorf("a task that fails gives %v, want its fault", err)
	}
	if err := m.Put(t.Context(), "x"); err != nil {
		t.Errorf("Put after it = %v", err)
	}
}

// The session ends, and with it the collector: the guest is watched anew, and nothing that it says is lost.
func TestMailboxSessionEnds(t *testing.T) {
	s := newScene(t, nil)
	s.shortPolls = true
	m := s.mailbox()
	s.say("before")
	s.hears(m, "", "before")
	endSession(t, s.world, s.e)
	s.say("meanwhile")
	s.hears(m, "before", "meanwhile")
	if err := m.Put(t.Context(), "x"); err != nil {
		t.Errorf("Put = %v", err)
	}
}
