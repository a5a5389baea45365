-- +goose Up
-- What is known of guests and of the agents in them: JSON of the owner of each kind.
CREATE TABLE notes (
	kind TEXT NOT NULL,
	key TEXT NOT NULL,
	text TEXT NOT NULL,
	updated_at BIGINT NOT NULL,
	PRIMARY KEY (kind, key)
);
