package vcenter

import (
	"fmt"
	"slices"

	"github.com/vmware/govmomi/vim25/types"
)

// Guestinfo reads one of the variables that a VM shares with its guest, as the guest would; "" when it is not set.
func (s *Server) Guestinfo(vm, key string) (value string, err error) {
	m, err := s.mustFind(vm)
	if err != nil {
		return "", err
	}
	object := s.virtualMachine(m)
	s.context().WithLock(object, func() {
		for _, o := range object.Config.ExtraConfig {
			if o := o.GetOptionValue(); o.Key == key {
				value = fmt.Sprint(o.Value)
			}
		}
	})
	return value, nil
}

// SetGuestinfo writes a variable as the guest would, and has those told who watch it. The simulator's AutoUpdate would tell
// of the whole list of options, which a filter on one key does not match.
func (s *Server) SetGuestinfo(vm, key, value string) error {
	m, err := s.mustFind(vm)
	if err != nil {
		return err
	}
	ctx, object := s.context(), s.virtualMachine(m)
	option := &types.OptionValue{Key: key, Value: value}
	change := types.PropertyChange{Name: fmt.Sprintf("config.extraConfig[%q]", key), Op: types.PropertyChangeOpAssign, Val: option}
	ctx.WithLock(object, func() {
		at := slices.IndexFunc(object.Config.ExtraConfig, func(o types.BaseOptionValue) bool { return o.GetOptionValue().Key == key })
		if at < 0 {
			object.Config.ExtraConfig, change.Op = append(object.Config.ExtraConfig, option), types.PropertyChangeOpAdd
		} else {
			object.Config.ExtraConfig[at] = option
		}
		ctx.Update(object, []types.PropertyChange{change})
	})
	return nil
}
