package guest

import "time"

// pace are the limits of a session that depend on how long a word takes on its way.
type pace struct {
	dial, hello, rtt time.Duration
	probes           int
	// beat and silence are outside the window, openBeat and openSilence while data is moved.
	beat, silence, openBeat, openSilence time.Duration
	// answer is for how long a connection that stands is trusted in spite of THAWs without an answer; 0 for not.
	answer time.Duration
}

// quick is the pace of a network.
func quick() pace {
	return pace{
		dial: dialLimit, hello: helloLimit, rtt: rttLimit, probes: rttProbes,
		beat: beatEvery, silence: silenceLimit, openBeat: beatEvery, openSilence: silenceLimit,
	}
}

// slow is the pace of a mailbox, where a word costs a task of vCenter of 0.3 to 1 s (unverified). The agent bears 31 s of
// silence, and 15 min while data is moved.
func slow() pace {
	return pace{
		dial: 21 * time.Second, hello: 27 * time.Second, rtt: 9 * time.Second, probes: 1,
		beat: 20 * time.Second, silence: 66 * time.Second, openBeat: 4 * time.Minute, openSilence: 9 * time.Minute,
		answer: 25 * time.Second,
	}
}
