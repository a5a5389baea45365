package protocol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Fingerprint is the SHA-256 of a certificate's DER form. It is all that one side has to know of the other, and no
// secret: the keys never leave the processes that made them.
type Fingerprint [sha256.Size]byte

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

// ServerTLS is the agent's side: TLS 1.3 only, the client's certificate must have the fingerprint peer, no session
// tickets.
func ServerTLS(own tls.Certificate, peer Fingerprint) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ClientAuth:             tls.RequireAnyClientCert,
		VerifyPeerCertificate:  pinned(peer),
		SessionTicketsDisabled: true,
		NextProtos:             []string{ALPN},
	}
}

// ClientTLS is the orchestrator's side. The pin replaces the chain and the name, so the library's own verification is
// off and pinned does all of it.
func ClientTLS(own tls.Certificate, peer Fingerprint, serverName string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own},
		ServerName:             serverName,
		InsecureSkipVerify:     true, // the exact fingerprint is checked by pinned; there is no chain
		VerifyPeerCertificate:  pinned(peer),
		SessionTicketsDisabled: true,
		NextProtos:             []string{ALPN},
	}
}

// pinned accepts exactly the certificate whose DER form has the fingerprint want. A zero want accepts none.
func pinned(want Fingerprint) func([][]byte, [][]*x509.Certificate) error {
	return func(raw [][]byte, _ [][]*x509.Certificate) error {
		if want == (Fingerprint{}) || len(raw) == 0 {
			return ErrFingerprint
		}
		got := sha256.Sum256(raw[0])
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return ErrFingerprint
		}
		return nil
	}
}
