package protocol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Fingerprint is the SHA-256 of a certificate's DER form. It is all that one side has to know of the other, and no
// secret: the keys never leave the processes that made them.
type Fingerprint [sha256.Size]byte

// String is the form of the words: 64 hexadecimal digits, empty for the zero Fingerprint.
func (f Fingerprint) String() string {
	if f == (Fingerprint{}) {
		return ""
	}
	return hex.EncodeToString(f[:])
}

// ParseFingerprint reads what String gives; empty text is the zero Fingerprint, 64 zeros are no fingerprint.
func ParseFingerprint(text string) (Fingerprint, error) {
	var f Fingerprint
	if text == "" {
		return f, nil
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(f) || Fingerprint(raw) == f {
		return f, fmt.Errorf("%.70q is no fingerprint: 64 hexadecimal digits of a SHA-256 are", text)
	}
	return Fingerprint(raw), nil
}

// ErrFingerprint is returned when the peer's certificate is not the expected one: a stranger, or a stale pin.
var ErrFingerprint = errors.New("the peer's certificate does not have the expected fingerprint")

// NewIdentity makes a P-256 key with a self-signed certificate in memory, valid from five minutes ago for the given
// time, and its fingerprint.
func NewIdentity(validFor time.Duration) (tls.Certificate, Fingerprint, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, Fingerprint{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, Fingerprint{}, fmt.Errorf("make a serial number: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-5 * time.Minute),
		NotAfter:     now.Add(validFor),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, Fingerprint{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(der), nil
}

// ServerTLS is the agent's side: TLS 1.3 only, the client's certificate must have one of the fingerprints peers, no session
// tickets.
func ServerTLS(own tls.Certificate, peers ...Fingerprint) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequireAnyClientCert,
		VerifyPeerCertificate:  pinned(peers),
		SessionTicketsDisabled: true,
		NextProtos:             []string{ALPN},
	}
}

// ClientTLS is the orchestrator's side. The pin replaces the chain and the name, so the library's own verification is
// off and pinned does all of it. Of an agent that renews its certificate the fingerprint of the next one is in also.
func ClientTLS(own tls.Certificate, peer Fingerprint, serverName string, also ...Fingerprint) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ServerName:             serverName,
		InsecureSkipVerify:     true, // the exact fingerprint is checked by pinned; there is no chain
		VerifyPeerCertificate:  pinned(append([]Fingerprint{peer}, also...)),
		SessionTicketsDisabled: true,
		NextProtos:             []string{ALPN},
	}
}

// pinned accepts exactly the certificates whose DER form has one of the fingerprints wanted. A zero one accepts none.
func pinned(wanted []Fingerprint) func([][]byte, [][]*x509.Certificate) error {
	return func(raw [][]byte, _ [][]*x509.Certificate) error {
		if len(raw) == 0 {
			return ErrFingerprint
		}
		got := sha256.Sum256(raw[0])
		for _, want := range wanted {
			if want != (Fingerprint{}) && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
				return nil
			}
		}
		return ErrFingerprint
	}
}

// ProvedBy is the fingerprint of the certificate that the peer of a finished handshake has shown, zero when it has shown none.
func ProvedBy(s tls.ConnectionState) Fingerprint {
	if len(s.PeerCertificates) == 0 {
		return Fingerprint{}
	}
	return sha256.Sum256(s.PeerCertificates[0].Raw)
}
