// Package com calls and serves COM objects by hand-made tables of methods, without cgo; only on windows/amd64.
//
// On amd64 a GUID handed over by value is a hidden pointer to a copy, so it takes one argument slot in both directions.
package com

//go:generate go run golang.org/x/sys/windows/mkwinsyscall -output zsyscall_windows.go syscall_windows.go
