package com_test

import (
	"testing"
	"unsafe"

	"github.com/stillframe/stillframe/pkg/agent/com"
)

func TestGUID(t *testing.T) {
	const text = "1ff4bafb-1cad-4364-8592-221443e14ef6"
	want := com.GUID{0x1ff4bafb, 0x1cad, 0x4364, [8]byte{0x85, 0x92, 0x22, 0x14, 0x43, 0xe1, 0x4e, 0xf6}}
	for _, s := range []string{text, "{" + text + "}", "{1FF4BAFB-1CAD-4364-8592-221443E14EF6}"} {
		if g, err := com.ParseGUID(s); err != nil || g != want {
			t.Errorf("ParseGUID(%s) = %v, %v", s, g, err)
		}
	}
	if want.String() != text || want.Braced() != "{1FF4BAFB-1CAD-4364-8592-221443E14EF6}" {
		t.Errorf("%s, %s", want, want.Braced())
	}
	if size := unsafe.Sizeof(want); size != 16 {
		t.Errorf("a GUID has %d bytes, want 16", size)
	}
	for _, s := range []string{"", text[:35], text + "0", "{" + text, "1ff4bafb-1cad-4364-8592-221443e14efg", "1ff4bafb+1cad-4364-8592-221443e14ef6"} {
		if g, err := com.ParseGUID(s); err == nil {
			t.Errorf("ParseGUID(%q) = %v, want an error", s, g)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustGUID of nonsense does not panic")
		}
	}()
	com.MustGUID("nonsense")
}
