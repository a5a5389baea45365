package guest

import "github.com/stillframe/stillframe/pkg/freezewindow"

// Writers are the VSS writers as they said of themselves when the agent was armed, before any freeze; none before Arm, and
// in Linux guests.
func (s *Session) Writers() []freezewindow.Writer {
	if s.Ready == nil {
		return nil
	}
	return writers(s.Ready.Writers)
}
