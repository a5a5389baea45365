package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func event(n int) Event {
	return Event{Who: "uid 1000 (op)", Where: "socket, pid 7", What: "jobs:pause", Object: "nightly-" + strconv.Itoa(n), Result: Intended}
}

// record writes n entries and gives the file.
func record(t *testing.T, n int) (string, *Log) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := New(path, Options{Now: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }})
	t.Cleanup(func() { l.Close() })
	for i := range n {
		if err := l.Append(event(i)); err != nil {
			t.Fatal(err)
		}
	}
	return path, l
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestChain(t *testing.T) {
	path, l := record(t, 3)
	report, err := Verify(bytes.NewReader(read(t, path)), l.Head().SHA256)
	if err != nil || report.Entries != 3 || report.Head != l.Head() || len(report.Torn) > 0 || report.Unfinished > 0 {
		t.Errorf("Verify = %+v, %v; want 3 entries and the head %+v", report, err, l.Head())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want it readable by its owner only", info.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	next := New(path, Options{})
	defer next.Close()
	if err := next.Append(event(3)); err != nil {
		t.Fatal(err)
	}
	if report, err := Verify(bytes.NewReader(read(t, path)), l.Head().SHA256); err != nil || report.Entries != 4 {
		t.Errorf("after a restart Verify = %+v, %v; want 4 entries that hold the former head", report, err)
	}
}

// TestTampering changes the record of five entries in every way that leaves lines whole.
func TestTampering(t *testing.T) {
	path, l := record(t, 5)
	whole := bytes.SplitAfter(read(t, path), []byte("\n"))[:5]
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	other := bytes.Replace(whole[2], []byte("nightly-2"), []byte("nightly-9"), 1)
	for name, c := range map[string]struct {
		text []byte
		head string
		want string
	}{
		"changed":                {join(whole[0], whole[1], other, whole[3], whole[4]), "", "verify entry 3:"},
		"taken out":              {join(whole[0], whole[1], whole[3], whole[4]), "", "verify entry 3:"},
		"put in":                 {join(whole[0], whole[1], whole[1], whole[2], whole[3], whole[4]), "", "verify entry 3:"},
		"swapped":                {join(whole[0], whole[2], whole[1], whole[3], whole[4]), "", "verify entry 2:"},
		"beginning away":         {join(whole[2:]...), "", "verify entry 1:"},
		"no entry":               {join(whole[0], []byte("x\n"), whole[1]), "", "verify entry 2:"},
		"no entry at the end":    {join(whole[0], whole[1], []byte("{}\n")), "", "verify entry 3:"},
		"an empty line":          {join(whole[0], []byte("\n"), whole[1]), "", "verify entry 2:"},
		"too long":               {join(whole[0], bytes.Repeat([]byte("x"), 2*maxLine)), "", "verify entry 2:"},
		"end away, with anchor":  {join(whole[:4]...), l.Head().SHA256, "verify entry 5:"},
		"all away, with anchor":  {nil, l.Head().SHA256, "verify entry 1:"},
		"last one, with anchor":  {join(whole[0], whole[1], whole[2], whole[3], bytes.Replace(whole[4], []byte("nightly-4"), []byte("nightly-5"), 1)), l.Head().SHA256, "verify entry 6:"},
		"end away, no anchor":    {join(whole[:4]...), "", ""},
		"nothing written so far": {nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Verify(bytes.NewReader(c.text), c.head)
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrBroken) || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("Verify says %v, want %q", err, c.want)
			}
		})
	}
}

// TestEveryByte flips each bit of a record's first entries: with the head as anchor none goes unseen.
func TestEveryByte(t *testing.T) {
	path, l := record(t, 3)
	text := read(t, path)
	for i := range text {
		text[i] ^= 1
		report, err := Verify(bytes.NewReader(text), l.Head().SHA256)
		if err == nil && report.Unfinished == 0 {
			t.Fatalf("byte %d was changed and Verify finds nothing", i)
		}
		text[i] ^= 1
	}
}

// TestTornAtEveryByte cuts the last entry off at each byte, as a crash can, twice: what was cut is told by the next entry
// and is never taken out.
func TestTornAtEveryByte(t *testing.T) {
	path, whole := record(t, 2)
	if err := whole.Close(); err != nil {
		t.Fatal(err)
	}
	text := read(t, path)
	first := bytes.IndexByte(text, '\n') + 1
	for cut := first + 1; cut < len(text); cut++ {
		write(t, path, text[:cut])
		report, err := Verify(bytes.NewReader(text[:cut]), "")
		if err != nil || report.Entries != 1 || report.Unfinished != cut-first {
			t.Fatalf("cut at %d: Verify = %+v, %v; want 1 entry and %d bytes behind it", cut, report, err, cut-first)
		}
		l := New(path, Options{})
		if err := l.Append(event(9)); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		now := read(t, path)
		report, err = Verify(bytes.NewReader(now), l.Head().SHA256)
		if err != nil || len(report.Torn) != 1 || report.Torn[0] != "line 2" || !bytes.HasPrefix(now, text[:cut]) {
			t.Fatalf("cut at %d: Verify = %+v, %v; want line 2 told as torn and its bytes kept", cut, report, err)
		}
		// And once more, inside the entry that tells it.
		mark := now[:cut+1+(len(now)-cut)/4]
		write(t, path, mark)
		l = New(path, Options{})
		if err := errors.Join(l.Append(event(9)), l.Close()); err != nil {
			t.Fatal(err)
		}
		now = read(t, path)
		if report, err = Verify(bytes.NewReader(now), l.Head().SHA256); err != nil || len(report.Torn) != 1 || !bytes.HasPrefix(now, mark) {
			t.Fatalf("cut at %d and in its mark: Verify = %+v, %v", cut, report, err)
		}
	}
}

