package svcctl

import "strings"

const (
	// servicePrefix begins the names of the services of our agents.
	servicePrefix = "Stillframe-"
	// labEnv precedes each variable that an agent of the lab takes from its command line.
	labEnv = "--lab-env"
)

// splice puts words behind the program of a command line.
func splice(path string, words []string) string {
	program, rest := cutProgram(path)
	for _, w := range words {
		program += " " + quote(w)
	}
	return program + rest
}

// withoutWords takes what follows labEnv out of a command line, and labEnv with it.
func withoutWords(path string) string {
	program, rest := cutProgram(path)
	for {
		after, found := strings.CutPrefix(rest, " "+labEnv+" ")
		if !found {
			return program + rest
		}
		_, rest = cutWord(after)
	}
}

// cutProgram cuts a command line behind its first word, which CreateProcess reads without any escapes.
func cutProgram(path string) (program, rest string) {
	if strings.HasPrefix(path, `"`) {
		if i := strings.IndexByte(path[1:], '"'); i >= 0 {
			return path[:i+2], path[i+2:]
		}
		return path, ""
	}
	if i := strings.IndexByte(path, ' '); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// cutWord cuts behind a word as quote writes it.
func cutWord(line string) (word, rest string) {
	quoted, backslash := false, false
	for i, c := range line {
		switch {
		case c == '"' && !backslash:
			quoted = !quoted
		case c == ' ' && !quoted:
			return line[:i], line[i:]
		}
		backslash = c == '\\' && !backslash
	}
	return line, ""
}

// quote writes a word so that CommandLineToArgvW reads it as one.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"") {
		return word
	}
	out, backslashes := `"`, 0
	for _, c := range word {
		switch c {
		case '\\':
			backslashes++
		case '"':
			out += strings.Repeat(`\`, backslashes+1)
			backslashes = 0
		default:
			backslashes = 0
		}
		out += string(c)
	}
	return out + strings.Repeat(`\`, backslashes) + `"`
}
