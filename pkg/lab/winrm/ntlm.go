package winrm

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/rc4"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
)

// Flags of MS-NLMP 2.2.2.5 that the acceptor speaks.
const (
	ntlmUnicode     = 1 << 0
	ntlmTarget      = 1 << 2
	ntlmSign        = 1 << 4
	ntlmSeal        = 1 << 5
	ntlmNTLM        = 1 << 9
	ntlmAlwaysSign  = 1 << 15
	ntlmServer      = 1 << 17
	ntlmExtended    = 1 << 19
	ntlmTargetInfo  = 1 << 23
	ntlmVersion     = 1 << 25
	ntlm128         = 1 << 29
	ntlmKeyExchange = 1 << 30
	ntlm56          = 1 << 31

	ntlmFlags = ntlmUnicode | ntlmTarget | ntlmSign | ntlmSeal | ntlmNTLM | ntlmAlwaysSign | ntlmServer | ntlmExtended | ntlmTargetInfo |
		ntlmVersion | ntlm128 | ntlmKeyExchange | ntlm56
)

// Pairs of MS-NLMP 2.2.2.1.
const (
	pairEnd            = 0
	pairComputer       = 1
	pairDomain         = 2
	pairDNSComputer    = 3
	pairDNSDomain      = 4
	pairFlags          = 6
	pairTimestamp      = 7
	pairChannelBinding = 10

	pairFlagMIC = 2
)

// computer is the name that the double gives itself.
const computer = "LABVM"

// acceptor is the server's side of one NTLM handshake.
type acceptor struct {
	negotiate, challenge []byte
	nonce                [8]byte
	// certificate is the server's, nil without TLS.
	certificate *x509.Certificate
}

// newAcceptor answers a NEGOTIATE message with a challenge of the given flags; bare leaves the timestamp out.
func newAcceptor(negotiate []byte, flags uint32, bare bool, certificate *x509.Certificate) (*acceptor, error) {
	if len(negotiate) < 32 || messageType(negotiate) != 1 {
		return nil, errors.New("no NEGOTIATE message")
	}
	a := &acceptor{negotiate: negotiate, certificate: certificate}
	if _, err := rand.Read(a.nonce[:]); err != nil {
		return nil, err
	}
	name := utf16le(computer)
	var info []byte
	pair := func(id uint16, value []byte) {
		info = binary.LittleEndian.AppendUint16(info, id)
		info = binary.LittleEndian.AppendUint16(info, uint16(len(value)))
		info = append(info, value...)
	}
	pair(pairDomain, name)
	pair(pairComputer, name)
	pair(pairDNSDomain, utf16le(strings.ToLower(computer)))
	pair(pairDNSComputer, utf16le(strings.ToLower(computer)))
	if !bare {
		pair(pairTimestamp, binary.LittleEndian.AppendUint64(nil, filetime(time.Now())))
	}
	pair(pairEnd, nil)

	const head = 56
	m := make([]byte, head, head+len(name)+len(info))
	copy(m, "NTLMSSP\x00")
	binary.LittleEndian.PutUint32(m[8:], 2)
	putField(m[12:], len(name), head)
	binary.LittleEndian.PutUint32(m[20:], flags)
	copy(m[24:], a.nonce[:])
	putField(m[40:], len(info), head+len(name))
	copy(m[48:], []byte{6, 1, 0xb1, 0x1d, 0, 0, 0, 15}) // 6.1.7601, NTLM revision 15
	a.challenge = append(append(m, name...), info...)
	return a, nil
}

// errRefused is a logon that is not accepted; Windows tells the client no more than that.
var errRefused = errors.New("the logon is refused")

// accept checks an AUTHENTICATE message against the accounts and returns the session that it begins.
func (a *acceptor) accept(m []byte, accounts []Account, strictBinding bool) (*session, error) {
	if len(m) < 88 || messageType(m) != 3 {
		return nil, errors.New("no AUTHENTICATE message with a MIC")
	}
	response, err1 := field(m, 20)
	domain, err2 := field(m, 28)
	user, err3 := field(m, 36)
	key, err4 := field(m, 52)
	flags := binary.LittleEndian.Uint32(m[60:])
	const temp = 16 + 28 // NTProofStr, then the fixed part of the client's challenge (MS-NLMP 2.2.2.7)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	if len(response) < temp+4 || len(key) != 16 || flags&ntlmKeyExchange == 0 {
		return nil, errors.New("not NTLMv2 with a key exchange")
	}
	account, ok := find(accounts, fromUTF16(user), fromUTF16(domain))
	if !ok {
		return nil, fmt.Errorf("%w: nobody is called %q", errRefused, fromUTF16(user))
	}
	hash := md4(utf16le(account.Password))
	owf := hmacMD5(hash[:], utf16le(strings.ToUpper(fromUTF16(user))), domain)
	proof := hmacMD5(owf, a.nonce[:], response[16:])
	if !hmac.Equal(proof, response[:16]) {
		return nil, fmt.Errorf("%w: the password of %s is another", errRefused, account.Name)
	}
	if account.State != Usable {
		return nil, fmt.Errorf("%w: the account is %v", errRefused, account.State)
	}
	exported := make([]byte, 16)
	if err := crypt(hmacMD5(owf, proof), exported, key); err != nil {
		return nil, err
	}
	pairs, err := pairsOf(response[temp:])
	if err != nil {
		return nil, err
	}
	if err := a.checkMIC(m, exported, pairs); err != nil {
		return nil, err
	}
	if err := a.checkBinding(pairs, strictBinding); err != nil {
		return nil, err
	}
	return newSession(exported, account.Name)
}

