package vcenter

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
)

// certificate is the front's identity: self-signed, good for its listen address only.
type certificate struct {
	config       *tls.Config
	pem          []byte
	sha1, sha256 string
}

func newCertificate(addr net.Addr) (*certificate, error) {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, fmt.Errorf("read listen address of lab vcenter: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of lab vcenter: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make serial of lab vcenter: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "lab vcenter"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of lab vcenter: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read certificate of lab vcenter: %w", err)
	}
	return &certificate{
		config: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}},
		},
		pem:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		sha1:   soap.ThumbprintSHA1(leaf),
		sha256: soap.ThumbprintSHA256(leaf),
	}, nil
}

// CAFile writes the front's certificate, which is its own root, as PEM into dir; it returns the file's path.
func (s *Server) CAFile(dir string) (string, error) {
	path := filepath.Join(dir, "lab-vcenter-ca.pem")
	s.mu.Lock()
	text := s.certificate.pem
	s.mu.Unlock()
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return "", fmt.Errorf("write certificate of lab vcenter: %w", err)
	}
	return path, nil
}
