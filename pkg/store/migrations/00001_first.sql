-- Times are BIGINT Unix milliseconds, UTC; 0 is never. Flags are 0 and 1. JSON is TEXT.

-- +goose Up
CREATE TABLE counters (
	name TEXT PRIMARY KEY,
	value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('epoch', 0);

CREATE TABLE settings (
	name TEXT PRIMARY KEY,
	value TEXT NOT NULL
);

CREATE TABLE nodes (
	id TEXT PRIMARY KEY,
	hostname TEXT NOT NULL,
	version TEXT NOT NULL,
	started_at BIGINT NOT NULL,
	seen_at BIGINT NOT NULL,
	draining SMALLINT NOT NULL DEFAULT 0
);

-- lease_until is by the database's clock.
CREATE TABLE vcenter_leases (
	vcenter_id TEXT PRIMARY KEY,
	owner_node TEXT NOT NULL,
	epoch BIGINT NOT NULL,
	lease_until BIGINT NOT NULL,
	updated_at BIGINT NOT NULL,
	paused SMALLINT NOT NULL DEFAULT 0
);

CREATE TABLE jobs (
	id TEXT PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	origin TEXT NOT NULL CHECK (origin IN ('file', 'api')),
	enabled SMALLINT NOT NULL,
	spec TEXT NOT NULL,
	revision BIGINT NOT NULL,
	priority BIGINT NOT NULL,
	next_run_at BIGINT NOT NULL DEFAULT 0,
	last_fired_for BIGINT NOT NULL DEFAULT 0,
	created_at BIGINT NOT NULL,
	updated_at BIGINT NOT NULL
);
CREATE INDEX jobs_due ON jobs (next_run_at) WHERE enabled = 1;

CREATE TABLE vms (
	id TEXT PRIMARY KEY,
	vcenter_id TEXT NOT NULL,
	instance_uuid TEXT NOT NULL,
	moref TEXT NOT NULL,
	name TEXT NOT NULL,
	path TEXT NOT NULL,
	guest_family TEXT NOT NULL DEFAULT '',
	road TEXT NOT NULL DEFAULT '',
	boot_id TEXT NOT NULL DEFAULT '',
	consecutive_failures BIGINT NOT NULL DEFAULT 0,
	last_ok_run TEXT NOT NULL DEFAULT '',
	last_ok_at BIGINT NOT NULL DEFAULT 0,
	last_application_at BIGINT NOT NULL DEFAULT 0,
	first_seen_at BIGINT NOT NULL,
	seen_at BIGINT NOT NULL,
	UNIQUE (vcenter_id, instance_uuid)
);
CREATE INDEX vms_name ON vms (name, id);

-- The truth about a run. epoch fences every write: it rises with each takeover and each new attempt.
CREATE TABLE runs (
	id TEXT PRIMARY KEY,
	kind TEXT NOT NULL CHECK (kind IN ('backup', 'restore', 'verify')),
	job_id TEXT,
	vm_id TEXT NOT NULL REFERENCES vms (id),
	vcenter_id TEXT NOT NULL,
	scheduled_for BIGINT,
	trigger TEXT NOT NULL CHECK (trigger IN ('schedule', 'catch_up', 'manual')),
	requested_by TEXT NOT NULL DEFAULT '',
	spec TEXT NOT NULL DEFAULT '',
	state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'compensating', 'done', 'failed', 'cancelled', 'skipped')),
	phase TEXT NOT NULL DEFAULT '',
	epoch BIGINT NOT NULL,
	attempt BIGINT NOT NULL DEFAULT 1,
	next_attempt_at BIGINT NOT NULL DEFAULT 0,
	cancel_requested SMALLINT NOT NULL DEFAULT 0,
	priority BIGINT NOT NULL,
	outcome TEXT NOT NULL DEFAULT '',
	level TEXT NOT NULL DEFAULT '',
	mode TEXT NOT NULL DEFAULT '',
	cause TEXT NOT NULL DEFAULT '',
	error_code TEXT NOT NULL DEFAULT '',
	report TEXT NOT NULL DEFAULT '',
	bytes_read BIGINT NOT NULL DEFAULT 0,
	bytes_stored BIGINT NOT NULL DEFAULT 0,
	created_at BIGINT NOT NULL,
	started_at BIGINT NOT NULL DEFAULT 0,
	finished_at BIGINT NOT NULL DEFAULT 0,
	UNIQUE (job_id, vm_id, scheduled_for)
);
CREATE UNIQUE INDEX runs_one_of_a_vm ON runs (vm_id) WHERE kind = 'backup' AND state IN ('queued', 'running', 'compensating');
CREATE INDEX runs_unfinished ON runs (vcenter_id, state) WHERE state IN ('queued', 'running', 'compensating');
CREATE INDEX runs_of_a_vm ON runs (vm_id, created_at, id);
CREATE INDEX runs_of_a_job ON runs (job_id, created_at, id);
CREATE INDEX runs_newest ON runs (created_at, id);

