-- +goose Up
-- Ticks that were fired, but for the VMs of a vCenter that nobody has asked yet which they are.
CREATE TABLE ticks_owed (
	job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
	vcenter_id TEXT NOT NULL,
	scheduled_for BIGINT NOT NULL,
	trigger TEXT NOT NULL,
	requested_by TEXT NOT NULL,
	skip TEXT NOT NULL,
	PRIMARY KEY (job_id, vcenter_id)
);
