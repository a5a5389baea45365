package vsphere

import "strings"

// commandLine joins arguments for GuestProgramSpec.Arguments, which is one string: VMware Tools hand it to /bin/sh on Linux
// (open-vm-tools, procMgrPosix.c) and to CreateProcess on Windows. Plain arguments stay as they are.
func commandLine(windows bool, args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		switch {
		case windows:
			quoted[i] = windowsArgument(a)
		default:
			quoted[i] = shellArgument(a)
		}
	}
	return strings.Join(quoted, " ")
}

const plainLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

func shellArgument(a string) string {
	if a != "" && strings.Trim(a, plainLetters) == "" {
		return a
	}
	return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
}

// windowsArgument quotes by the rules of CommandLineToArgvW: backslashes count only before a quotation mark.
func windowsArgument(a string) string {
	if a != "" && !strings.ContainsAny(a, " \t\"") {
		return a
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for _, r := range a {
		switch r {
		case '\\':
			slashes++
		case '"':
			b.WriteString(strings.Repeat(`\`, slashes+1)) // those before it once more, one for the mark itself
			slashes = 0
		default:
			slashes = 0
		}
		b.WriteRune(r)
	}
	b.WriteString(strings.Repeat(`\`, slashes))
	b.WriteByte('"')
	return b.String()
}
