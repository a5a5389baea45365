//go:build !lab

package main

import "time"

// wallClock is this machine's clock; nothing in the environment changes it.
func wallClock(func(string) string) func() time.Time { return time.Now }
