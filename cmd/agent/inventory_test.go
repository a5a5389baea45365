package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stillframe/stillframe/pkg/agent/protocol"
)

func TestVendors(t *testing.T) {
	for name, want := range map[string]string{
		"VeeamVssSupport": "Veeam", "gxcvd(instance001)": "Commvault", "MMS": "Acronis", "MMSX": "", "vmvss": "VMware", "VSS": "", "swprv": "", "": "",
	} {
		if got := vendorOfService(name); got != want {
			t.Errorf("vendorOfService(%q) = %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"VMware Snapshot Provider": "VMware", "Microsoft Software Shadow Copy provider 1.0": "", "qemu guest agent": "QEMU", "": "",
	} {
		if got := vendorOfProvider(name); got != want {
			t.Errorf("vendorOfProvider(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestPrintInventory(t *testing.T) {
	i := inventory{
		Version: "1.2.3", Policies: []policy{{"EnableLUA", "1"}}, Services: []serviceState{{"VSS", "manual", "stopped"}},
		Providers: []providerEntry{{Name: "ours", Ours: true}}, Volumes: []protocol.Volume{{ID: "v", Mounts: []string{`C:\`}}},
		Foreign: []foreign{{"Veeam", "service", "VeeamVssSupport", "running"}}, Problems: []string{"p"},
	}
	var text, object bytes.Buffer
	if err := i.print(&text, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"agent     1.2.3", "policy    EnableLUA = 1\n", "service   VSS: manual, stopped\n", "foreign   Veeam: service VeeamVssSupport, running\n", "problem   p\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, &text)
		}
	}
	if err := i.print(&object, true); err != nil {
		t.Fatal(err)
	}
	var back inventory
	if err := json.Unmarshal(object.Bytes(), &back); err != nil || back.Services[0].Name != "VSS" || back.Foreign[0].Vendor != "Veeam" {
		t.Errorf("JSON = %s, %v", &object, err)
	}
}
