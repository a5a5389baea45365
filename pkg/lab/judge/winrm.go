package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// systemPython is Debian's own: the packages that it has are not those of another one in PATH.
const systemPython = "/usr/bin/python3"

// opensslConf lets Python have MD4, which NTLM needs and OpenSSL 3 keeps in its legacy provider.
const opensslConf = `openssl_conf = init
[init]
providers = providers
[providers]
default = current
legacy = old
[current]
activate = 1
[old]
activate = 1
`

// winrmVersion names the versions that a verdict rests on, after NTLM's digest was used once.
const winrmVersion = `
import hashlib, warnings
warnings.simplefilter("ignore")
from importlib.metadata import version
import winrm, requests_ntlm
hashlib.new("md4", b"").digest()
print("pywinrm", version("pywinrm"), "requests_ntlm", version("requests_ntlm"))`

// winrmScript runs one command by python3-winrm, with what it is told on standard input, and writes one line of JSON.
const winrmScript = `
import json, sys, warnings
warnings.simplefilter("ignore")
import winrm
ask = json.load(sys.stdin)
try:
    p = winrm.Protocol(endpoint=ask["endpoint"], transport="ntlm", username=ask["user"], password=ask["password"],
                       message_encryption=ask["encryption"], server_cert_validation="ignore",
                       operation_timeout_sec=20, read_timeout_sec=30)
    shell = p.open_shell()
    try:
        command = p.run_command(shell, ask["command"], ask["args"])
        out, err, status = p.get_command_output(shell, command)
        p.cleanup_command(shell, command)
    finally:
        p.close_shell(shell)
    print(json.dumps({"status": status, "stdout": out.decode(), "stderr": err.decode()}))
except Exception as e:
    print(json.dumps({"refused": type(e).__name__, "why": str(e)}))
`

// WinRMCommand is what is asked of a WinRM server by NTLM.
type WinRMCommand struct {
	// Endpoint is the URL of the service, such as http://127.0.0.1:5985/wsman. A certificate is not checked.
	Endpoint string `json:"endpoint"`
	User     string `json:"user"`
	Password string `json:"password"`
	// Encryption is "always" or "never", as the program has it for message_encryption.
	Encryption string   `json:"encryption"`
	Command    string   `json:"command"`
	Args       []string `json:"args"`
}

// WinRMResult is what came of a command, or the name of the exception by which it did not run.
type WinRMResult struct {
	Status  int    `json:"status"`
	Stdout  string `json:"stdout"`
	Stderr  string `json:"stderr"`
	Refused string `json:"refused"`
	Why     string `json:"why"`
}

// WinRM has python3-winrm run a command. OK means that the command ran, whatever its exit status.
func WinRM(ctx context.Context, c WinRMCommand) (Verdict, WinRMResult, error) {
	v := Verdict{Tool: "python3-winrm", Command: []string{systemPython, "winrm.Protocol", c.Endpoint, c.Command}}
	var err error
	if v.Version, err = python(ctx, winrmVersion, nil); err != nil {
		return v, WinRMResult{}, err
	}
	question, err := json.Marshal(c)
	if err != nil {
		return v, WinRMResult{}, err
	}
	if v.Output, err = python(ctx, winrmScript, question); err != nil {
		return v, WinRMResult{}, err
	}
	var r WinRMResult
	if err := json.Unmarshal([]byte(v.Output), &r); err != nil {
		return v, r, fmt.Errorf("read the answer of python3-winrm %q: %w", v.Output, err)
	}
	v.OK = r.Refused == ""
	return v, r, nil
}

// ProbeWinRM finds out whether python3-winrm can be used here: its modules are there, and MD4.
func ProbeWinRM(ctx context.Context) error {
	if _, err := python(ctx, winrmVersion, nil); err != nil {
		return fmt.Errorf("%w (apt install python3-winrm)", err)
	}
	return nil
}

// python runs a script with nothing of the environment but what it needs: no proxy, no netrc.
func python(ctx context.Context, script string, stdin []byte) (_ string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "stillframe-judge-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conf := filepath.Join(dir, "openssl.cnf")
	if err := os.WriteFile(conf, []byte(opensslConf), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, systemPython, "-I", "-c", script)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=/nonexistent", "OPENSSL_CONF=" + conf}
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("run python3-winrm: %w: %s", err, lastLine(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("run %s: %w", systemPython, err)
	}
	return string(bytes.TrimSpace(out)), nil
}
