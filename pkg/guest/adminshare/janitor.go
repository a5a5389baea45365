package adminshare

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/stillframe/stillframe/pkg/guest"
	"github.com/stillframe/stillframe/pkg/guest/adminshare/svcctl"
)

// staleAfter is how old something of ours has to be, by the guest's own clock, before it is taken for a leftover.
const staleAfter = 24 * time.Hour

// idleAfter is how long a program that was kept stays without being used: each use writes into its folder.
const idleAfter = 14 * 24 * time.Hour

// sweep removes what crashed runs left in the guest more than a day ago, whoever's they were: folders with a name as ours have
// below the product's, which no service runs a program of, after stopped demand-start services of them; and programs that were
// kept and not used for 14 days. Nothing else is touched.
// own is our folder of this run, which says what time it is in the guest. What cannot be removed is left for another time.
func (a *Access) sweep(ctx context.Context, own string) (gone []string, err error) {
	var files []fs.FileInfo
	err = a.with(ctx, "look for leftovers", func(s *session) (err error) {
		files, err = s.admin.List(ctx, home)
		return err
	})
	now := slices.IndexFunc(files, func(f fs.FileInfo) bool { return f.Name() == own })
	if err != nil || now < 0 {
		return nil, err
	}
	var stale []string
	for _, f := range files {
		id, err := hex.DecodeString(f.Name())
		age := files[now].ModTime().Sub(f.ModTime())
		if err != nil || len(id) != 16 || !f.IsDir() || age <= staleAfter {
			continue
		}
		if names, err := a.look(ctx, windows+home+`\`+f.Name()); err == nil && (age > idleAfter || !slices.Contains(names, guest.KeptFile)) {
			stale = append(stale, f.Name())
		}
	}
	if len(stale) == 0 {
		return nil, nil
	}
	used, err := (&services{a}).used(ctx, stale)
	if err != nil {
		return nil, err
	}
	var again []fs.FileInfo
	err = a.with(ctx, "look for leftovers once more", func(s *session) (err error) {
		again, err = s.admin.List(ctx, home)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range stale {
		same := func(f fs.FileInfo) bool { return f.Name() == name }
		before, after := slices.IndexFunc(files, same), slices.IndexFunc(again, same)
		if used[name] || after < 0 || !files[before].ModTime().Equal(again[after].ModTime()) { // another orchestrator has just begun with it
			continue
		}
		if a.discard(ctx, windows+home+`\`+name) == nil {
			gone = append(gone, name)
		}
	}
	return gone, ctx.Err()
}

// used says which of the folders a service runs a program of. A service of ours that has stopped, and whose deployment is one of
// the folders, is taken out first.
func (s *services) used(ctx context.Context, folders []string) (map[string]bool, error) {
	used := map[string]bool{}
	err := s.manage(ctx, func(m *svcctl.Manager) error {
		names, err := m.List()
		if err != nil {
			return err
		}
		for _, name := range names {
			if len(name) < len(servicePrefix) || !strings.EqualFold(name[:len(servicePrefix)], servicePrefix) {
				continue
			}
			if err := s.usedBy(m, name, folders, used); err != nil {
				return err
			}
		}
		return nil
	})
	return used, err
}

func (s *services) usedBy(m *svcctl.Manager, name string, folders []string, used map[string]bool) error {
	one, err := find(m, name)
	if one == nil || err != nil {
		return err
	}
	path, err := one.ImagePath()
	status, statusErr := one.Query()
	if err := errors.Join(err, statusErr); err != nil {
		return errors.Join(err, one.Close())
	}
	for _, folder := range folders {
		if !strings.Contains(strings.ToLower(path), `\`+strings.ToLower(home)+`\`+folder+`\`) {
			continue
		}
		own := strings.EqualFold(name, servicePrefix+folder)
		if own && status.State == svcctl.Stopped {
			err = errors.Join(err, ignore(one.Delete(), svcctl.ERROR_SERVICE_MARKED_FOR_DELETE))
			continue
		}
		used[folder] = true
	}
	return errors.Join(err, one.Close())
}

// discard removes a folder of ours, its program first: one that cannot be removed is somebody's, and all of it stays. Each file is
// tried once.
func (a *Access) discard(ctx context.Context, dir string) error {
	names, err := a.look(ctx, dir)
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(x, y string) int { return strings.Compare(rank(x), rank(y)) })
	for _, name := range append(names, "") {
		path := strings.TrimSuffix(dir+`\`+name, `\`)
		if err := a.with(ctx, "remove "+path, func(s *session) error { return s.admin.Remove(ctx, below(path)) }); err != nil && guest.CodeOf(err) != codeNotThere {
			return err
		}
	}
	return nil
}

// rank puts programs before all other files.
func rank(name string) string {
	if strings.HasSuffix(strings.ToLower(name), ".exe") {
		return ""
	}
	return name
}

// tidyLimit is what a run gives to leftovers of others, at most a quarter of what it has.
const tidyLimit = 5 * time.Second

// tidy sweeps before the agent is started, which then takes away the firewall's rules of programs that are gone. Leftovers of
// others are no failure of this run's; the next one tries again.
func (a *Access) tidy(ctx context.Context, own string) {
	limit := tidyLimit
	if deadline, bounded := ctx.Deadline(); bounded {
		limit = min(limit, time.Until(deadline)/4)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := a.sweep(ctx, own); err != nil {
		a.drop(ctx)
	}
}
