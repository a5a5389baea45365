package guests

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestSilence: a dial of a silent port gets no answer, one of a closed port gets one.
func TestSilence(t *testing.T) {
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.83.9.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(free.Addr().String())
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := StartSilence(address)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() error {
		conn, err := (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(t.Context(), "tcp", address.String())
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	if err := dial(); !os.IsTimeout(err) {
		t.Errorf("dial of a silent port = %v, want a timeout", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Close = %v, want a refusal", err)
	}
}
