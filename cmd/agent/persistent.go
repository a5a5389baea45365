package main

import "time"

// persistent is the deployment of an agent that stays.
const persistent = "persistent"

// foreverIdle is how long an agent that stays waits for its orchestrator.
const foreverIdle = 10 * 365 * 24 * time.Hour
