package winrm

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bodgit/ntlmssp"
)

// What a challenge has to offer (MS-NLMP 2.2.2.5). Without the first four nothing is sealed as it should be; a target
// info with a timestamp has the library sign all three messages (MIC), so that nobody on the way can take flags out.
const (
	flagUnicode     = 0x00000001
	flagSign        = 0x00000010
	flagSeal        = 0x00000020
	flagExtended    = 0x00080000 // ESS: sealing by session keys of 128 bits
	flagTargetInfo  = 0x00800000
	flag128         = 0x20000000
	flagKeyExchange = 0x40000000

	flagsNeeded = flagUnicode | flagSign | flagSeal | flagExtended | flagTargetInfo | flag128 | flagKeyExchange
)

// Pairs of the target info (MS-NLMP 2.2.2.1).
const (
	avEnd       = 0
	avFlags     = 6
	avTimestamp = 7
)

// challengeLimit bounds a challenge; those of domains have a few hundred bytes.
const challengeLimit = 16 << 10

// logon makes the NTLM handshake by two empty requests, as other clients do (that Windows takes a session that was
// opened so is documented by what they do; unverified). The second one tries the account, once.
//
// The library sends no target name (SPN) with the logon: a server that is set to check it refuses us (unverified).
func (c *connection) logon(ctx context.Context, op string, o Options) error {
	client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo(o.User, o.Password), ntlmssp.SetDomain(o.Domain))
	if err != nil {
		return refuse("SF3505", op, "begin NTLM: %w", err)
	}
	hello, err := client.Authenticate(nil, nil)
	if err != nil {
		return refuse("SF3505", op, "begin NTLM: %w", err)
	}
	r, err := c.present(ctx, op, hello)
	if err != nil {
		return err
	}
	challenge, err := challengeOf(op, r)
	if err != nil {
		return err
	}
	answer, err := answerTo(client, challenge, bindings(c.certificate))
	if err != nil {
		return refuse("SF3505", op, "%w; nothing was sent in clear", err)
	}
	if r, err = c.present(ctx, op, answer); err != nil {
		return err
	}
	switch r.status {
	case http.StatusOK:
		c.session = client.SecuritySession()
		return nil
	case http.StatusUnauthorized:
		return refuse("SF3001", op, "the server refused the account (HTTP 401 after its logon): check name and password, that it is neither "+
			"disabled nor locked, and that it is in Administrators or Remote Management Users; it is not tried again")
	}
	return strange(op, r.status)
}

// present sends an NTLM message with an empty request.
func (c *connection) present(ctx context.Context, op string, message []byte) (reply, error) {
	return c.post(ctx, op, "Authorization: Negotiate "+base64.StdEncoding.EncodeToString(message)+"\r\nContent-Type: "+soapType+"\r\n", nil)
}

// strange is the error of a status that a logon does not have.
func strange(op string, status int) error {
	if status == http.StatusInternalServerError {
		return refuse("SF3513", op, "the server answers HTTP 500 to a logon: read the event log Microsoft-Windows-WinRM/Operational of the guest")
	}
	return refuse("SF3501", op, "the server answers HTTP %d to a logon: it is not WinRM, or WinRM is stopped; look at port and service", status)
}

// challengeOf finds the challenge in the first reply.
func challengeOf(op string, r reply) ([]byte, error) {
	switch r.status {
	case http.StatusUnauthorized:
	case http.StatusOK:
		return nil, refuse("SF3505", op, "the server asks for no logon, so that nothing could be sealed")
	default:
		return nil, strange(op, r.status)
	}
	offered := "nothing"
	for _, value := range r.header.Values("WWW-Authenticate") {
		scheme, token, _ := strings.Cut(strings.TrimSpace(value), " ")
		if !strings.EqualFold(scheme, "Negotiate") {
			offered = "other schemes"
			continue
		}
		offered = "Negotiate, but not NTLM in it"
		if token = strings.TrimSpace(token); token == "" {
			continue
		}
		challenge, err := base64.StdEncoding.DecodeString(token)
		if err == nil {
			err = checkChallenge(challenge)
		}
		switch {
		case errors.Is(err, errNoSeal):
			return nil, refuse("SF3505", op, "%w: refused, because commands would go in clear", err)
		case err != nil:
			return nil, refuse(codeTampered, op, "the NTLM challenge is not well-formed: %w", err)
		}
		return challenge, nil
	}
	return nil, refuse("SF3007", op, "the server offers %s: NTLM is switched off; enable Negotiate in the WinRM service, or use another way in, never Basic", offered)
}

// checkChallenge looks at all that the library reads of a challenge without looking.
func checkChallenge(m []byte) error {
	// MS-NLMP 2.2.1.2: signature, type, name field, flags at 20, challenge, reserved, target info field at 40, version.
	if len(m) < 48 || len(m) > challengeLimit || string(m[:8]) != "NTLMSSP\x00" || binary.LittleEndian.Uint32(m[8:]) != 2 {
		return errors.New("it is no challenge")
	}
	if missing := flagsNeeded &^ binary.LittleEndian.Uint32(m[20:]); missing != 0 {
		return fmt.Errorf("%w: the flags %#08x are missing", errNoSeal, missing)
	}
	length, offset := int(binary.LittleEndian.Uint16(m[40:])), int64(binary.LittleEndian.Uint32(m[44:]))
	if offset+int64(length) > int64(len(m)) {
		return errors.New("its target info lies outside")
	}
	info, timestamp := m[offset:][:length], false
	for {
		if len(info) < 4 {
			return errors.New("its target info has no end")
		}
		id, size := binary.LittleEndian.Uint16(info), int(binary.LittleEndian.Uint16(info[2:]))
		if info = info[4:]; size > len(info) {
			return errors.New("a pair of its target info is cut off")
		}
		switch {
		case id == avEnd && !timestamp:
			return fmt.Errorf("%w for certain: the challenge has no timestamp, so that its flags are not signed", errNoSeal)
		case id == avEnd:
			return nil
		case id == avFlags && size != 4:
			return errors.New("its flags have not 4 bytes")
		case id == avTimestamp && size != 8:
			return errors.New("its timestamp has not 8 bytes")
		}
		timestamp = timestamp || id == avTimestamp
		info = info[size:]
	}
}

// answerTo makes the last NTLM message for a challenge that checkChallenge was content with.
func answerTo(client *ntlmssp.Client, challenge []byte, b *ntlmssp.ChannelBindings) ([]byte, error) {
	answer, err := client.Authenticate(challenge, b)
	if err != nil {
		return nil, fmt.Errorf("answer the NTLM challenge: %w", err)
	}
	if client.SecuritySession() == nil {
		return nil, errNoSeal
	}
	return answer, nil
}

// bindings tie the logon to the server's certificate (tls-server-end-point, RFC 5929), which a server with CbtHardeningLevel
// Strict wants to see (unverified). They are nil without TLS.
func bindings(certificate *x509.Certificate) *ntlmssp.ChannelBindings {
	if certificate == nil {
		return nil
	}
	data := []byte(ntlmssp.TLSServerEndPoint + ":")
	// RFC 5929 4.1: the hash of the certificate's signature, SHA-256 where that is an older one or none.
	switch certificate.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		sum := sha512.Sum384(certificate.Raw)
		data = append(data, sum[:]...)
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		sum := sha512.Sum512(certificate.Raw)
		data = append(data, sum[:]...)
	default:
		sum := sha256.Sum256(certificate.Raw)
		data = append(data, sum[:]...)
	}
	return &ntlmssp.ChannelBindings{ApplicationData: data}
}
