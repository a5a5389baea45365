package com

import "golang.org/x/sys/windows"

// TakeString copies a BSTR that a callee gave us and frees it; nil is the empty string.
func TakeString(s *uint16) string {
	if s == nil {
		return ""
	}
	text := windows.UTF16PtrToString(s)
	sysFreeString(s)
	return text
}
