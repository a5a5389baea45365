package main

import (
	"errors"
	"fmt"
	"net"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// notify tells systemd how the daemon is, by the protocol of sd_notify(3); without systemd it does nothing.
func (s *service) notify(state string) {
	path := s.c.getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		s.log.Warn("tell systemd", zap.String("state", state), zap.Error(err))
	}
}

// reloadingNow says that a reload begins, and when: systemd takes only the READY=1 that comes after this instant for its end.
func reloadingNow() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}
