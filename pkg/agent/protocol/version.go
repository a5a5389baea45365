package protocol

// MinVersion and MaxVersion bound the versions this build speaks: its own and the one before.
const (
	MinVersion = 1
	MaxVersion = 1
)

// ALPN is the application protocol that TLS negotiates, so that a stray TLS client is refused in the handshake.
const ALPN = "stillframe/1"
