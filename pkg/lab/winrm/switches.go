package winrm

import (
	"crypto/tls"
	"time"
)

// Switches are what the server does otherwise than a Windows as it comes; the zero value is that Windows.
type Switches struct {
	// Basic offers and takes Basic authentication.
	Basic bool
	// AllowUnencrypted takes messages in clear, and answers them so.
	AllowUnencrypted bool
	// NoNegotiate does not offer NTLM.
	NoNegotiate bool
	// NoSealing makes challenges without the flag for sealing, Bare ones without a timestamp.
	NoSealing, Bare bool
	// StrictBinding refuses, under TLS, logons that do not say for which certificate they were made.
	StrictBinding bool
	// Certificate is shown instead of the server's own.
	Certificate *tls.Certificate
	// Status answers each request with this status.
	Status int
	// DropEmpty closes the connection at each request without a body: those that log on.
	DropEmpty bool
	// Rechallenge answers each logon with another challenge.
	Rechallenge bool
	// StallReceive never answers requests for output.
	StallReceive bool
	// OutputWait is how long requests for output wait, instead of as long as they ask for.
	OutputWait time.Duration
	// CreateFault is the WSManFault that answers each Create.
	CreateFault uint32
	// Unsealed answers sealed messages in clear, with this status, though it does what they ask for.
	Unsealed int
	// BadSignature flips a bit of each signature, RepeatSequence seals each second reply by the number of the one before.
	BadSignature, RepeatSequence bool
	// TruncateMultipart leaves out the end of each sealed reply; CloseInBody closes the connection in its middle.
	TruncateMultipart, CloseInBody bool
}
