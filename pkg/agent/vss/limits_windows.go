package vss

import "time"

// limits are the Freezer's own. No two of one path are equal.
type limits struct {
	volumes, metadata, prepare, status, settle, complete time.Duration
	// cancel is how long a call is waited for after it was cancelled; it is never abandoned before.
	cancel time.Duration
}

func defaultLimits() limits {
	return limits{
		volumes: 5 * time.Second, metadata: 3 * time.Minute, prepare: 5 * time.Minute, status: 60 * time.Second,
		settle: 30 * time.Second, complete: 5 * time.Minute, cancel: 59 * time.Second,
	}
}

// poll is how often an asynchronous call is looked at, in milliseconds.
const poll = 10
