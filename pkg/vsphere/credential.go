package vsphere

import (
	"context"
	"errors"
	"net/url"
	"sync"
)

// credential reads a secret anew for each use. It remembers one that was refused, so that a wrong password costs exactly
// one attempt until the secret itself changes.
type credential struct {
	source func(context.Context) (*url.Userinfo, error)

	mu      sync.Mutex
	refused *url.Userinfo
	err     error
}

var errNoCredential = errors.New("no user name given")

// read gives the secret, or the remembered refusal if it is still the refused one.
func (c *credential) read(ctx context.Context) (*url.Userinfo, error) {
	if c.source == nil {
		return nil, errNoCredential
	}
	u, err := c.source(ctx)
	if err != nil {
		return nil, err
	}
	if u == nil || u.Username() == "" {
		return nil, errNoCredential
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused != nil && *c.refused == *u {
		return nil, c.err
	}
	return u, nil
}

// refuse remembers that u was refused with err.
func (c *credential) refuse(u *url.Userinfo, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused, c.err = u, err
}
