package protocol_test

import (
	"testing"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

func TestSameUUID(t *testing.T) {
	const (
		vsphere = "42136b27-a0c1-8d9e-0011-223344556677"
		smbios  = "276b1342-c1a0-9e8d-0011-223344556677" // first three fields in the other byte order
	)
	cases := map[string]struct {
		a, b string
		want bool
	}{
		"the same":                      {vsphere, vsphere, true},
		"the other byte order":          {vsphere, smbios, true},
		"the other byte order, turned":  {smbios, vsphere, true},
		"upper case and a line's end":   {vsphere, "42136B27-A0C1-8D9E-0011-223344556677\n", true},
		"without dashes":                {"42136b27a0c18d9e0011223344556677", smbios, true},
		"one digit differs":             {vsphere, "42136b27-a0c1-8d9e-0011-223344556678", false},
		"last fields turned":            {vsphere, "42136b27-a0c1-8d9e-1100-223344556677", false},
		"only the first field turned":   {vsphere, "276b1342-a0c1-8d9e-0011-223344556677", false},
		"one is empty":                  {vsphere, "", false},
		"both are empty":                {"", "", false},
		"both are cut in the same way":  {"42136b27", "42136b27", false},
		"both are too long by the same": {vsphere + "0", vsphere + "0", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := protocol.SameUUID(c.a, c.b); got != c.want {
				t.Errorf("SameUUID(%q, %q) = %t, want %t", c.a, c.b, got, c.want)
			}
		})
	}
}
