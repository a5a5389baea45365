package guests_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

// echo is an inside server; the proxy stands before it.
func echo(t *testing.T) *guests.Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				if _, err := io.Copy(c, c); err != nil {
					t.Logf("the inside end saw: %v", err)
				}
				c.Close()
			})
		}
	})
	p, err := guests.StartProxy(t.Context(), "127.0.0.1:0", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Close(), p.Close(), l.Close()); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
	return p
}

func dial(t *testing.T, p *guests.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// fresh makes a round trip over a connection of its own, which a refusing proxy may reset at any point.
func fresh(p *guests.Proxy) error {
	c, err := net.DialTimeout("tcp", p.Addr(), 10*time.Second)
	if err != nil {
		return err
	}
	return errors.Join(c.SetDeadline(time.Now().Add(10*time.Second)), trip(c), c.Close())
}

// trip sends four bytes and reads them back.
func trip(c net.Conn) error {
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func TestProxyCarriesAndEnds(t *testing.T) {
	p := echo(t)
	c := dial(t, p)
	if err := trip(c); err != nil {
		t.Fatal(err)
	}
	if to, from := p.Carried(); to+from != 8 {
		t.Errorf("carried %d bytes, want 8", to+from)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read after the end = %d, %v, want EOF", n, err)
	}
}

func TestProxyCut(t *testing.T) {
	p := echo(t)
	c := dial(t, p)
	if err := trip(c); err != nil {
		t.Fatal(err)
	}
	p.Cut(true)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a cut = %v, want a reset", err)
	}
	if err := fresh(p); err == nil {
		t.Error("a new connection works after a cut that refuses")
	}
	p.Restore()
	if err := fresh(p); err != nil {
		t.Errorf("a new connection after Restore: %v", err)
	}
	p.Cut(false)
	if err := fresh(p); err != nil {
		t.Errorf("a new connection after a cut that does not refuse: %v", err)
	}
}

func TestProxyStall(t *testing.T) {
	p := echo(t)
	c := dial(t, p)
	if err := trip(c); err != nil {
		t.Fatal(err)
	}
	p.Stall()
	if err := c.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if err := trip(c); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("round trip while stalled = %v, want a timeout", err)
	}
	p.Restore()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Errorf("the bytes kept back = %v, want them carried", err)
	}
}

// TestProxyStallToGuest keeps back what goes to the guest while what the guest says arrives.
func TestProxyStallToGuest(t *testing.T) {
	var lc net.ListenConfig
	inside, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := guests.StartProxy(t.Context(), "127.0.0.1:0", inside.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, p)
	peer, err := inside.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(peer.Close(), inside.Close(), p.Close()); err != nil {
			t.Error(err)
		}
	})
	p.StallToGuest()
	if _, err := c.Write([]byte("down")); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Write([]byte("up")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
		t.Errorf("what the guest says = %v, want it carried", err)
	}
	if err := peer.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if n, err := peer.Read(make([]byte, 4)); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("the guest read %d bytes, %v, want a timeout", n, err)
	}
	p.Restore()
	if err := peer.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peer, make([]byte, 4)); err != nil {
		t.Errorf("the bytes kept back = %v, want them carried", err)
	}
}

func TestProxyWithoutInside(t *testing.T) {
	p, err := guests.StartProxy(t.Context(), "127.0.0.1:0", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := fresh(p); err == nil {
		t.Error("a round trip works with nobody inside")
	}
}

// TestProxyShape cuts after a number of bytes in either direction, once, and carries single bytes before it.
func TestProxyShape(t *testing.T) {
	for name, shape := range map[string]guests.Shape{
		"to the guest":   {CutToGuest: 6, Slice: 1, Pause: time.Microsecond},
		"from the guest": {CutFromGuest: 6},
	} {
		p := echo(t)
		if err := p.Shape(shape); err != nil {
			t.Fatal(err)
		}
		opened := make(chan bool, 2)
		p.OnOpen(func() { opened <- true })
		c := dial(t, p)
		if err := trip(c); err != nil { // 4 bytes each way
			t.Fatalf("%s: before the cut: %v", name, err)
		}
		if err := trip(c); err == nil {
			t.Errorf("%s: 8 bytes passed, want 6", name)
		}
		c = dial(t, p)
		for range 3 {
			if err := trip(c); err != nil {
				t.Errorf("%s: after the only cut: %v", name, err)
			}
		}
		if len(opened) != 2 {
			t.Errorf("%s: told of %d connections, want 2", name, len(opened))
		}
	}
	if err := echo(t).Shape(guests.Shape{Slice: -1}); err == nil {
		t.Error("a slice of -1 bytes was taken")
	}
}
