package canary

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestFind plants one canary in every spelling: a search that finds nothing anywhere would prove nothing.
func TestFind(t *testing.T) {
	c := New()
	wide := func(order binary.AppendByteOrder) []byte {
		var b []byte
		for _, unit := range utf16.Encode([]rune(c.String())) {
			b = order.AppendUint16(b, unit)
		}
		return b
	}
	quoted, err := json.Marshal([]byte(c.String()))
	if err != nil {
		t.Fatal(err)
	}
	numbers := []int{}
	for _, b := range []byte(c.String()) {
		numbers = append(numbers, int(b))
	}
	list, err := json.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := base64.StdEncoding.EncodeToString([]byte("ab" + c.String()))
	for name, text := range map[string]string{
		"plain": "password=" + c.String() + "\n", "cut at its end": c.String()[:len(c.String())-4], "cut at its beginning": c.String()[4:],
		"%x": fmt.Sprintf("%x", c.String()), "%X": fmt.Sprintf("%X", c.String()), "% x": fmt.Sprintf("% x", c.String()), "%#x": fmt.Sprintf("%# x", c.String()),
		"%v": fmt.Sprintf("{v:%v}", []byte(c.String())), "%#v": fmt.Sprintf("%#v", []byte(c.String())), "%d": fmt.Sprintf("%d", []byte(c.String())),
		"JSON of bytes": string(quoted), "JSON of numbers": string(list), "hex dump": strings.ReplaceAll(hex.EncodeToString([]byte(c.String())), "a", ":a"),
		"base64 of user:password":          base64.StdEncoding.EncodeToString([]byte("user:" + c.String())),
		"base64 in lines":                  wrapped[:20] + "\n " + wrapped[20:],
		"base64 url":                       base64.RawURLEncoding.EncodeToString([]byte("x" + c.String() + "?")),
		"UTF-16LE":                         string(wide(binary.LittleEndian)),
		"UTF-16BE":                         string(wide(binary.BigEndian)),
		"base64 of UTF-16, as powershell":  base64.StdEncoding.EncodeToString(wide(binary.LittleEndian)),
		"hex of UTF-16":                    hex.EncodeToString(wide(binary.LittleEndian)),
		"percent":                          "%" + strings.ToUpper(strings.TrimPrefix(strings.ReplaceAll(fmt.Sprintf("% x", c.String()), " ", "%"), "%")),
		"query":                            "?p=" + url.QueryEscape(c.String()),
		"decimal of UTF-16":                fmt.Sprint(wide(binary.BigEndian)),
		"between other numbers, separated": "1, 2, " + strings.Join(strings.Fields(strings.Trim(fmt.Sprint([]byte(c.String())), "[]")), ", ") + ", 300",
	} {
		if len(c.Find([]byte(text))) == 0 {
			t.Errorf("%s: %q was not found", name, text)
		}
	}
}

func TestFindNothing(t *testing.T) {
	c, other := New(), New()
	for _, text := range []string{"", "CANARY-", other.String(), fmt.Sprintf("%x %d", other.String(), []byte(other.String())), strings.Repeat("0 1 2 a b c ", 1000)} {
		if found := c.Find([]byte(text)); found != nil {
			t.Errorf("Find(%q) = %q", text, found)
		}
	}
}

func TestTree(t *testing.T) {
	c, dir := New(), t.TempDir()
	for path, content := range map[string]string{"clean": "nothing", "leak": fmt.Sprintf("%x", c.String()), c.String(): "named"} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := c.Tree(dir)
	if err != nil || len(found) != 2 {
		t.Errorf("Tree = %q, %v, want the leak and the name", found, err)
	}
	if _, err := c.Tree(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there was searched")
	}
}
