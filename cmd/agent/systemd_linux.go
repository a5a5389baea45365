package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/agent"
)

// unitName is the persistent agent's unit.
const unitName = "stillframe-agent.service"

const (
	// systemctlLimit bounds one call: a stop waits for the release of what is held, 20 s at most, and for its hooks.
	systemctlLimit = 90 * time.Second
	// readyLimit is how long the unit may take to say how its start went, readyPause is between two looks.
	readyLimit = 30 * time.Second
	readyPause = 100 * time.Millisecond
)

// systemd is where units are kept and who is told of them.
type systemd struct {
	booted    string // a folder that is there when systemd runs (sd_booted(3))
	units     string
	systemctl string
}

func (s systemd) runs() bool {
	info, err := os.Stat(s.booted)
	return s.booted != "" && err == nil && info.IsDir()
}

func (s systemd) tell(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), systemctlLimit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, s.systemctl, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// unit is the text of the unit for the program exe with the flags of serve; deploy/agent has it for the packages.
func unit(exe string, args []string) string {
	program, words := quoted(strings.ReplaceAll(exe, "%", "%%")), []string{"serve"}
	for _, a := range args {
		words = append(words, quoted(strings.NewReplacer("%", "%%", "$", "$$").Replace(a))) // no variable stands for a program
	}
	return `[Unit]
Description=Stillframe's agent: freezes this guest for a backup
After=network.target local-fs.target
ConditionPathExists=` + defaultHome + `/` + pinsFile + `
# However often it fails, it is started again: another may have its port for a while.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=` + program + " " + strings.Join(words, " ") + `
# Whatever became of the agent, nothing stays frozen.
ExecStopPost=` + program + ` thaw
Restart=on-failure
RestartSec=1s
# It held the guest when it was stopped, and has released it.
SuccessExitStatus=9
# 20 s of a hold and the hooks behind it.
TimeoutStopSec=75
# The agent's watchdog outlives the agent, and thaws for it.
KillMode=process
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_IPC_LOCK CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
LimitMEMLOCK=infinity
LimitCORE=0
OOMScoreAdjust=-1000
UMask=0077
# The agent has to see the mounts of the system itself: nothing here may give it a mount namespace of its own.
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`
}

// quoted is a word of a unit's command line (systemd.service(5)).
func quoted(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\"'\\;") {
		return word
	}
	return strconv.Quote(word)
}

// runInstall makes this executable, where it lies, the persistent agent of one orchestrator, and prints what it says when it is
// ready. An older installation is replaced; the identity stays.
func runInstall(args []string, stdout, stderr io.Writer) int {
	s, err := parseServe(args, true)
	if err != nil {
		return say(stderr, exitUsage, fmt.Sprintf("install: %v\n%s", err, usage))
	}
	line, err := install(s, args)
	if err != nil {
		return say(stderr, exitFailed, errorLine(err)+"\n")
	}
	if !strings.HasPrefix(line, "READY ") {
		return say(stdout, exitFailed, line)
	}
	return say(stdout, exitOK, line)
}

func install(s settings, args []string) (line string, err error) {
	h, err := openHome(filepath.Dir(s.readyFile), s.peer)
	if err != nil {
		return "", err
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the own executable: %w", err)
	}
	d := currentSeams().systemd
	if !d.runs() {
		return "", &agent.CodedError{Code: "SF3724", Err: fmt.Errorf(
			"systemd does not run here: have your supervisor start \"%s serve\", and \"%s thaw\" after each end of it", exe, exe)}
	}
	if err := replaceBy(writePublic, filepath.Join(d.units, unitName), []byte(unit(exe, withoutPeer(args)))); err != nil {
		return "", fmt.Errorf("write the unit: %w", err)
	}
	if err := d.tell("daemon-reload"); err != nil {
		return "", err
	}
	if err := errors.Join(d.tell("enable", unitName), d.tell("stop", unitName), readyFile{h.path(readyFileName)}.remove(), d.tell("start", unitName)); err != nil {
		return "", err
	}
	for end := time.Now().Add(readyLimit); time.Now().Before(end); time.Sleep(readyPause) {
		text, err := os.ReadFile(h.path(readyFileName))
		if err == nil {
			return string(text), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read what the agent says: %w", err)
		}
	}
	return "", fmt.Errorf("the unit %s is not ready after %v: see systemctl status %s", unitName, readyLimit, unitName)
}

// withoutPeer drops the orchestrator's certificate, which the home keeps and renews.
func withoutPeer(args []string) []string {
	var rest []string
	for i := 0; i < len(args); i++ {
		switch word := strings.TrimLeft(args[i], "-"); {
		case word == "peer":
			i++
		case strings.HasPrefix(word, "peer="):
		default:
			rest = append(rest, args[i])
		}
	}
	return rest
}

// runUninstall removes all that install and the agent made, but not the executable. It may be repeated.
func runUninstall(args []string, _, stderr io.Writer) int {
	if len(args) > 0 {
		return say(stderr, exitUsage, "uninstall: it takes no arguments\n")
	}
	if err := uninstall(); err != nil {
		return say(stderr, exitFailed, fmt.Sprintf("uninstall: %v\n", err))
	}
	return exitOK
}

func uninstall() error {
	s := currentSeams()
	path := filepath.Join(s.systemd.units, unitName)
	_, err := os.Stat(path)
	if err == nil && s.systemd.runs() {
		if err := s.systemd.tell("disable", "--now", unitName); err != nil {
			return err
		}
	}
	for _, file := range []string{path, path + draftSuffix} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the unit: %w", err)
		}
	}
	if err == nil && s.systemd.runs() {
		if err := s.systemd.tell("daemon-reload"); err != nil {
			return err
		}
	}
	if _, err := os.Stat(s.homeDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	release, err := lockHome(s.homeDir)
	if err != nil {
		return err
	}
	return errors.Join(removeHome(s.homeDir), release())
}
