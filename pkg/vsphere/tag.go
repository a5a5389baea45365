package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/pkg/inventory"
)

const (
	tagBatch   = 2000 // VMs in one question for their tags
	tagReaders = 8    // questions at once
)

// tag fills in the tags of an estate; refs are its members. A direct ESXi has no tags.
func (e *Endpoint) tag(ctx context.Context, estate *inventory.Estate, refs []types.ManagedObjectReference) (err error) {
	if e.IsHost() {
		estate.TagsRead = true
		return nil
	}
	client, err := e.logInForTags(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeLimit, errCallLimit)
		defer cancel()
		if left := client.Logout(ctx); left != nil {
			err = errors.Join(err, failure("log out of the tags of", e.host, left))
		}
	}()
	manager := tags.NewManager(client)
	known, err := readTags(ctx, manager)
	if err != nil {
		return failure("read the tags of", e.host, err)
	}
	for _, t := range known {
		estate.Tags = append(estate.Tags, t)
	}
	slices.SortFunc(estate.Tags, compareTags)
	at := make(map[types.ManagedObjectReference]int, len(refs))
	for i, r := range refs {
		at[r] = i
	}
	for batch := range slices.Chunk(refs, tagBatch) {
		attached, err := manager.ListAttachedTagsOnObjects(ctx, references(batch))
		if err != nil {
			return failure("read the tags of VMs of", e.host, err)
		}
		for _, a := range attached {
			i, ok := at[key(a.ObjectID.Reference())]
			if !ok {
				continue
			}
			for _, id := range a.TagIDs {
				if t, ok := known[id]; ok { // else it was made after we had listed them
					estate.Members[i].Tags = append(estate.Members[i].Tags, t)
				}
			}
			slices.SortFunc(estate.Members[i].Tags, compareTags)
		}
	}
	estate.TagsRead = true
	return nil
}

func compareTags(a, b inventory.Tag) int { return strings.Compare(a.String(), b.String()) }

func references(refs []types.ManagedObjectReference) []mo.Reference {
	all := make([]mo.Reference, len(refs))
	for i, r := range refs {
		all[i] = r
	}
	return all
}

// logInForTags opens a session of the REST interface, which alone knows tags, over the endpoint's own connections. A
// password that vCenter has refused is not tried again.
func (e *Endpoint) logInForTags(ctx context.Context) (*rest.Client, error) {
	op := "log in to the tags of"
	user, err := e.account.read(ctx)
	switch {
	case errors.Is(err, errNoCredential):
		return nil, &Error{Op: op, Subject: e.host, SF: "SF1002", Err: err}
	case err != nil:
		return nil, secretFailure(op, e.host, err)
	}
	client := rest.NewClient(e.vim)
	client.CheckRedirect = refuseRedirect
	ctx, cancel := context.WithTimeoutCause(ctx, callLimit, errCallLimit)
	defer cancel()
	if err := client.Login(ctx, user); err != nil {
		return nil, e.restFailure(op, user, err)
	}
	return client, nil
}

// restFailure gives a refused login its code, and has the account remember it.
func (e *Endpoint) restFailure(op string, user *url.Userinfo, err error) error {
	if !rest.IsStatusError(err, http.StatusUnauthorized) {
		return failure(op, e.host, err)
	}
	err = &Error{Op: op, Subject: e.host, SF: "SF2001", Err: err}
	e.account.refuse(user, err)
	return err
}

// readTags reads all tags by their ids, with the names of their categories.
func readTags(ctx context.Context, manager *tags.Manager) (map[string]inventory.Tag, error) {
	ids, err := manager.ListCategories(ctx)
	if err != nil {
		return nil, fmt.Errorf("list categories: %w", err)
	}
	categories := make([]string, len(ids))
	if err := each(ctx, ids, func(i int) error {
		c, err := manager.GetCategory(ctx, ids[i])
		if err == nil {
			categories[i] = c.Name
		}
		return deleted(err)
	}); err != nil {
		return nil, fmt.Errorf("read categories: %w", err)
	}
	names := map[string]string{}
	for i, id := range ids {
		names[id] = categories[i]
	}
	if ids, err = manager.ListTags(ctx); err != nil {
		return nil, fmt.Errorf("list tags: %w", err)
	}
	read := make([]*tags.Tag, len(ids))
	if err := each(ctx, ids, func(i int) error {
		t, err := manager.GetTag(ctx, ids[i])
		if err == nil {
			read[i] = t
		}
		return deleted(err)
	}); err != nil {
		return nil, fmt.Errorf("read tags: %w", err)
	}
	all := make(map[string]inventory.Tag, len(ids))
	for i, t := range read {
		if t != nil {
			all[ids[i]] = inventory.Tag{Category: names[t.CategoryID], Name: t.Name}
		}
	}
	return all, nil
}

// deleted takes what was deleted between the list and the look for nothing.
func deleted(err error) error {
	if rest.IsStatusError(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// each does the work for every index, tagReaders at once, and gives the first error.
func each(ctx context.Context, ids []string, work func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var group sync.WaitGroup
	for range min(tagReaders, len(ids)) {
		group.Go(func() {
			for i := range next {
				if err := work(i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range ids {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	group.Wait()
	return context.Cause(ctx)
}
