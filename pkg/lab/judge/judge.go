// Package judge asks independent programs what they think of what this project made.
//
// Disk images are judged by e2fsprogs, the double of WinRM by python3-winrm; neither shares code with this project. No judge
// mounts an image, and none replays a journal unless its name says so.
package judge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// limit bounds each run of a judge; e2fsck of a 64 MiB image takes 0.1 s.
const limit = 2 * time.Minute

// Verdict is what one program said.
type Verdict struct {
	Tool    string   `json:"tool"`
	Version string   `json:"version"`
	Command []string `json:"command"`
	// Output is what the program wrote, standard error included.
	Output string `json:"output"`
	// OK says whether the program was content; each judge tells what that means.
	OK bool `json:"ok"`
}

// Fsck asks e2fsck whether the file system in image is clean as it lies: a full check which writes nothing, so no
// journal is replayed. OK means exit status 0 without a word about a journal to recover.
func Fsck(ctx context.Context, image string) (Verdict, error) {
	v, code, err := run(ctx, "e2fsck", "-f", "-n", image)
	if err != nil {
		return v, err
	}
	// With -n e2fsck only warns of "skipping journal recovery", and still leaves with 0 when the rest looks well.
	v.OK = code == 0 && !strings.Contains(v.Output, "journal recovery")
	return v, nil
}

// Journal asks dumpe2fs whether the journal in image has to be replayed before use. OK means that it has not.
func Journal(ctx context.Context, image string) (Verdict, error) {
	v, code, err := run(ctx, "dumpe2fs", "-h", image)
	if err != nil {
		return v, err
	}
	if code != 0 {
		return v, fmt.Errorf("read the superblock of %s: dumpe2fs left with %d: %s", image, code, lastLine(v.Output))
	}
	features, ok := field(v.Output, "Filesystem features:")
	if !ok {
		return v, fmt.Errorf("read the superblock of %s: dumpe2fs named no features", image)
	}
	v.OK = !strings.Contains(features, "needs_recovery")
	return v, nil
}

// Dump asks debugfs to copy the directory folder out of image into the existing directory to, without mounting or
// replaying anything. OK means that debugfs opened the image and did not complain.
func Dump(ctx context.Context, image, folder, to string) (Verdict, error) {
	v, code, err := run(ctx, "debugfs", "-R", fmt.Sprintf("rdump %q %q", folder, to), image)
	if err != nil {
		return v, err
	}
	// debugfs leaves with 0 even when a request did not work: its own banner is all that it says when all is well.
	said := strings.TrimSpace(v.Output)
	v.OK = code == 0 && !strings.Contains(said, "\n") && strings.HasPrefix(said, "debugfs ")
	return v, nil
}

// Replay has e2fsck replay the journal of image and repair it in place, as a machine does when it comes up after a
// power cut. OK means that nothing was left unrepaired.
func Replay(ctx context.Context, image string) (Verdict, error) {
	v, code, err := run(ctx, "e2fsck", "-f", "-y", image)
	if err != nil {
		return v, err
	}
	v.OK = code <= 1 // e2fsck(8): 1 = errors corrected, 4 = errors left
	return v, nil
}

// run starts a program of e2fsprogs and returns its exit status.
func run(ctx context.Context, tool string, args ...string) (Verdict, int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	version, err := command(ctx, tool, "-V").CombinedOutput()
	if err != nil {
		return Verdict{Tool: tool}, 0, fmt.Errorf("ask %s for its version: %w", tool, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(version)), "\n")
	v := Verdict{Tool: tool, Version: first, Command: append([]string{tool}, args...)}
	out, err := command(ctx, tool, args...).CombinedOutput()
	v.Output = string(out)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return v, exit.ExitCode(), nil
	}
	if err != nil {
		return v, 0, fmt.Errorf("run %s: %w", tool, err)
	}
	return v, 0, nil
}

func command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, find(tool), args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBUGFS_PAGER=cat")
	return cmd
}

// find looks for a program in PATH, then where Debian keeps e2fsprogs, which is not in every user's PATH.
func find(tool string) string {
	if path, err := exec.LookPath(tool); err == nil {
		return path
	}
	return "/usr/sbin/" + tool
}

func field(output, name string) (string, bool) {
	for line := range strings.Lines(output) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return lines[len(lines)-1]
}
