package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/catalog"
	"github.com/stillframe/stillframe/pkg/store"
)

// BenchmarkFaces lists 20,000 VMs, each with a run and 30 windows, over the socket.
func BenchmarkFaces(b *testing.B) {
	const vms, windows = 20_000, 30
	s := serveFaces(b, "")
	ctx := b.Context()
	if err := s.daemon.put(ctx, s.daemon.config.Jobs[0], true); err != nil {
		b.Fatal(err)
	}
	var found []catalog.VM
	for n := range vms {
		found = append(found, catalog.VM{InstanceUUID: uuid.NewString(), Name: fmt.Sprintf("vm-%05d", n), Path: fmt.Sprintf("/DC0/vm/vm-%05d", n)})
	}
	known, err := s.catalog.SawVMs(ctx, "main", found)
	if err != nil {
		b.Fatal(err)
	}
	for _, v := range known {
		s.daemon.targets = append(s.daemon.targets, catalog.Target{VMID: v.ID, VCenter: "main", NotBefore: noon})
	}
	if err := s.daemon.Fire(ctx, "nightly", noon.Add(-time.Hour), ""); err != nil {
		b.Fatal(err)
	}
	err = s.store.Update(ctx, "fill", func(tx store.Tx) error {
		for n := range windows {
			_, err := tx.Exec(ctx, `INSERT INTO window_history (vm_id, seq, at, freeze_us, snapshot_us, thaw_us, late, hold_timeout, mode, road, channel)
				SELECT id, $1, 0, 1500000, 4000000, 200000, 0, 0, 'io', '', '' FROM vms`, n)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	d := client.New(s.socket)
	defer d.Close()
	for name, ask := range map[string]func() (int, error){
		"vms": func() (int, error) {
			all, err := d.VMs(ctx, api.VMFilter{})
			return len(all), err
		},
		"one of vms": func() (int, error) {
			_, err := d.VM(ctx, "vm-10000")
			return vms, err
		},
		"overdue of vms": func() (int, error) {
			all, err := d.VMs(ctx, api.VMFilter{Protection: overdue})
			return len(all), err
		},
		"protection": func() (int, error) {
			c, err := d.Coverage(ctx)
			return c.Overdue, err
		},
		"runs": func() (int, error) {
			all, err := d.Runs(ctx, api.RunFilter{}, 0)
			return len(all), err
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if n, err := ask(); err != nil || n != vms {
					b.Fatalf("%d, %v", n, err)
				}
			}
		})
	}
}
