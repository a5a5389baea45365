package svcctl

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// scripted is a pipe whose peer answers each PDU at once with what answer gives.
type scripted struct {
	t       testing.TB
	answer  func(call uint32, kind byte, number uint16, stub []byte) []byte
	replies bytes.Buffer
	oneByte bool
}

func (s *scripted) Write(p []byte) (int, error) {
	if len(p) < headerSize || int(binary.LittleEndian.Uint16(p[8:])) != len(p) {
		s.t.Errorf("a request of %d bytes is not one whole PDU", len(p))
		return 0, io.ErrClosedPipe
	}
	number, stub := uint16(0), []byte(nil)
	if p[2] == kindRequest {
		number, stub = binary.LittleEndian.Uint16(p[22:]), p[stubAt:]
	}
	s.replies.Write(s.answer(binary.LittleEndian.Uint32(p[12:]), p[2], number, stub))
	return len(p), nil
}

func (s *scripted) Read(p []byte) (int, error) {
	if s.oneByte {
		return iotest.OneByteReader(&s.replies).Read(p)
	}
	return s.replies.Read(p)
}

func encode(kind, flags byte, call uint32, body []byte) []byte {
	out := []byte{5, 0, kind, flags, 0x10, 0, 0, 0}
	out = binary.LittleEndian.AppendUint16(out, uint16(headerSize+len(body)))
	out = binary.LittleEndian.AppendUint16(out, 0)
	return append(binary.LittleEndian.AppendUint32(out, call), body...)
}

// response is a whole response, in fragments of size bytes of stub.
func response(call uint32, stub []byte, size int) []byte {
	var out []byte
	for flags := byte(flagFirst); ; flags = 0 {
		part := stub[:min(size, len(stub))]
		stub = stub[len(part):]
		if len(stub) == 0 {
			flags |= flagLast
		}
		body := binary.LittleEndian.AppendUint32(nil, uint32(len(part)))
		out = append(out, encode(kindResponse, flags, call, append(append(body, 0, 0, 0, 0), part...))...)
		if len(stub) == 0 {
			return out
		}
	}
}

// bound is what Samba 4.17 answers to a bind, but for the address' name.
func bound(call uint32) []byte {
	body := []byte{0xb8, 0x10, 0xb8, 0x10, 1, 0, 0, 0, 13, 0}
	body = append(body, "\\PIPE\\ntsvcs\x00"...)
	body = append(body, 0) // to a multiple of 4
	body = append(body, 1, 0, 0, 0, 0, 0, 0, 0)
	return encode(kindBindAck, 3, call, append(body, transferSyntax[:]...))
}

var some = handle{0: 7, 19: 9}

func numbers(all ...uint32) []byte {
	var s stub
	for _, n := range all {
		s = s.number(n)
	}
	return s
}

// world answers as a service control manager with one service does.
func world(size int) func(call uint32, kind byte, number uint16, in []byte) []byte {
	return func(call uint32, kind byte, number uint16, in []byte) []byte {
		if kind == kindBind {
			return bound(call)
		}
		var s stub
		switch number {
		case callOpenManager, callOpenService:
			s = s.handle(some).number(0)
		case callCreate:
			s = s.null().handle(some).number(0)
		case callQueryStatusEx:
			s = append(s.number(statusSize), numbers(0x10, 1, 0, 1066, 42, 0, 0, 4711, 0)...).number(statusSize).number(0)
		case callQueryConfig:
			s = s.number(ownProcess).number(demandStart).number(0).pointer().null().number(0).null().pointer().pointer()
			s = s.text(`"C:\é.exe" service`).text("LocalSystem").text("a").number(300).number(0)
		case callEnum:
			s = listReply(binary.LittleEndian.Uint32(in[36:]))
		case callClose:
			s = s.handle(handle{}).number(0)
		case callControl:
			s = append(s, numbers(0x10, 3, 0, 0, 0, 0, 0, 0)...)
		default:
			s = s.number(0)
		}
		return response(call, s, size)
	}
}