// TestFull lets the file reach a limit in the middle of an entry, as on a full disk, then takes the limit away.
func TestFull(t *testing.T) {
	path, l := record(t, 2)
	size := int64(len(read(t, path)))
	limit := limitFiles(t, uint64(size)+40)
	err := l.Append(event(2))
	if !errors.Is(err, ErrUnwritable) || l.Failures() != 1 {
		t.Fatalf("Append on a full disk = %v with %d failures, want ErrUnwritable and 1", err, l.Failures())
	}
	if err := l.Ready(); !errors.Is(err, ErrUnwritable) {
		t.Errorf("Ready on a full disk = %v, want ErrUnwritable", err)
	}
	limit()
	if err := l.Append(event(3)); err != nil {
		t.Fatal(err)
	}
	report, err := Verify(bytes.NewReader(read(t, path)), l.Head().SHA256)
	if err != nil || len(report.Torn) == 0 {
		t.Errorf("Verify = %+v, %v; want a whole chain that tells what was cut off", report, err)
	}
}

func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	link := filepath.Join(dir, "link")
	write(t, file, nil)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "garbage")
	write(t, garbage, bytes.Repeat([]byte("no entry\n"), window/8))
	for name, path := range map[string]string{
		"no folder": filepath.Join(dir, "none", "audit.jsonl"), "a folder": dir, "a link": link, "no entries in it": garbage,
	} {
		l := New(path, Options{})
		var coded interface{ Code() string }
		if err := l.Append(event(0)); !errors.Is(err, ErrUnwritable) || !errors.As(err, &coded) || coded.Code() != "SF1701" {
			t.Errorf("%s: Append = %v, want ErrUnwritable", name, err)
		}
	}

	one, two := New(file, Options{}), New(file, Options{})
	defer one.Close()
	if err := one.Ready(); err != nil {
		t.Fatal(err)
	}
	if err := two.Append(event(0)); !errors.Is(err, ErrUnwritable) {
		t.Errorf("a second writer: Append = %v, want ErrUnwritable", err)
	}
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	if err := one.Append(event(0)); !errors.Is(err, ErrUnwritable) {
		t.Errorf("after the file was moved away: Append = %v, want ErrUnwritable", err)
	}
	if err := os.Rename(file+".1", file); err != nil {
		t.Fatal(err)
	}
	if err := one.Append(event(0)); err != nil {
		t.Errorf("after the file was put back: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	path, l := record(t, 0)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 5 {
				if err := l.Append(event(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if report, err := Verify(bytes.NewReader(read(t, path)), l.Head().SHA256); err != nil || report.Entries != 40 {
		t.Errorf("Verify = %+v, %v; want 40 entries", report, err)
	}
}

// TestLongAndStrange holds an entry to one line of bounded length, whatever is in it.
func TestLongAndStrange(t *testing.T) {
	path, l := record(t, 1)
	long := strings.Repeat("é\n\x00\xff", 5000)
	if err := l.Append(Event{Who: long, Where: long, What: long, Object: long, Result: Failed, Reason: long}); err != nil {
		t.Fatal(err)
	}
	if report, err := Verify(bytes.NewReader(read(t, path)), l.Head().SHA256); err != nil || report.Entries != 2 {
		t.Errorf("Verify = %+v, %v; want 2 entries", report, err)
	}
}

func TestPages(t *testing.T) {
	path, l := record(t, 10)
	var got []uint64
	for before, pages := int64(0), 0; ; pages++ {
		entries, next, err := l.Entries(before, 3)
		if err != nil || pages > 4 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, e := range entries {
			got = append(got, e.Number)
		}
		if before = next; next == 0 {
			break
		}
	}
	for i, n := range got {
		if len(got) != 10 || n != uint64(10-i) {
			t.Fatalf("the pages hold %v, want 10 to 1", got)
		}
	}
	write(t, path, append(read(t, path), "torn"...))
	if entries, _, err := l.Entries(0, 1); err != nil || len(entries) != 1 || entries[0].Number != 10 {
		t.Errorf("Entries before a torn line = %v, %v; want entry 10", entries, err)
	}
	if entries, next, err := New(path+".none", Options{}).Entries(0, 3); err != nil || len(entries) != 0 || next != 0 {
		t.Errorf("Entries of no file = %v, %d, %v", entries, next, err)
	}
}

// limitFiles lets no file of this process grow beyond size until the returned function is called.
func limitFiles(t *testing.T, size uint64) func() {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	lift := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(lift)
	return lift
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("{}\nx"), "")
	f.Fuzz(func(t *testing.T, text []byte, head string) {
		report, err := Verify(bytes.NewReader(text), head)
		if err == nil && report.Entries > 0 && report.Head.SHA256 == origin {
			t.Errorf("Verify = %+v with the head of an empty record", report)
		}
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		write(t, path, text)
		l := New(path, Options{})
		if err := l.Append(event(0)); err == nil && !bytes.HasPrefix(read(t, path), text) {
			t.Error("Append changed what was there")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l := New(filepath.Join(b.TempDir(), "audit.jsonl"), Options{})
	defer l.Close()
	for b.Loop() {
		if err := l.Append(event(1)); err != nil {
			b.Fatal(err)
		}
	}
}
