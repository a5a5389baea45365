package guests

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// unmountTries bounds the wait for the last program that still runs from a small root.
const unmountTries = 50

// MountRoot puts a tmpfs of sizeBytes on dir, so that a guest's disk can really be full. It needs root. The caller ends
// it with UnmountRoot.
func MountRoot(ctx context.Context, dir string, sizeBytes int64) error {
	if err := system(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0700,nodev,nosuid", sizeBytes), "stillframe-lab", dir); err != nil {
		return fmt.Errorf("make the small disk of a guest: %w", err)
	}
	return nil
}

// UnmountRoot takes the tmpfs away when nothing runs from it any more; after 5 s it is taken out of sight at least, which
// is an error.
func UnmountRoot(ctx context.Context, dir string) error {
	var err error
	for range unmountTries {
		if err = system(ctx, "umount", dir); err == nil {
			return nil
		}
		<-time.After(100 * time.Millisecond)
	}
	return errors.Join(fmt.Errorf("unmount the small disk of a guest: %w", err), system(ctx, "umount", "-l", dir))
}
