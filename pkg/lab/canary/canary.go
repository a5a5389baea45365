// Package canary finds a planted password in whatever a program prints or leaves behind, however it is spelled there.
package canary

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"
)

// Canary is a password that must not be found. It is searched for by halves, so that a text that was cut is found too.
type Canary struct {
	text   string
	pieces []piece
}

// piece is one spelling of a half.
type piece struct {
	form   string
	needle []byte
	// in chooses what is searched.
	in func(views) []byte
}

// views are the readings of a text in which spellings stand without what separates their parts.
type views struct{ raw, letters, hex, numbers []byte }

// New makes a password that nothing else contains: CANARY- and 24 random digits. Random is what both halves have, so that
// one canary is not taken for another.
func New() Canary {
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return Of("CANARY-" + hex.EncodeToString(b[:]))
}

// Of searches for a password that is there already. It needs 16 bytes: halves of a shorter one are found in anything.
func Of(text string) Canary {
	if len(text) < 16 {
		panic("canary: a password of less than 16 bytes")
	}
	c := Canary{text: text}
	middle := len(text) / 2
	for _, half := range []string{text[:middle], text[middle:]} {
		c.pieces = append(c.pieces, spellings("", []byte(half))...)
		for name, order := range map[string]binary.AppendByteOrder{"UTF-16LE": binary.LittleEndian, "UTF-16BE": binary.BigEndian} {
			var wide []byte
			for _, unit := range utf16.Encode([]rune(half)) {
				wide = order.AppendUint16(wide, unit)
			}
			c.pieces = append(c.pieces, spellings(" of "+name, wide)...)
		}
	}
	return c
}

// String is the password.
func (c Canary) String() string { return c.text }

// spellings are the ways in which programs write bytes.
func spellings(of string, b []byte) []piece {
	letters := func(v views) []byte { return v.letters }
	raw := func(v views) []byte { return v.raw }
	pieces := []piece{
		{"bytes" + of, b, raw},
		{"hex" + of, []byte(hex.EncodeToString(b)), func(v views) []byte { return v.hex }},
		{"decimal" + of, []byte(" " + strings.Trim(fmt.Sprint(b), "[]") + " "), func(v views) []byte { return v.numbers }},
	}
	// In base64 a text reads in three ways, by where it begins; what hangs on its neighbours is left out.
	for shift := range 3 {
		for name, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := e.EncodeToString(append(make([]byte, shift), b...))
			from, to := (shift*8+5)/6, (shift+len(b))*8/6
			pieces = append(pieces, piece{name + of, []byte(text[from:to]), letters})
		}
	}
	return pieces
}

// Find names the spellings in which the password, or one half of it, is in the text.
func (c Canary) Find(text []byte) []string {
	v := readings(text)
	var found []string
	seen := map[string]bool{}
	for _, p := range c.pieces {
		if !seen[p.form] && bytes.Contains(p.in(v), p.needle) {
			seen[p.form] = true
			found = append(found, p.form)
		}
	}
	return found
}

// readings makes the views: without white space for base64; the hex digits alone, without 0x and \x, for hex; the numbers alone,
// with one space between, for decimal.
func readings(text []byte) views {
	v := views{raw: text, letters: bytes.Join(bytes.Fields(text), nil), numbers: []byte{' '}}
	lower := bytes.ToLower(text)
	for _, prefix := range []string{"0x", `\x`, `\u00`, `%`} {
		lower = bytes.ReplaceAll(lower, []byte(prefix), nil)
	}
	for _, b := range lower {
		if '0' <= b && b <= '9' || 'a' <= b && b <= 'f' {
			v.hex = append(v.hex, b)
		}
	}
	for _, b := range text {
		switch last := v.numbers[len(v.numbers)-1]; {
		case '0' <= b && b <= '9':
			v.numbers = append(v.numbers, b)
		case last != ' ':
			v.numbers = append(v.numbers, ' ')
		}
	}
	v.numbers = append(v.numbers, ' ')
	return v
}

// Tree searches every file below a folder, and the names; each find is a path and a spelling.
func (c Canary) Tree(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, form := range c.Find([]byte(d.Name())) {
			found = append(found, fmt.Sprintf("name of %s: %s", path, form))
		}
		if !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, form := range c.Find(content) {
			found = append(found, path+": "+form)
		}
		return nil
	})
	return found, err
}