// listReply gives three services in two pages.
func listReply(resume uint32) stub {
	page := func(names ...string) []byte {
		table, texts := []byte(nil), []byte(nil)
		for _, n := range names {
			table = append(table, numbers(uint32(len(names)*enumEntry+len(texts)), 0, 0x10, 1, 0, 0, 0, 0, 0)...)
			texts = append(texts, stub{}.text(n)[12:]...)
		}
		return append(table, texts...)
	}
	buffer, count, next, code := page("Stillframe-a", "Stillframe-b"), uint32(2), uint32(2), uint32(errorMoreData)
	if resume == 2 {
		buffer, count, next, code = page("VSS"), 1, 0, 0
	}
	s := append(stub{}.number(uint32(len(buffer))), buffer...)
	for len(s)%4 != 0 {
		s = append(s, 0)
	}
	return s.number(0).number(count).pointer().number(next).number(code)
}

func TestCalls(t *testing.T) {
	for _, tc := range []struct {
		name    string
		size    int
		oneByte bool
	}{
		{"one fragment", 4000, false},
		{"fragments of one byte", 1, false},
		{"reads of one byte", 7, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := Open(&scripted{t: t, answer: world(tc.size), oneByte: tc.oneByte})
			if err != nil {
				t.Fatal(err)
			}
			names, err := m.List()
			if diff := cmp.Diff([]string{"Stillframe-a", "Stillframe-b", "VSS"}, names); err != nil || diff != "" {
				t.Errorf("List() = %v, %v", names, err)
			}
			made, err := m.Create("a", "A", `"C:\a.exe"`)
			if err != nil {
				t.Fatal(err)
			}
			s, err := m.OpenService("a")
			if err != nil {
				t.Fatal(err)
			}
			status, err := s.Query()
			want := Status{State: Stopped, Win32Exit: ERROR_SERVICE_SPECIFIC_ERROR, SpecificExit: 42, PID: 4711}
			if err != nil || status != want {
				t.Errorf("Query() = %+v, %v, want %+v", status, err, want)
			}
			path, err := s.ImagePath()
			if want := `"C:\é.exe" service`; err != nil || path != want {
				t.Errorf("ImagePath() = %q, %v, want %q", path, err, want)
			}
			if err := errors.Join(s.Start(), s.Stop(), s.Delete(), s.Close(), s.Close(), made.Close(), m.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRequests holds requests to their form in MS-SCMR, byte by byte.
func TestRequests(t *testing.T) {
	var got [][]byte
	answer := world(4000)
	m, err := Open(&scripted{t: t, answer: func(call uint32, kind byte, number uint16, in []byte) []byte {
		if kind == kindRequest {
			got = append(got, in)
		}
		return answer(call, kind, number, in)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create("ab", "d", "p"); err != nil {
		t.Fatal(err)
	}
	want := append(some[:], numbers(
		3, 0, 3, 'a'|'b'<<16, 0, // name: 3 characters with the NUL, padded
		0x20000, 2, 0, 2, 'd', // display name
		0x10035, 0x10, 3, 0,
		2, 0, 2, 'p',
		0, 0, 0, 0, 0, 0, 0,
	)...)
	if diff := cmp.Diff([][]byte{numbers(0, 0, 7), want}, got); diff != "" {
		t.Errorf("OpenSCManagerW and CreateServiceW (-want +got):\n%s", diff)
	}
}

func TestHostile(t *testing.T) {
	ok := numbers(0, 0, 0, 0, 0, 0) // handle and error of OpenSCManagerW
	fault := func(status uint32) func(uint32) []byte {
		return func(call uint32) []byte { return encode(kindFault, 3, call, numbers(0, 0, status, 0)) }
	}
	for _, tc := range []struct {
		name   string
		answer func(call uint32) []byte
		code   string // "" for an error of the pipe
		again  string // code of the next call, "" when the pipe is not used any more
	}{
		{"access denied", func(c uint32) []byte { return response(c, numbers(0, 0, 0, 0, 0, 5), 99) }, "SF3102", "SF3102"},
		{"no such call", fault(0x1c010002), "SF3405", "SF3405"},
		{"fault of access", fault(5), "SF3102", "SF3102"},
		{"other fault", fault(0x6f7), "SF3408", "SF3408"},
		{"other call's", func(c uint32) []byte { return response(c+1, ok, 99) }, "SF3901", ""},
		{"other kind", func(c uint32) []byte { return encode(kindBindAck, 3, c, ok) }, "SF3901", ""},
		{"no version", func(uint32) []byte { return make([]byte, 64) }, "SF3901", ""},
		{"size in the header", func(c uint32) []byte { b := response(c, ok, 99); b[8] = 3; return b }, "SF3901", ""},
		{"authenticated", func(c uint32) []byte { b := response(c, ok, 99); b[10] = 8; return b }, "SF3901", ""},
		{"other context", func(c uint32) []byte { b := response(c, ok, 99); b[20] = 1; return b }, "SF3901", ""},
		{"second fragment first", func(c uint32) []byte { b := response(c, ok, 99); b[3] = flagLast; return b }, "SF3901", ""},
		{"first fragment twice", func(c uint32) []byte {
			b := response(c, ok, 99)
			b[3] = flagFirst
			return append(b, b...)
		}, "SF3901", ""},
		{"no end of fragments", func(c uint32) []byte {
			out := response(c, make([]byte, fragmentLimit+1), 1)
			return out
		}, "SF3901", ""},
		{"more than a MiB", func(c uint32) []byte { return response(c, make([]byte, replyLimit+1), 65000) }, "SF3901", ""},
		{"short", func(c uint32) []byte { return response(c, ok[:22], 99) }, "SF3901", ""},
		{"long", func(c uint32) []byte { return response(c, append(ok, ok...), 99) }, "SF3901", ""},
		{"EOF", func(uint32) []byte { return nil }, "", ""},
		{"EOF within the header", func(c uint32) []byte { return response(c, ok, 99)[:9] }, "", ""},
		{"EOF within the body", func(c uint32) []byte { return response(c, ok, 99)[:30] }, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			calls, err := bind(&scripted{t: t, answer: func(call uint32, kind byte, number uint16, _ []byte) []byte {
				if kind == kindBind {
					return bound(call)
				}
				return tc.answer(call)
			}})
			if err != nil {
				t.Fatal(err)
			}
			m := Manager{calls: calls}
			_, err = m.OpenService("a")
			if code, pipe := codeOf(err), errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); code != tc.code || pipe != (tc.code == "") {
				t.Errorf("OpenService() = %v with code %q, want %q", err, code, tc.code)
			}
			_, err = m.OpenService("a")
			if unused := strings.Contains(err.Error(), "not used after"); unused != (tc.again == "") || !unused && codeOf(err) != tc.again {
				t.Errorf("the next call: %v, want code %q", err, tc.again)
			}
		})
	}
}

func TestHostileBind(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(call uint32) []byte
		code   string
	}{
		{"refused", func(c uint32) []byte { return encode(kindBindNak, 3, c, []byte{0, 0}) }, "SF3405"},
		{"other interface", func(c uint32) []byte { b := bound(c); b[headerSize+28] = 2; return b }, "SF3405"},
		{"fault", func(c uint32) []byte { return encode(kindFault, 3, c, numbers(0, 0, 5, 0)) }, "SF3102"},
		{"fault without status", func(c uint32) []byte { return encode(kindFault, 3, c, nil) }, "SF3901"},
		{"no result", func(c uint32) []byte { return encode(kindBindAck, 3, c, bound(c)[headerSize:headerSize+20]) }, "SF3901"},
		{"tiny fragments", func(c uint32) []byte { b := bound(c); b[headerSize+2], b[headerSize+3] = 16, 0; return b }, "SF3901"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(&scripted{t: t, answer: func(call uint32, _ byte, _ uint16, _ []byte) []byte { return tc.answer(call) }})
			if code := codeOf(err); code != tc.code {
				t.Errorf("Open() = %v with code %q, want %q", err, code, tc.code)
			}
		})
	}
}

func TestRefusedBeforeSending(t *testing.T) {
	m, err := Open(&scripted{t: t, answer: world(4000)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create("a", "a", strings.Repeat("p", 3000)); !errors.Is(err, ErrTooLong) {
		t.Errorf("a path of 6000 bytes: %v, want ErrTooLong", err)
	}
	if _, err := m.Create("a", "a", "p\x00q"); err == nil {
		t.Error("a path with a NUL was sent")
	}
	if _, err := m.OpenService("a"); err != nil {
		t.Errorf("after what was not sent: %v", err)
	}
}

// TestCodes holds the table to the error catalogue.
func TestCodes(t *testing.T) {
	raw, err := os.ReadFile("../../../advice/data/error-catalogue.csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]string{}
	for _, row := range rows {
		n, err := strconv.ParseUint(row[1], 10, 32)
		if _, ours := codes[uint32(n)]; row[0] == "win32" && err == nil && ours {
			want[uint32(n)] = row[3]
		}
	}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("codes and the rows of the catalogue (-catalogue +codes):\n%s", diff)
	}
	if got := (&Error{Op: "x", Win32: 4711}).Code(); got != "SF3703" {
		t.Errorf("a number without a row is %s, want SF3703", got)
	}
}

func TestHostileList(t *testing.T) {
	entry := func(at uint32, units int) []byte {
		out := append(numbers(at, 0, 0, 0, 0, 0, 0, 0, 0), bytes.Repeat([]byte{'a', 0}, units)...)
		return append(out, 0, 0)
	}
	for _, tc := range []struct {
		name   string
		buffer []byte
		count  uint32
		good   bool
	}{
		{"longest name", entry(enumEntry, nameUnits), 1, true},
		{"longer name", entry(enumEntry, nameUnits+1), 1, false},
		{"no name", entry(enumEntry, 0), 1, false},
		{"outside", entry(600, nameUnits), 1, false},
		{"at the end", entry(enumEntry+2, 0), 1, false},
		{"too many", entry(enumEntry, 2), 2, false},
	} {
		if names, wrong := listed(tc.buffer, tc.count); (wrong == "") != tc.good || len(names) != map[bool]int{true: 1}[tc.good] {
			t.Errorf("%s: %d names, wrong %q", tc.name, len(names), wrong)
		}
	}
}

// FuzzReplies has a peer answer every call with the same bytes: as they are, or as the stub of a whole response.
func FuzzReplies(f *testing.F) {
	for _, number := range []uint16{callOpenManager, callCreate, callQueryStatusEx, callQueryConfig, callEnum, callControl} {
		whole := world(4000)(2, kindRequest, number, make([]byte, 40))
		f.Add(true, whole[stubAt:])
		f.Add(false, whole)
	}
	f.Fuzz(func(t *testing.T, framed bool, data []byte) {
		m, err := Open(&scripted{t: t, answer: func(call uint32, kind byte, number uint16, _ []byte) []byte {
			switch {
			case kind == kindBind:
				return bound(call)
			case number == callOpenManager:
				return response(call, stub{}.handle(some).number(0), 99)
			case framed:
				return response(call, data, 4000)
			default:
				return data
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		known := func(err error) {
			if err != nil && codeOf(err) == "" && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("an error of no known kind: %v", err)
			}
		}
		names, err := m.List()
		known(err)
		if len(names) > 1<<16 {
			t.Errorf("%d names", len(names))
		}
		for _, do := range []func(s *Service) error{
			func(s *Service) error { _, err := s.ImagePath(); return err },
			func(s *Service) error { _, err := s.Query(); return err },
			(*Service).Start, (*Service).Stop, (*Service).Delete, (*Service).Close,
		} {
			known(do(&Service{calls: m.calls, name: "a"}))
		}
		_, err = m.Create("a", "b", "c")
		known(err)
	})
}

func codeOf(err error) string {
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		return coded.Code()
	}
	return ""
}
