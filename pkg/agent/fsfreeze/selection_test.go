package fsfreeze

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

const guestMounts = `22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:25 / /run rw,nosuid - tmpfs tmpfs rw
30 27 254:16 / /data rw,relatime shared:4 - xfs /dev/vdb rw
31 30 254:17 / /data/db rw,relatime - ext4 /dev/vdc rw
32 27 7:0 / /a rw,relatime - ext4 /dev/loop0 rw
33 27 254:1 / /boot/efi rw,relatime - vfat /dev/vda1 rw
34 27 0:40 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
35 27 0:41 / /mnt/s rw - fuse.sshfs  rw
36 27 0:42 / /merged rw - overlay overlay rw,lowerdir=/l
37 27 0:43 / /tank rw - zfs tank rw
38 27 254:32 / /media ro - ext4 /dev/vdd ro
39 27 254:16 /sub /srv rw - xfs /dev/vdb rw
40 27 254:48 /hosts /etc/hosts rw - ext4 /dev/vde rw
41 27 0:33 /@x /btr rw - btrfs /dev/vdf rw,subvol=/@x
`

func surveyText(t *testing.T, text string, b Bound) ([]mount, []fileSystem) {
	t.Helper()
	mounts, err := parseMountinfo(text)
	if err != nil {
		t.Fatal(err)
	}
	return mounts, survey(mounts, b, func(point string) bool { return point != "/etc/hosts" })
}

func pointsOf(set []fileSystem) []string {
	var points []string
	for _, fs := range set {
		points = append(points, fs.at.point)
	}
	return points
}

func TestSurvey(t *testing.T) {
	_, all := surveyText(t, guestMounts, Bound{AllMounts: true})
	want := map[string]string{
		"/": "", "/run": "in memory", "/srv": "", "/data/db": "", "/a": "", "/boot/efi": "vfat cannot be frozen", "/home": "network file system",
		"/mnt/s": "file system in user space", "/merged": "stacked on other file systems", "/tank": "zfs cannot be frozen", "/media": "read-only",
		"/etc/hosts": "mounted on files only, or hidden under other mounts", "/btr": "",
	}
	for _, fs := range all {
		why, ok := want[fs.points[0]]
		if !ok || fs.why != why || fs.supported != (why == "") {
			t.Errorf("survey has %s supported %v, %q, want %q", fs.points[0], fs.supported, fs.why, why)
		}
		delete(want, fs.points[0])
	}
	if len(want) > 0 {
		t.Errorf("survey lacks %v", want)
	}
}

func TestOrder(t *testing.T) {
	mounts, all := surveyText(t, guestMounts, Bound{AllMounts: true})
	set, err := choose(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A loop device at /a lies in a file of the deeper /data/db, and must still come first.
	got := pointsOf(order(set, mounts, func(device string) []string {
		if device == "7:0" {
			return []string{"/data/db/images/a.img"}
		}
		return nil
	}))
	if want := []string{"/a", "/data/db", "/data", "/btr", "/"}; !slices.Equal(got, want) {
		// xfs 254:16 is /srv and /data; the whole file system is opened at /data.
		t.Errorf("order = %v, want %v", got, want)
	}
}

func TestOrderThroughAMiddleThatIsNotInTheSet(t *testing.T) {
	mounts, all := surveyText(t, guestMounts, Bound{AllMounts: true})
	set, err := choose(all, []string{"/data", "/a", "/a/", "7:0"})
	if err != nil {
		t.Fatal(err)
	}
	got := pointsOf(order(set, mounts, func(device string) []string {
		return map[string][]string{"7:0": {"/data/db/a.img"}, "254:17": {"/data/b.img"}}[device]
	}))
	if want := []string{"/a", "/data"}; !slices.Equal(got, want) {
		t.Errorf("order = %v, want %v", got, want)
	}
}

func TestAllowList(t *testing.T) {
	tests := []struct {
		name  string
		bound Bound
		extra string
		want  []string
	}{
		{name: "zero allows nothing", bound: Bound{}},
		{name: "one", bound: Bound{OnlyMount: []string{"/a"}}, want: []string{"/a"}},
		{name: "the list wins over all", bound: Bound{OnlyMount: []string{"/a"}, AllMounts: true}, want: []string{"/a"}},
		{name: "exact, not below", bound: Bound{OnlyMount: []string{"/data"}}},
		{name: "every mount of it must be listed", bound: Bound{OnlyMount: []string{"/data", "/srv"}}, want: []string{"/data"}},
		{name: "a bind mount of the root", bound: Bound{OnlyMount: []string{"/b"}}, extra: "50 27 254:0 / /b rw - ext4 /dev/vda rw\n"},
		{name: "a subdirectory of the root", bound: Bound{OnlyMount: []string{"/b"}}, extra: "50 27 254:0 /home/b /b rw - ext4 /dev/vda rw\n"},
		{name: "covered by another", bound: Bound{OnlyMount: []string{"/a"}}, extra: "50 32 254:99 / /a rw - ext4 /dev/vdz rw\n", want: []string{"/a"}},
		{name: "not a mount point", bound: Bound{OnlyMount: []string{"/nowhere"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, all := surveyText(t, guestMounts+tt.extra, tt.bound)
			set, err := choose(all, nil)
			if got := pointsOf(set); !slices.Equal(got, tt.want) || (err == nil) != (len(tt.want) > 0) {
				t.Errorf("choose = %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestChooseRefusesWhatItCannotFreeze(t *testing.T) {
	_, all := surveyText(t, guestMounts, Bound{OnlyMount: []string{"/a", "/etc/hosts", "/media"}})
	for request, want := range map[string]string{
		"/home": codeCannot, "/": codeCannot, "254:0": codeCannot, "/media": codeCannot, "/etc/hosts": codeNotOpen, "/none": codeNotOpen, "": codeNotOpen,
	} {
		set, err := choose(all, []string{"/a", request})
		var e *agent.CodedError
		if !errors.As(err, &e) || e.Code != want || set != nil {
			t.Errorf("choose(%q) = %v, %v, want code %s", request, set, err, want)
		}
	}
}

func TestWatchdogArgs(t *testing.T) {
	deadman, mounts, err := parseWatchdogArgs(watchdogArgs(18500*time.Millisecond, 3))
	if err != nil || deadman != 18500*time.Millisecond || mounts != 3 {
		t.Errorf("parseWatchdogArgs = %v, %d, %v", deadman, mounts, err)
	}
	for _, args := range []string{"", "1s", "0s 1", "-1s 1", "2m 1", "1s 0", "1s x", "1s 1 1"} {
		if _, _, err := parseWatchdogArgs(strings.Fields(args)); !errors.Is(err, errWatchdogUsage) {
			t.Errorf("parseWatchdogArgs(%q) = %v, want errWatchdogUsage", args, err)
		}
	}
}
