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
		names, err := a.look(ctx, windows+home+`\`+f.Name())
		if err != nil {
			return nil, err
		}
		if age > idleAfter || !slices.Contains(names, guest.KeptFile) {
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
	for _, name := range stale {
		if used[name] {
			continue
		}
		if err := a.clearFolder(ctx, windows+home+`\`+name); err != nil {
			return gone, err
		}
		gone = append(gone, name)
	}
	return gone, nil
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

// clearFolder removes the files of a folder of ours, and the folder.
func (a *Access) clearFolder(ctx context.Context, dir string) error {
	names, err := a.look(ctx, dir)
	if guest.CodeOf(err) == codeNotThere {
		return nil
	}
	if err != nil {
		return err
	}
	return a.empty(ctx, dir, names)
}