// checkMIC wants all three messages as they were sent. The challenge had a timestamp, so that the client has to sign.
func (a *acceptor) checkMIC(m, exported []byte, pairs map[uint16][]byte) error {
	flags := pairs[pairFlags]
	if len(flags) != 4 || binary.LittleEndian.Uint32(flags)&pairFlagMIC == 0 {
		return fmt.Errorf("%w: the messages are not signed", errRefused)
	}
	unsigned := bytes.Clone(m)
	clear(unsigned[72:88])
	if !hmac.Equal(hmacMD5(exported, a.negotiate, a.challenge, unsigned), m[72:88]) {
		return fmt.Errorf("%w: the messages were changed on the way", errRefused)
	}
	return nil
}

// checkBinding wants the certificate that the client saw to be ours, if it says which: with strict it has to.
func (a *acceptor) checkBinding(pairs map[uint16][]byte, strict bool) error {
	got, told := pairs[pairChannelBinding]
	if a.certificate == nil || (!told && !strict) {
		return nil
	}
	// gss_channel_bindings_struct without addresses, its application data by RFC 5929 for a certificate signed by SHA-256.
	sum := sha256.Sum256(a.certificate.Raw)
	data := append([]byte("tls-server-end-point:"), sum[:]...)
	want := md5.Sum(append(binary.LittleEndian.AppendUint32(make([]byte, 16), uint32(len(data))), data...))
	if !bytes.Equal(got, want[:]) {
		return fmt.Errorf("%w: the logon was made for another certificate", errRefused)
	}
	return nil
}

func messageType(m []byte) uint32 {
	if len(m) < 12 || string(m[:8]) != "NTLMSSP\x00" {
		return 0
	}
	return binary.LittleEndian.Uint32(m[8:])
}

func putField(at []byte, length, offset int) {
	binary.LittleEndian.PutUint16(at, uint16(length))
	binary.LittleEndian.PutUint16(at[2:], uint16(length))
	binary.LittleEndian.PutUint32(at[4:], uint32(offset))
}

func field(m []byte, at int) ([]byte, error) {
	length, offset := uint64(binary.LittleEndian.Uint16(m[at:])), uint64(binary.LittleEndian.Uint32(m[at+4:]))
	if offset+length > uint64(len(m)) {
		return nil, errors.New("a field lies outside of its message")
	}
	return m[offset : offset+length], nil
}

func pairsOf(info []byte) (map[uint16][]byte, error) {
	pairs := map[uint16][]byte{}
	for len(info) >= 4 {
		id, length := binary.LittleEndian.Uint16(info), int(binary.LittleEndian.Uint16(info[2:]))
		if id == pairEnd {
			return pairs, nil
		}
		if info = info[4:]; length > len(info) {
			break
		}
		pairs[id], info = info[:length], info[length:]
	}
	return nil, errors.New("the target info has no end")
}

// session seals what the server sends and opens what it gets.
type session struct {
	user          string
	out, in       *rc4.Cipher
	outKey, inKey []byte
	outSeq, inSeq uint32
}

func newSession(exported []byte, user string) (*session, error) {
	key := func(what string) []byte {
		sum := md5.Sum([]byte(string(exported) + "session key to " + what + " key magic constant\x00"))
		return sum[:]
	}
	out, err := rc4.NewCipher(key("server-to-client sealing"))
	if err != nil {
		return nil, err
	}
	in, err := rc4.NewCipher(key("client-to-server sealing"))
	if err != nil {
		return nil, err
	}
	return &session{user: user, out: out, in: in, outKey: key("server-to-client signing"), inKey: key("client-to-server signing")}, nil
}

// seal returns the signature and the sealed bytes.
func (s *session) seal(message []byte) (signature, sealed []byte) {
	sealed = make([]byte, len(message))
	s.out.XORKeyStream(sealed, message)
	signature = sign(s.out, s.outKey, s.outSeq, message)
	s.outSeq++
	return signature, sealed
}

func (s *session) open(signature, sealed []byte) ([]byte, error) {
	message := make([]byte, len(sealed))
	s.in.XORKeyStream(message, sealed)
	want := sign(s.in, s.inKey, s.inSeq, message)
	s.inSeq++
	if !hmac.Equal(signature, want) {
		return nil, fmt.Errorf("message %d has a bad signature or comes out of order", s.inSeq-1)
	}
	return message, nil
}

// sign is the signature of MS-NLMP 2.2.2.9.1, with the checksum under the cipher, as a key exchange has it.
func sign(cipher *rc4.Cipher, key []byte, seq uint32, message []byte) []byte {
	number := binary.LittleEndian.AppendUint32(nil, seq)
	sum := hmacMD5(key, number, message)[:8]
	cipher.XORKeyStream(sum, sum)
	return append(append([]byte{1, 0, 0, 0}, sum...), number...)
}

func crypt(key, to, from []byte) error {
	cipher, err := rc4.NewCipher(key)
	if err != nil {
		return err
	}
	cipher.XORKeyStream(to, from)
	return nil
}

func hmacMD5(key []byte, parts ...[]byte) []byte {
	h := hmac.New(md5.New, key)
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}

func utf16le(s string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

func fromUTF16(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// filetime is a time as Windows counts it: in 100 ns since 1601.
func filetime(t time.Time) uint64 { return uint64(t.UnixNano()/100) + 116444736000000000 }
