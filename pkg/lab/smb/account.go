package smb

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// ordinary are users that every Debian has (base-passwd), behind the accounts that are not Administrator's: Samba wants an
// existing user for each. Nothing of theirs is touched.
var ordinary = []string{"daemon", "bin", "sys", "games", "man", "lp", "mail", "news", "proxy", "backup"}

// member is an account with the user behind it.
type member struct {
	Account
	user string
}

func (o Options) members() ([]member, error) {
	free, administrators := ordinary, 0
	var all []member
	for _, a := range o.Accounts {
		switch {
		case a.Name == "" || a.Password == "" || strings.ContainsAny(a.Name+a.Password, "\n\"="):
			return nil, fmt.Errorf("account %q has a name or password that Samba does not take", a.Name)
		case strings.EqualFold(a.Name, administrator):
			administrators++
			all = append(all, member{a, "root"})
		case len(free) > 0:
			all, free = append(all, member{a, free[0]}), free[1:]
		default:
			return nil, fmt.Errorf("more than %d accounts besides %s", len(ordinary), administrator)
		}
	}
	if administrators > 1 {
		return nil, errors.New("two accounts of " + administrator)
	}
	return all, nil
}

// administrators are the users to whom ADMIN$ and C$ are open; with none it is one that no session has.
func administrators(members []member) string {
	var all []string
	for _, m := range members {
		if !m.Ordinary {
			all = append(all, m.user)
		}
	}
	if len(all) == 0 {
		return "nobody"
	}
	return strings.Join(all, " ")
}

func userMap(members []member) string {
	var lines strings.Builder
	for _, m := range members {
		fmt.Fprintf(&lines, "%s = \"%s\"\n", m.user, m.Name)
	}
	return lines.String()
}

// enrol puts an account into Samba's database.
func (s *Server) enrol(ctx context.Context, m member) error {
	if err := s.tool(ctx, m.Password+"\n"+m.Password+"\n", "smbpasswd", "-s", "-a", m.user); err != nil {
		return err
	}
	switch m.State {
	case Good:
		return nil
	case Disabled:
		return s.tool(ctx, "", "smbpasswd", "-d", m.user)
	case Locked:
		return s.tool(ctx, "", "pdbedit", "-r", "-u", m.user, "-c", "[L]")
	case Expired:
		return s.tool(ctx, "", "pdbedit", "-r", "-u", m.user, "-K", "1000000000") // in 2001
	case PasswordExpired:
		return s.tool(ctx, "", "net", "sam", "set", "pwdmustchangenow", m.user, "yes")
	default:
		return fmt.Errorf("account %s is to be %q", m.Name, m.State)
	}
}

// tool runs a program of Samba's for this server's database.
func (s *Server) tool(ctx context.Context, input, name string, args ...string) error {
	config := "-s"
	if name == "smbpasswd" {
		config = "-c" // its -s says that the password comes from standard input
	}
	cmd := exec.CommandContext(ctx, program(name), append([]string{config, s.config()}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// program looks for one of Samba's in PATH, then where Debian keeps those of root.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}
