package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare"
)

// reach is where a guest is reached, and which roads may be taken.
type reach struct {
	port    uint16
	address string // empty is what VMware Tools report
	road    guest.RoadPolicy
	winrm   adminshare.WinRM
	// keep leaves a pushed agent's program in the guest for the next run.
	keep bool
	// channels are how words may reach the agent, in their order; reverse is where agents dial, nil without that.
	channels []guest.Channel
	reverse  *guest.Reverse
}

// leave stops listening for agents that dial.
func (r reach) leave() error {
	if r.reverse == nil {
		return nil
	}
	return r.reverse.Reverser.Close()
}

// reachFlags say the same on the command line.
type reachFlags struct {
	address   string
	port      uint16
	guestRoad string
	winrm     winrmFlags
	channel   string
	dialTo    string
	lifetime  string
}

// winrmFlags say how a guest's WinRM is reached.
type winrmFlags struct {
	https              bool
	caFile, thumbprint string
}

// flags adds them to a command.
func (f *reachFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.address, "guest-address", "", "address of the guest (default: what VMware Tools report)")
	flags.Uint16Var(&f.port, "agent-port", guest.DefaultPort, "TCP port of the agent in the guest; 0 lets the guest choose")
	f.guestRoad = string(guest.PolicyAuto)
	flags.Var(&choice{&f.guestRoad, guest.RoadPolicies()}, "road", "the only road into the guest: persistent, adminshare (or with one start, adminshare+svcctl, adminshare+winrm), guestops; auto tries them in their order")
	f.channel = channelAuto
	flags.Var(&choice{&f.channel, []string{channelAuto, string(guest.ChannelDirect), string(guest.ChannelReverse), string(guest.ChannelMailbox)}}, "channel",
		"how words reach the agent: we dial it (direct), it dials us (reverse), or through the VM's configuration (mailbox); auto is direct, then reverse where --dial-to is given")
	f.lifetime = lifetimeRun
	flags.Var(&choice{&f.lifetime, []string{lifetimeRun, lifetimeCached}}, "agent-lifetime", "what becomes of a pushed agent: removed after the run, or its program kept in the guest for the next run (cached)")
	flags.StringVar(&f.dialTo, "dial-to", "", "address and port of this machine, as guests reach it, for agents that dial: 192.0.2.1:6466")
	flags.BoolVar(&f.winrm.https, "winrm-https", false, "reach WinRM by https, port 5986, where it starts the agent")
	flags.StringVar(&f.winrm.caFile, "winrm-ca-file", "", "PEM file of the only certificates to trust for that")
	flags.StringVar(&f.winrm.thumbprint, "winrm-thumbprint", "", "SHA-256 of the only certificate to trust for that")
}

// account reads the guest's account. The road to a persistent agent needs none.
func (c *cli) account(f reachFlags) (*url.Userinfo, error) {
	if f.guestRoad == string(guest.PolicyPersistent) && c.getenv("GOVC_GUEST_LOGIN") == "" {
		return url.User(""), nil
	}
	return c.guestAccount()
}

// What becomes of a pushed agent.
const (
	lifetimeRun    = "run"
	lifetimeCached = "cached"
)

// channelAuto is every channel that is there but the mailbox, which is slow and holds only in the mode writer.
const channelAuto = "auto"

// channelsOf are the channels of a setting; dials says whether agents can dial this machine.
func channelsOf(setting string, dials bool) ([]guest.Channel, error) {
	auto := setting == channelAuto || setting == ""
	switch {
	case auto && dials:
		return []guest.Channel{guest.ChannelDirect, guest.ChannelReverse}, nil
	case auto:
		return []guest.Channel{guest.ChannelDirect}, nil
	case setting == string(guest.ChannelReverse) && !dials:
		return nil, missing("agents are to dial this machine, and it is not said where: give the address and port at which guests reach it (--dial-to, guests.dial_to)")
	}
	return []guest.Channel{guest.Channel(setting)}, nil
}

// dialled begins to listen at an address and port at which guests reach this machine; nil without one. With listen it listens
// there instead. The caller closes its Reverser.
func dialled(ctx context.Context, to, listen string) (*guest.Reverse, error) {
	if to == "" {
		return nil, nil
	}
	at, err := netip.ParseAddrPort(to)
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() {
		return nil, invalid("%q is not an address and a port at which guests reach this machine, such as 192.0.2.1:6466", to)
	}
	ctx = context.WithoutCancel(ctx) // an interrupted run still has to thaw
	reverser, err := guest.Listen(ctx, first(listen, to))
	if errors.Is(err, syscall.EADDRNOTAVAIL) && listen == "" { // it is another machine's, which hands on to this one
		reverser, err = guest.Listen(ctx, fmt.Sprintf(":%d", at.Port()))
	}
	if err != nil {
		return nil, invalid("listen for agents that dial: %v", err)
	}
	return &guest.Reverse{Reverser: reverser, Address: to}, nil
}

// reach reads where guests are reached, and begins to listen where agents are to dial. The caller leaves.
func (f reachFlags) reach(ctx context.Context) (r reach, err error) {
	r = reach{port: f.port, address: f.address, road: guest.RoadPolicy(f.guestRoad), keep: f.lifetime == lifetimeCached}
	if r.winrm, err = f.winrm.read(); err != nil {
		return r, err
	}
	if r.channels, err = channelsOf(f.channel, f.dialTo != ""); err != nil {
		return r, err
	}
	r.reverse, err = dialled(ctx, f.dialTo, "")
	return r, err
}

// read checks the flags of WinRM.
func (f winrmFlags) read() (w adminshare.WinRM, err error) {
	w.HTTPS = f.https
	if !f.https && (f.caFile != "" || f.thumbprint != "") {
		return w, invalid("a CA file or a thumbprint for WinRM is for https only: switch that on, or leave them out")
	}
	if f.thumbprint != "" {
		sum, err := hex.DecodeString(strings.ReplaceAll(f.thumbprint, ":", ""))
		if err != nil || len(sum) != len(w.Pin) {
			return w, invalid("the thumbprint for WinRM is not a SHA-256 of 64 hexadecimal digits")
		}
		copy(w.Pin[:], sum)
	}
	if f.caFile != "" {
		text, err := os.ReadFile(f.caFile)
		if err != nil {
			return w, invalid("read the CA file for WinRM: %v", err)
		}
		w.Roots = x509.NewCertPool()
		if !w.Roots.AppendCertsFromPEM(text) {
			return w, invalid("the CA file for WinRM, %s, has no certificate in PEM form", f.caFile)
		}
	}
	return w, nil
}
