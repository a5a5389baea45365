package audit

import (
	"errors"
	"io/fs"
	"os"
)

// Entries gives up to limit entries, the newest first, that end before the byte offset; 0 means the end of the file. The
// second value is the offset to go on with, 0 at the beginning of the file. Lines that are no entries are left out.
func (l *Log) Entries(before int64, limit int) ([]Entry, int64, error) {
	file, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return []Entry{}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	entries, next, err := page(file, before, limit)
	return entries, next, errors.Join(err, file.Close())
}

func page(file *os.File, before int64, limit int) ([]Entry, int64, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	if before <= 0 || before > info.Size() {
		before = info.Size()
	}
	entries := []Entry{}
	for before > 0 && len(entries) < limit {
		start := max(before-window, 0)
		text := make([]byte, before-start)
		if _, err := file.ReadAt(text, start); err != nil {
			return nil, 0, err
		}
		lines := split(text)
		first := 0
		if start > 0 && len(lines) > 1 {
			first = 1 // its beginning is before the window
		}
		for i := len(lines) - 1; i >= first && len(entries) < limit; i-- {
			before -= int64(len(lines[i].text))
			if lines[i].ended {
				before--
			}
			if e, ok := parse(lines[i].text); ok && lines[i].ended {
				entries = append(entries, e)
			}
		}
	}
	return entries, before, nil
}
