package guestops

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stillframe/stillframe/pkg/guest"
)

// maxOutput bounds what is read of a command's output, in bytes.
const maxOutput = 4 << 20

// commandProcessor writes a program's output to a file, which guest operations cannot do by themselves.
const commandProcessor = `C:\Windows\System32\cmd.exe`

// Output runs a command of a pushed agent to its end, and reads what it wrote to standard output. It is for Windows guests;
// args are words without blanks and quotation marks. The output's file goes with the folder, by Remove.
func (a *Access) Output(ctx context.Context, r guest.Remote, args ...string) (output []byte, exit int, err error) {
	if !a.home.service {
		return nil, 0, &guest.Error{SF: "SF3609", Op: "run the agent's " + args[0], Err: errors.New("only the agent for Windows has it")}
	}
	if strings.ContainsAny(strings.Join(args, ""), " \t\"&|<>^%") {
		return nil, 0, fmt.Errorf("run the agent's %q: a word has a letter of the command processor's", args)
	}
	file := a.home.join(r.Dir, "output")
	if err := a.intend(ctx, guest.StageStart, r); err != nil {
		return nil, 0, err
	}
	line := strings.Join(append([]string{r.Exe}, args...), " ") + " > " + file
	pid, err := a.ops.Start(ctx, commandProcessor, []string{"/d", "/s", "/c", line}, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("start the agent's %s: %w", args[0], err)
	}
	if exit, err = a.ops.Wait(ctx, pid); err != nil {
		return nil, 0, fmt.Errorf("wait for the agent's %s: %w", args[0], err)
	}
	output, err = a.ops.Fetch(ctx, file, maxOutput)
	if err != nil {
		return nil, exit, fmt.Errorf("read the output of the agent's %s, which ended with exit code %d: %w", args[0], exit, err)
	}
	return output, exit, nil
}
