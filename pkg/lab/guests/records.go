package guests

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/stillframe/stillframe/pkg/lab/judge"
)

const (
	// RecordBytes is the length of one record: "SF1 ", the number as 20 digits, a space, a filler made from the number,
	// a space, the CRC-32C of all before it as 8 hex digits, a line feed.
	RecordBytes = 256
	// SegmentRecords is how many records go into one file; a new file makes the directory change as well.
	SegmentRecords = 200
	// RecordFolder is the directory below the guest's mount that holds the segments.
	RecordFolder = "records"

	recordMagic  = "SF1 "
	fillerDigits = RecordBytes - len(recordMagic) - 20 - 1 - 1 - 8 - 1
)

// AppendRecord appends record number n to buf.
func AppendRecord(buf []byte, n uint64) []byte {
	start := len(buf)
	buf = fmt.Appendf(buf, "%s%020d ", recordMagic, n)
	buf = append(buf, filler(n)...)
	buf = append(buf, ' ')
	return fmt.Appendf(buf, "%08x\n", crc32.Checksum(buf[start:], crc32.MakeTable(crc32.Castagnoli)))
}

func filler(n uint64) string {
	random := rand.New(rand.NewPCG(n, recordSeed))
	raw := make([]byte, (fillerDigits+1)/2)
	for i := range raw {
		raw[i] = byte(random.Uint32())
	}
	return hex.EncodeToString(raw)[:fillerDigits]
}

// recordSeed makes fillers of ours unlike those of another format.
const recordSeed = 0x57111f12a3e

// parseRecord reads one record; ok is false unless every byte is as AppendRecord wrote it.
func parseRecord(b []byte) (n uint64, ok bool) {
	if len(b) != RecordBytes || !strings.HasPrefix(string(b), recordMagic) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[len(recordMagic):len(recordMagic)+20]), 10, 64)
	if err != nil {
		return 0, false
	}
	return n, string(AppendRecord(nil, n)) == string(b)
}

// Tally is what a checker found.
type Tally struct {
	// Contiguous is the highest n for which all records 1 to n are there and whole.
	Contiguous uint64 `json:"contiguous"`
	// Whole counts the whole records, whatever their numbers.
	Whole int `json:"whole"`
	// Torn counts pieces of RecordBytes, or what is left at a file's end, that are no whole record.
	Torn int `json:"torn"`
	// Files counts the segments.
	Files int `json:"files"`
}

// CountFolder checks the segments in a directory.
func CountFolder(dir string) (Tally, error) {
	var t Tally
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		t.Files++
		t.add(raw, seen)
		return nil
	})
	if err != nil {
		return Tally{}, fmt.Errorf("count records in %s: %w", dir, err)
	}
	t.finish(seen)
	return t, nil
}

// CountFile checks one file of records without a file system, as the scripted guest writes it. Zero bytes after the
// last record are free space.
func CountFile(path string) (Tally, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Tally{}, fmt.Errorf("count records: %w", err)
	}
	t := Tally{Files: 1}
	seen := map[uint64]bool{}
	t.add([]byte(strings.TrimRight(string(raw), "\x00")), seen)
	t.finish(seen)
	return t, nil
}

// CountImage checks the records in an ext4 image. debugfs takes them out: nothing is mounted, no journal is replayed.
func CountImage(ctx context.Context, image string) (t Tally, v judge.Verdict, err error) {
	to, err := os.MkdirTemp(filepath.Dir(image), "records-")
	if err != nil {
		return Tally{}, judge.Verdict{}, fmt.Errorf("count records in %s: %w", image, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	if v, err = judge.Dump(ctx, image, "/"+RecordFolder, to); err != nil {
		return Tally{}, v, err
	}
	t, err = CountFolder(to)
	return t, v, err
}

func (t *Tally) add(raw []byte, seen map[uint64]bool) {
	for piece := range slices.Chunk(raw, RecordBytes) {
		n, ok := parseRecord(piece)
		if !ok {
			t.Torn++
			continue
		}
		t.Whole++
		seen[n] = true
	}
}

func (t *Tally) finish(seen map[uint64]bool) {
	for seen[t.Contiguous+1] {
		t.Contiguous++
	}
}
