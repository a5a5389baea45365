package vsphere

import "context"

type guardKey struct{}

// Guard gives a context, and so all that are made of it, with which no call goes out any more once may says why not. may is
// asked before each call, also between freeze and thaw: it must not block.
func Guard(ctx context.Context, may func() error) context.Context {
	return context.WithValue(ctx, guardKey{}, may)
}

// refused says why no call may be made.
func refused(ctx context.Context) error {
	if may, ok := ctx.Value(guardKey{}).(func() error); ok {
		return may()
	}
	return nil
}