CREATE TABLE steps (
	run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
	seq BIGINT NOT NULL,
	name TEXT NOT NULL,
	state TEXT NOT NULL CHECK (state IN ('intent', 'done', 'failed', 'compensated')),
	epoch BIGINT NOT NULL,
	subject TEXT NOT NULL DEFAULT '',
	detail TEXT NOT NULL DEFAULT '',
	outcome TEXT NOT NULL DEFAULT '',
	started_at BIGINT NOT NULL,
	finished_at BIGINT NOT NULL DEFAULT 0,
	PRIMARY KEY (run_id, seq)
);
CREATE INDEX steps_open ON steps (run_id) WHERE state = 'intent';

CREATE TABLE window_events (
	run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
	seq BIGINT NOT NULL,
	t_mono_us BIGINT NOT NULL,
	t_wall BIGINT NOT NULL,
	side TEXT NOT NULL,
	kind TEXT NOT NULL,
	detail TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (run_id, seq)
);

-- What the last windows of a VM took, for the prediction of the next one.
CREATE TABLE window_history (
	vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
	seq BIGINT NOT NULL,
	at BIGINT NOT NULL,
	freeze_us BIGINT NOT NULL,
	snapshot_us BIGINT NOT NULL,
	thaw_us BIGINT NOT NULL,
	late SMALLINT NOT NULL,
	hold_timeout SMALLINT NOT NULL,
	mode TEXT NOT NULL,
	road TEXT NOT NULL,
	channel TEXT NOT NULL,
	PRIMARY KEY (vm_id, seq)
);

-- Snapshots are kept here until they are proved to be gone, whatever became of their run.
CREATE TABLE snapshot_ledger (
	id TEXT PRIMARY KEY,
	run_id TEXT NOT NULL,
	epoch BIGINT NOT NULL,
	vcenter_id TEXT NOT NULL,
	vm_id TEXT NOT NULL,
	vm_moref TEXT NOT NULL,
	road TEXT NOT NULL DEFAULT '',
	name TEXT NOT NULL,
	snapshot_moref TEXT NOT NULL DEFAULT '',
	task_moref TEXT NOT NULL DEFAULT '',
	state TEXT NOT NULL CHECK (state IN ('intent', 'created', 'in_use', 'remove_requested', 'removed', 'orphan', 'foreign', 'lost')),
	proof TEXT NOT NULL DEFAULT '',
	created_at BIGINT NOT NULL,
	removed_at BIGINT NOT NULL DEFAULT 0,
	attempts BIGINT NOT NULL DEFAULT 0,
	next_attempt_at BIGINT NOT NULL DEFAULT 0,
	last_error TEXT NOT NULL DEFAULT '',
	keep_until BIGINT NOT NULL DEFAULT 0,
	UNIQUE (vcenter_id, name, vm_id)
);
CREATE INDEX snapshot_ledger_there ON snapshot_ledger (vcenter_id, vm_id) WHERE state <> 'removed';
CREATE INDEX snapshot_ledger_run ON snapshot_ledger (run_id);

-- Sessions between VSS and a guest's writers. run_id is empty for those of others.
CREATE TABLE writer_sessions (
	id TEXT PRIMARY KEY,
	run_id TEXT NOT NULL DEFAULT '',
	vm_id TEXT NOT NULL,
	session TEXT NOT NULL,
	set_id TEXT NOT NULL DEFAULT '',
	boot_id TEXT NOT NULL,
	state TEXT NOT NULL CHECK (state IN ('open', 'frozen', 'thawed', 'complete_pending', 'complete_sent', 'aborted', 'expired', 'closed', 'rebooted', 'foreign')),
	opened_at BIGINT NOT NULL,
	closed_at BIGINT NOT NULL DEFAULT 0,
	attempts BIGINT NOT NULL DEFAULT 0,
	UNIQUE (vm_id, session)
);
CREATE INDEX writer_sessions_open ON writer_sessions (vm_id) WHERE closed_at = 0;
CREATE INDEX writer_sessions_run ON writer_sessions (run_id);

-- Passwords that were refused a short time ago, as salted hashes.
CREATE TABLE refusals (
	credential TEXT PRIMARY KEY,
	salt TEXT NOT NULL,
	hash TEXT NOT NULL,
	at BIGINT NOT NULL,
	why TEXT NOT NULL
);

CREATE TABLE tokens (
	id TEXT PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	sha256 TEXT NOT NULL UNIQUE,
	scope TEXT NOT NULL,
	created_by TEXT NOT NULL,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL DEFAULT 0,
	last_used_at BIGINT NOT NULL DEFAULT 0,
	revoked_at BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE idempotency_keys (
	principal TEXT NOT NULL,
	key TEXT NOT NULL,
	request_sha256 TEXT NOT NULL,
	body TEXT NOT NULL DEFAULT '',
	created_at BIGINT NOT NULL,
	PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
