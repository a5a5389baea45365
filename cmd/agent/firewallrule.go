package main

import (
	"encoding/hex"
	"strings"
)

// pushedRule reads a rule as Windows keeps it, and gives its name and its program where both are a pushed agent's; else both are
// empty. The folder bears the name of the rule, so that nobody else's is taken for one.
func pushedRule(text string) (name, program string) {
	for field := range strings.SplitSeq(text, "|") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "Name":
			name = value
		case "App":
			program = value
		}
	}
	id, ours := strings.CutPrefix(name, servicePrefix)
	if raw, err := hex.DecodeString(id); !ours || err != nil || len(raw) != 16 || !strings.Contains(strings.ToLower(program), `\stillframe\`+strings.ToLower(id)+`\`) {
		return "", ""
	}
	return name, program
}
