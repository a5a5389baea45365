package vcenter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"
)

// folderPath is where the files of datastores can be read.
const folderPath = "/folder/"

// serveFolder answers a read of a datastore's file. The simulator would answer anybody, and let anybody write.
func (s *Server) serveFolder(a *answer, r *http.Request) {
	ask := r.Clone(r.Context())
	ask.Method, ask.URL.Path = http.MethodPost, vim25.Path
	_, known := s.authenticated(ask)
	switch {
	case !known:
		a.WriteHeader(http.StatusUnauthorized)
	case r.Method != http.MethodGet:
		a.WriteHeader(http.StatusMethodNotAllowed)
	case s.lacks(types.ManagedObjectReference{}, "Datastore.Browse"):
		a.WriteHeader(http.StatusForbidden)
	default:
		s.model.Service.ServeMux.ServeHTTP(a, r.Clone(r.Context())) // it changes the URL
	}
}

// logStuns adds stuns to the VM's own log, the oldest first, as ESXi does after each snapshot.
func logStuns(lengths ...time.Duration) func(context.Context, *Server, *machine) error {
	return func(_ context.Context, s *Server, m *machine) (err error) {
		vm := s.virtualMachine(m)
		var folder object.DatastorePath
		if !folder.FromString(vm.Config.Files.LogDirectory) {
			return fmt.Errorf("no log directory in %q", vm.Config.Files.LogDirectory)
		}
		store := s.registry().Get(vm.Datastore[0]).(*simulator.Datastore)
		f, err := os.OpenFile(filepath.Join(store.Summary.Url, folder.Path, "vmware.log"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return fmt.Errorf("open the VM's log: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		for i, length := range lengths {
			at := time.Now().Add(time.Duration(i-len(lengths)) * 24 * time.Hour).UTC().Format("2006-01-02T15:04:05.000Z")
			if _, err := fmt.Fprintf(f, "%s In(05) vcpu-0 - Checkpoint_Unstun: vm stopped for %d us\n", at, length.Microseconds()); err != nil {
				return fmt.Errorf("write the VM's log: %w", err)
			}
		}
		return nil
	}
}
