package guests_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stillframe/stillframe/pkg/lab/guests"
)

func segment(numbers ...uint64) []byte {
	var raw []byte
	for _, n := range numbers {
		raw = guests.AppendRecord(raw, n)
	}
	return raw
}

func TestRecordLength(t *testing.T) {
	for _, n := range []uint64{1, 200, 1<<64 - 1} {
		if got := len(guests.AppendRecord(nil, n)); got != guests.RecordBytes {
			t.Errorf("record %d has %d bytes, want %d", n, got, guests.RecordBytes)
		}
	}
}

func TestCountFolder(t *testing.T) {
	flipped := segment(1, 2, 3)
	flipped[guests.RecordBytes+100] ^= 1
	cases := map[string]struct {
		files map[string][]byte
		want  guests.Tally
	}{
		"nothing":      {nil, guests.Tally{}},
		"two segments": {map[string][]byte{"a": segment(1, 2), "b": segment(3)}, guests.Tally{Contiguous: 3, Whole: 3, Files: 2}},
		"a gap":        {map[string][]byte{"a": segment(1, 2, 4)}, guests.Tally{Contiguous: 2, Whole: 3, Files: 1}},
		"first lost":   {map[string][]byte{"a": segment(2, 3)}, guests.Tally{Whole: 2, Files: 1}},
		"one bit":      {map[string][]byte{"a": flipped}, guests.Tally{Contiguous: 1, Whole: 2, Torn: 1, Files: 1}},
		"torn end":     {map[string][]byte{"a": segment(1, 2)[:guests.RecordBytes+9]}, guests.Tally{Contiguous: 1, Whole: 1, Torn: 1, Files: 1}},
		"zeros":        {map[string][]byte{"a": append(segment(1), make([]byte, guests.RecordBytes)...)}, guests.Tally{Contiguous: 1, Whole: 1, Torn: 1, Files: 1}},
	}
	for name, c := range cases {
		dir := t.TempDir()
		for file, raw := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := guests.CountFolder(dir); err != nil || got != c.want {
			t.Errorf("%s: CountFolder = %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func TestCountFileIgnoresFreeSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk1.raw")
	if err := os.WriteFile(path, append(segment(1, 2), make([]byte, 4096)...), 0o600); err != nil {
		t.Fatal(err)
	}
	want := guests.Tally{Contiguous: 2, Whole: 2, Files: 1}
	if got, err := guests.CountFile(path); err != nil || got != want {
		t.Errorf("CountFile = %+v, %v, want %+v", got, err, want)
	}
	if _, err := guests.CountFile(path + ".missing"); err == nil {
		t.Error("CountFile of a missing file = nil, want an error")
	}
}
