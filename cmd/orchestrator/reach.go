package main

import (
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"os"
	"strings"

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
}

// reachFlags say the same on the command line.
type reachFlags struct {
	address   string
	port      uint16
	guestRoad string
	winrm     winrmFlags
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

// reach reads where guests are reached.
func (f reachFlags) reach() (reach, error) {
	w, err := f.winrm.read()
	return reach{f.port, f.address, guest.RoadPolicy(f.guestRoad), w}, err
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
