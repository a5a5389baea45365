package fsfreeze

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseMount(t *testing.T) {
	tests := []struct {
		name, line string
		want       mount
	}{
		{"plain", "29 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro", mount{29, "8:2", "/", "/", "ext4", "/dev/sda2", false}},
		{"no optional field", "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard", mount{27, "254:0", "/", "/", "ext4", "/dev/vda", false}},
		{"three optional fields", "98 29 253:3 / /var/lib rw shared:51 master:2 propagate_from:1 - xfs /dev/mapper/vg-lib rw,attr2", mount{98, "253:3", "/", "/var/lib", "xfs", "/dev/mapper/vg-lib", false}},
		{"escapes", `120 29 8:17 / /mnt/a\040b\011c\134d rw - ext4 /dev/sdb1 rw`, mount{120, "8:17", "/", "/mnt/a b\tc\\d", "ext4", "/dev/sdb1", false}},
		{"file bind mount", "300 29 8:2 /srv/hosts /etc/hosts rw,relatime - ext4 /dev/sda2 rw", mount{300, "8:2", "/srv/hosts", "/etc/hosts", "ext4", "/dev/sda2", false}},
		{"read-only bind of a writable one", "301 29 8:2 /srv /opt ro,relatime - ext4 /dev/sda2 rw", mount{301, "8:2", "/srv", "/opt", "ext4", "/dev/sda2", false}},
		{"read-only", "302 29 8:33 / /media ro,relatime - ext4 /dev/sdc1 ro", mount{302, "8:33", "/", "/media", "ext4", "/dev/sdc1", true}},
		{"empty source", "303 29 0:50 / /mnt/x rw - fuse.sshfs  rw,user_id=0", mount{303, "0:50", "/", "/mnt/x", "fuse.sshfs", "", false}},
		{"btrfs subvolume", "304 29 0:33 /@home /home rw,relatime shared:9 - btrfs /dev/sda3 rw,subvol=/@home", mount{304, "0:33", "/@home", "/home", "btrfs", "/dev/sda3", false}},
		{"mount point named like the separator", "305 29 8:1 / /- rw - ext4 /dev/sda1 rw", mount{305, "8:1", "/", "/-", "ext4", "/dev/sda1", false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseMount(tt.line)
			if err != nil || got != tt.want {
				t.Errorf("parseMount(%q) = %+v, %v, want %+v", tt.line, got, err, tt.want)
			}
		})
	}
}

func TestParseMountinfoRefusesBrokenLines(t *testing.T) {
	for _, line := range []string{
		"x", "29 1 8:2 / / rw", "29 1 8:2 / / rw - ext4 /dev/sda2", "a 1 8:2 / / rw - ext4 /dev/sda2 rw",
		"29 1 8 / / rw - ext4 /dev/sda2 rw", "29 1 8:x / / rw - ext4 /dev/sda2 rw", "29 1 8:2 / mnt rw - ext4 /dev/sda2 rw",
	} {
		text := "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n" + line + "\n"
		if got, err := parseMountinfo(text); !errors.Is(err, errMountinfo) {
			t.Errorf("parseMountinfo(%q) = %v, %v, want errMountinfo", text, got, err)
		}
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
	f.Add(`120 29 8:17 / /mnt/a\040b rw shared:1 master:2 - ext4 /dev/sdb1 rw` + "\n\n")
	f.Add("303 29 0:50 / /mnt/x rw - fuse.sshfs  rw")
	f.Add(`1 1 1:1 \ /\ - - - - \400 \0`)
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMountinfo(text)
		if err != nil {
			return
		}
		for _, m := range mounts {
			if !strings.HasPrefix(m.point, "/") || !isDevice(m.device) {
				t.Errorf("parseMountinfo(%q) gave %+v", text, m)
			}
			if strings.ContainsAny(escape(m.point), " \t\n") || unescape(escape(m.point)) != m.point {
				t.Errorf("escape(%q) = %q does not come back", m.point, escape(m.point))
			}
		}
		fs := survey(mounts, Bound{OnlyMount: []string{"/listed"}}, func(string) bool { return true })
		for _, one := range fs {
			if one.supported && !slices.Equal(one.points, []string{"/listed"}) {
				t.Errorf("survey(%q) would freeze %v, which is not in the allow-list", text, one.points)
			}
		}
	})
}
