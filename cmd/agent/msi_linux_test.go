package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/lab"
)

// makeMSI packs a program as `make msi` does.
func makeMSI(t *testing.T, program, version string) string {
	t.Helper()
	msi := filepath.Join(t.TempDir(), "stillframe-agent.msi")
	if out, err := exec.Command("../../scripts/msi", program, version, msi).CombinedOutput(); err != nil {
		t.Fatalf("scripts/msi: %v\n%s", err, out)
	}
	return msi
}

// table reads one table of a package by msiinfo, which shares nothing with what made it but the library: rows of fields, without
// the three lines about the columns.
func table(t *testing.T, msi, name string) map[string][]string {
	t.Helper()
	out, err := exec.Command("msiinfo", "export", msi, name).Output()
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(string(out), "\r", ""), "\n"), "\n")
	if err != nil || len(lines) < 3 {
		t.Fatalf("msiinfo export %s: %v, %q", name, err, out)
	}
	rows := map[string][]string{}
	for _, line := range lines[3:] {
		fields := strings.Split(line, "\t")
		rows[fields[0]] = fields[1:]
	}
	return rows
}

func TestMSITables(t *testing.T) {
	lab.Need(t, lab.Msitools)
	program := filepath.Join(t.TempDir(), "some agent.exe")
	if err := os.WriteFile(program, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	msi := makeMSI(t, program, "v1.2.3-4-gabcdef")

	properties := table(t, msi, "Property")
	for name, want := range map[string]string{
		"ProductVersion": "1.2.3", "ProductName": "Stillframe agent", "ALLUSERS": "1", "PORT": "6465", "UpgradeCode": "{8b1d6c52-07f5-4c0e-9c34-6c1de0f7a3b1}",
		"SecureCustomProperties": "ALLOW;PEER;PORT;WIX_DOWNGRADE_DETECTED;WIX_UPGRADE_DETECTED",
	} {
		if got := properties[name]; len(got) != 1 || got[0] != want {
			t.Errorf("property %s = %q, want %q", name, got, want)
		}
	}
	if _, set := properties["PEER"]; set {
		t.Error("the package has an orchestrator of its own")
	}
	// Type 51 sets a property; 18 runs a program of the package, 1024 deferred, 2048 as the system, 256 in a rollback, 64 whatever
	// its status is (Windows Installer, "Summary List of All Custom Action Types").
	want := map[string][]string{
		"SetAllow":       {"51", "ALLOWED", "--allow [ALLOW]", ""},
		"InstallAgent":   {"3090", "AgentExe", "install --peer [PEER] --port [PORT] [ALLOWED]", ""},
		"RollbackAgent":  {"3410", "AgentExe", "uninstall", ""},
		"UninstallAgent": {"3090", "AgentExe", "uninstall", ""},
	}
	if diff := cmp.Diff(want, table(t, msi, "CustomAction")); diff != "" {
		t.Errorf("custom actions (-want +got):\n%s", diff)
	}
	sequence := table(t, msi, "InstallExecuteSequence")
	at := func(action string) int {
		t.Helper()
		if len(sequence[action]) != 2 {
			t.Fatalf("the sequence has no %s: %v", action, sequence)
		}
		n, err := strconv.Atoi(sequence[action][1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, order := range []string{
		"LaunchConditions InstallValidate", "CostFinalize SetAllow InstallInitialize", "RemoveExistingProducts InstallInitialize StopServices UninstallAgent RemoveFiles",
		"InstallInitialize StopServices RemoveFiles InstallFiles RollbackAgent InstallAgent InstallFinalize",
	} {
		for before, after := "", strings.Fields(order); len(after) > 0; after = after[1:] {
			if before != "" && at(before) >= at(after[0]) {
				t.Errorf("%s at %d does not come before %s at %d", before, at(before), after[0], at(after[0]))
			}
			before = after[0]
		}
	}
	for action, condition := range map[string]string{
		"SetAllow": "ALLOW", "InstallAgent": `NOT REMOVE="ALL"`, "RollbackAgent": "NOT Installed AND NOT WIX_UPGRADE_DETECTED",
		"UninstallAgent": `REMOVE="ALL" AND NOT UPGRADINGPRODUCTCODE`,
	} {
		if sequence[action][0] != condition {
			t.Errorf("%s happens when %q, want %q", action, sequence[action][0], condition)
		}
	}
	if _, demanded := table(t, msi, "LaunchCondition")["Installed OR PEER"]; !demanded {
		t.Error("the package does not ask for PEER")
	}
	// 34 = 2 stop at the installation and 32 stop at the removal.
	if got := table(t, msi, "ServiceControl")["StopAgent"]; len(got) != 5 || got[0] != servicePrefixOnWindows+persistent || got[1] != "34" || got[3] != "1" {
		t.Errorf("service control = %q, want a stop of the persistent agent that is waited for", got)
	}
	if got := table(t, msi, "File")["AgentExe"]; len(got) < 3 || got[1] != "stillframe-agent.exe" || got[2] != "9" {
		t.Errorf("file = %q, want the program as stillframe-agent.exe", got)
	}
	if got := table(t, msi, "Directory")["INSTALLDIR"]; len(got) != 2 || got[0] != "ProgramFiles64Folder" || got[1] != "Stillframe" {
		t.Errorf("folder = %q, want Stillframe among the 64-bit programs", got)
	}
	if got := table(t, msi, "Component")["Agent"]; len(got) < 3 || got[2] != "256" {
		t.Errorf("component = %q, want a 64-bit one", got)
	}
	if out, err := exec.Command("msiinfo", "suminfo", msi).Output(); err != nil || !strings.Contains(string(out), "Template: x64;1033") {
		t.Errorf("summary %s, %v, want x64", out, err)
	}
	if got := table(t, makeMSI(t, program, "0123abc-dirty"), "Property")["ProductVersion"]; len(got) != 1 || got[0] != "0.0.0" {
		t.Errorf("a version without numbers is %q, want 0.0.0", got)
	}
}

// servicePrefixOnWindows begins the names of services (scm_windows.go).
const servicePrefixOnWindows = "Stillframe-"
