package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab"
)

// TestDoctorRoads has the doctor name what is wrong on the road by the admin share of twelve guests, and nothing of the one that
// is well.
func TestDoctorRoads(t *testing.T) {
	lab.Need(t, lab.Smbd)
	t.Parallel()
	w := start(t, "doctor-roads")
	for _, c := range []struct {
		vm, road string
		want     []string
	}{
		{"well", "adminshare", nil},
		{"wrong-password", "adminshare", []string{"share_logon:fail:SF3001"}},
		{"disabled", "adminshare", []string{"share_logon:fail:SF3002"}},
		{"locked", "adminshare", []string{"share_logon:fail:SF3003"}},
		{"expired", "adminshare", []string{"share_logon:fail:SF3004"}},
		{"filtered", "adminshare", []string{"share_admin:fail:SF3101", "winrm:warn:SF3103"}},
		{"no-admin-share", "adminshare", []string{"share_admin:fail:SF3301"}},
		{"smb1-only", "adminshare", []string{"share_logon:fail:SF3302"}},
		{"full", "adminshare", []string{"share_room:fail:SF3306"}},
		{"firewalled", "adminshare", []string{"share_port:fail:SF3201"}},
		{"no-server", "adminshare", []string{"share_port:fail:SF3202"}},
		{"no-windows", "adminshare", []string{"service_manager:fail:SF3405"}},
		{"winrm-quota", "adminshare+winrm", []string{"winrm:fail:SF3502"}},
		{"winrm-quota", "adminshare", []string{"winrm:warn:SF3502"}},
		{"well", "persistent", []string{"persistent_agent:fail:SF3020"}},
	} {
		env := w.environment(c.vm)
		if c.vm == "wrong-password" {
			env["GOVC_GUEST_LOGIN"] = "Administrator:no-such-word"
			env["STILLFRAME_STATE_DIR"] = filepath.Join(t.TempDir(), "state")
		}
		o := operate(t, env, nil, "doctor", "--vm", c.vm, "--road", c.road, "-o", "json")
		var x examination
		if err := json.Unmarshal([]byte(o.stdout), &x); err != nil {
			t.Fatalf("%s by %s: %v: %s", c.vm, c.road, err, o.stderr)
		}
		x.Checks = slices.DeleteFunc(x.Checks, func(r result) bool {
			return !slices.ContainsFunc(slices.Concat(shareRows(), persistentRow()), func(c inventory.Check) bool { return c.ID == r.ID })
		})
		if got := wrong(x); !slices.Equal(got, c.want) {
			t.Errorf("%s by %s: the doctor found %v, want %v", c.vm, c.road, got, c.want)
		}
		bad := slices.ContainsFunc(x.Checks, func(r result) bool { return r.Status == inventory.CheckFail })
		if bad != (o.exit == exitPreflight) {
			t.Errorf("%s by %s: exit status %d with %v", c.vm, c.road, o.exit, wrong(x))
		}
		for _, r := range x.Checks {
			if r.Status == inventory.CheckFail && len(r.Remedy) == 0 {
				t.Errorf("%s by %s: %s is told without a remedy", c.vm, c.road, r.ID)
			}
		}
	}
}
