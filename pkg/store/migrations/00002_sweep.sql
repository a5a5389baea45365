-- +goose Up
-- VMs whose disks vCenter wants consolidated. ours is 1 where a removal of ours left that.
CREATE TABLE consolidations (
	vm_id TEXT PRIMARY KEY,
	vcenter_id TEXT NOT NULL,
	ours SMALLINT NOT NULL,
	since BIGINT NOT NULL,
	attempts BIGINT NOT NULL DEFAULT 0,
	next_attempt_at BIGINT NOT NULL,
	last_error TEXT NOT NULL DEFAULT ''
);

-- The job that would take the VM, but for its exclusions; empty when there is none, or another job takes it.
ALTER TABLE vms ADD COLUMN excluded_by TEXT NOT NULL DEFAULT '';
