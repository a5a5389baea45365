package winrm

import (
	"fmt"
	"strings"
)

// lineLimit is the longest command line that cmd.exe takes, in characters (Microsoft KB830473).
const lineLimit = 8191

// forbidden are the characters with which cmd.exe quotes, expands, chains, redirects, escapes and groups.
const forbidden = `"'` + "`" + `%!&|<>^()`

// commandLine joins a command and its arguments, none of which needs quoting.
func commandLine(command string, args []string) (string, error) {
	words := append([]string{command}, args...)
	length := len(words) - 1
	for _, word := range words {
		if word == "" {
			return "", fmt.Errorf("an empty word in the command line %q", words)
		}
		for _, r := range word {
			if r <= ' ' || r > '~' || strings.ContainsRune(forbidden, r) {
				return "", fmt.Errorf("the word %q of a command line has %q: only names that need no quoting are sent", word, r)
			}
		}
		length += len(word)
	}
	if length > lineLimit {
		return "", fmt.Errorf("a command line of %d characters: cmd.exe takes %d", length, lineLimit)
	}
	return strings.Join(words, " "), nil
}
