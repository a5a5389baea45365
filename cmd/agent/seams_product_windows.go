//go:build !lab

package main

// currentSeams gives the product's values; nothing in the environment changes them.
func currentSeams() seams { return seams{} }

// takeSeams has nothing to take: only builds for the lab are told more on the command line.
func takeSeams(args []string) ([]string, error) { return args, nil }

// giveSeams has nothing to hand on.
func giveSeams() []string { return nil }
