package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/vsphere"
)

// target is where a one-shot command goes and as whom. A flag wins over its GOVC_ variable.
type target struct {
	vcenter, caFile, thumbprint string
	insecure                    bool
}

// flags adds the flags of a target to a command.
func (t *target) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&t.vcenter, "vcenter", "", "vCenter or ESXi URL (default GOVC_URL)")
	flags.StringVar(&t.caFile, "ca-file", "", "PEM file of the only certificates to trust")
	flags.StringVar(&t.thumbprint, "thumbprint", "", "SHA-256 or SHA-1 thumbprint of the only certificate to trust")
	flags.BoolVar(&t.insecure, "insecure", false, "trust any certificate: for labs only, shown as a finding in every result")
}

// options reads the vCenter's address, account and trust. Passwords come from the environment only, because a command
// line can be read by every user of the machine.
func (c *cli) options(t target) (vsphere.Options, error) {
	address := first(t.vcenter, c.getenv("GOVC_URL"))
	if address == "" {
		return vsphere.Options{}, missing("no vCenter: give --vcenter or set GOVC_URL")
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" { // the error would repeat the address with its password
		return vsphere.Options{}, invalid("the vCenter's address is not a URL such as https://vcenter.example/sdk")
	}
	if strings.Contains(u.Path, "@") { // a password with a slash: what follows it was read as the path
		return vsphere.Options{}, invalid("the vCenter's address has an @ in its path: set GOVC_USERNAME and GOVC_PASSWORD instead of an account in the URL")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/sdk"
	}
	user := u.User
	u.User = nil
	name, password := first(c.getenv("GOVC_USERNAME"), user.Username()), c.getenv("GOVC_PASSWORD")
	if p, ok := user.Password(); ok && password == "" {
		password = p
	}
	if name == "" {
		return vsphere.Options{}, missing("no vCenter account: set GOVC_USERNAME and GOVC_PASSWORD")
	}
	o := vsphere.Options{
		URL: u, Agent: "stillframe/" + version, Now: c.now,
		Login: func(context.Context) (*url.Userinfo, error) { return url.UserPassword(name, password), nil },
	}
	return o, c.trust(t, &o)
}

// trust chooses the one trust root: flags, then GOVC_TLS_CA_CERTS, GOVC_TLS_KNOWN_HOSTS, GOVC_INSECURE, then the
// system's roots.
func (c *cli) trust(t target, o *vsphere.Options) error {
	switch {
	case t.caFile != "" || t.thumbprint != "":
		if t.caFile != "" && t.thumbprint != "" {
			return invalid("--ca-file and --thumbprint exclude each other")
		}
		o.CAFile, o.Thumbprint = t.caFile, t.thumbprint
	case t.insecure:
		o.Insecure = true
	case c.getenv("GOVC_TLS_CA_CERTS") != "":
		files := filepath.SplitList(c.getenv("GOVC_TLS_CA_CERTS"))
		if len(files) != 1 {
			return invalid("GOVC_TLS_CA_CERTS names %d files: give one file with all certificates", len(files))
		}
		o.CAFile = files[0]
	case c.getenv("GOVC_TLS_KNOWN_HOSTS") != "":
		thumbprint, err := knownHost(c.getenv("GOVC_TLS_KNOWN_HOSTS"), o.URL.Host)
		if err != nil {
			return err
		}
		o.Thumbprint = thumbprint
	case truthy(c.getenv("GOVC_INSECURE")):
		o.Insecure = true
	}
	return nil
}

// knownHost looks a host's thumbprint up in a file of "host thumbprint" lines.
func knownHost(file, host string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", invalid("read GOVC_TLS_KNOWN_HOSTS: %v", err)
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		f := strings.Fields(line)
		if len(f) == 2 && (f[0] == host || f[0] == strings.TrimSuffix(host, ":443")) {
			return f[1], nil
		}
	}
	return "", nil // not listed: the system's roots decide, as govc does
}

// guestAccount reads GOVC_GUEST_LOGIN, user:password.
func (c *cli) guestAccount() (*url.Userinfo, error) {
	user, password, ok := strings.Cut(c.getenv("GOVC_GUEST_LOGIN"), ":")
	if !ok || user == "" {
		return nil, missing("no guest account: set GOVC_GUEST_LOGIN to user:password of the guest's root or administrator")
	}
	return url.UserPassword(user, password), nil
}

func truthy(s string) bool {
	b, err := strconv.ParseBool(s)
	return err == nil && b
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
