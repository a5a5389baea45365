package main

import "testing"

func TestPushedRule(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for text, want := range map[string]string{
		`v2.30|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=6465|App=C:\Windows\Stillframe\` + id + `\stillframe-agent.exe|Name=Stillframe-` + id + `|`: "Stillframe-" + id,
		`v2.30|App=C:\WINDOWS\STILLFRAME\` + id + `\x.exe|Name=Stillframe-` + id + `|EmbedCtxt=x|`:                                                          "Stillframe-" + id,
		`v2.30|App=C:\other.exe|Name=Stillframe-` + id + `|`:                                                                                                "",
		`v2.30|App=C:\Windows\Stillframe\` + id + `\stillframe-agent.exe|Name=Other|`:                                                                       "",
		`v2.30|App=C:\Windows\Stillframe\` + id + `\stillframe-agent.exe|Name=Stillframe-persistent|`:                                                       "",
		`v2.30|App=C:\Windows\Stillframe\` + id[1:] + `0\stillframe-agent.exe|Name=Stillframe-` + id + `|`:                                                  "",
		`v2.30|Action=Allow|Name=Stillframe-` + id + `|`:                                                                                                    "",
		"": "", "|": "", "Name": "",
	} {
		if name, program := pushedRule(text); name != want || (program == "") != (want == "") {
			t.Errorf("pushedRule(%q) = %q, %q, want %q", text, name, program, want)
		}
	}
}
