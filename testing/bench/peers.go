package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

// peersWord makes this program the peers of a node with many windows: it is started as "bench peers FINGERPRINT".
const peersWord = "peers"

// The peers.
const (
	peersVCenters = 8
	peersEach     = 63
	// peersTask is so long that all windows are in flight before the first one ends.
	peersTask = 14 * time.Second
)

// peers are whom one node talks to: vCenters of the lab, and in each VM an agent that holds nothing.
type peers struct {
	VCenters []peersVCenter
	// Fingerprint is that of all agents, in hex; SHA256 what they say of their program.
	Fingerprint string
}

type peersVCenter struct {
	URL, Thumbprint string
	// Guests are the agents' addresses.
	Guests []string
}

// servePeers serves until its standard input ends.
func servePeers(ctx context.Context, node string, in io.Reader, out io.Writer) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var pin protocol.Fingerprint
	if n, err := hex.Decode(pin[:], []byte(node)); err != nil || n != len(pin) {
		return fmt.Errorf("%q is no fingerprint", node)
	}
	own, fingerprint, err := protocol.NewIdentity(time.Hour)
	if err != nil {
		return err
	}
	p := peers{Fingerprint: hex.EncodeToString(fingerprint[:])}
	var agents sync.WaitGroup
	defer agents.Wait()
	for n := range peersVCenters {
		vc := newFront()
		defer vc.Close()
		sum := sha256.Sum256(vc.Certificate().Raw)
		v := peersVCenter{URL: vc.URL + "/sdk", Thumbprint: hex.EncodeToString(sum[:])}
		for i := range peersEach {
			listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			v.Guests = append(v.Guests, listener.Addr().String())
			a := agent.New(agent.Options{
				Version: "bench", ExeSHA256: hex.EncodeToString(make([]byte, 32)), VMUUID: peerUUID(n, i), BootID: "bench",
				OS: protocol.OS{Family: "linux"}, Freezer: &emptyFreezer{}, Idle: waitLimit,
			})
			agents.Go(func() {
				if err := a.Serve(ctx, tls.NewListener(listener, protocol.ServerTLS(own, pin))); err != nil {
					fmt.Fprintf(os.Stderr, "bench: an agent ended: %v\n", err)
				}
			})
		}
		p.VCenters = append(p.VCenters, v)
	}
	if err := json.NewEncoder(out).Encode(p); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	stop()
	return err
}

func peerUUID(vcenter, i int) string { return fmt.Sprintf("4200%04d-0000-0000-0000-%012d", vcenter, i) }

// emptyFreezer is a guest with one file system in which nobody writes.
type emptyFreezer struct{ held bool }

func (f *emptyFreezer) Volumes(context.Context) ([]protocol.Volume, error) { return nil, nil }

func (f *emptyFreezer) Prepare(context.Context, agent.PrepareRequest) (agent.Prepared, error) {
	return agent.Prepared{Volumes: []protocol.Volume{{ID: "8:1", Mounts: []string{"/data"}, Supported: true}}}, nil
}

func (f *emptyFreezer) Freeze(_ context.Context, started func()) (agent.Held, error) {
	started()
	f.held = true
	return agent.Held{}, nil
}

func (f *emptyFreezer) Thaw(context.Context) agent.Release {
	if !f.held {
		return agent.Release{}
	}
	f.held = false
	return agent.Release{Results: []protocol.ThawResult{{Mount: "/data", OK: true}}}
}

func (f *emptyFreezer) Close() error { return nil }
