package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// CheckHere looks for what the configuration points at on this machine: files of certificates, agents and secrets, and the
// commands of jobs. It reads no secret.
func (c *Config) CheckHere() []Problem {
	h := here{c: c}
	for i, v := range c.VCenters {
		at := pointer{"vcenters"}.index(i)
		if v.CA != "" {
			h.certificates(at.child("ca"), v.CA)
		}
		h.secret(at.child("password"), v.Password)
		if v.HostRoad != nil {
			h.secret(at.child("host_road").child("password"), v.HostRoad.Password)
		}
	}
	guests := pointer{"guests"}
	h.guest(guests.child("defaults"), c.Guests.Defaults)
	for i, r := range c.Guests.Rules {
		h.guest(guests.child("rules").index(i), r.Guest)
	}
	h.secret(pointer{"store", "dsn"}, c.Store.DSN)
	if t := c.Listen.TLS; t != nil {
		h.certificates(pointer{"listen", "tls", "cert"}, t.Cert)
		h.secret(pointer{"listen", "tls", "key"}, t.Key)
	}
	for i, j := range c.Jobs {
		if j.Mover.Kind == "exec" {
			h.program(pointer{"jobs"}.index(i).child("mover").child("command").index(0), j.Mover.Command[0])
		}
	}
	return h.problems
}

// here collects what is missing on this machine.
type here struct {
	c        *Config
	problems []Problem
}

func (h *here) refuse(p pointer, path string, err error, hint string) {
	var detail *fs.PathError
	if errors.As(err, &detail) {
		err = detail.Err
	}
	h.problems = append(h.problems, h.c.src.where(p, h.c.file).problem(codeReference, p, fmt.Sprintf("%s: %v", word(path), err), hint))
}

func (h *here) guest(at pointer, g Guest) {
	h.secret(at.child("password"), g.Password)
	if g.Agent != "" {
		h.regular(at.child("agent"), g.Agent)
	}
}

func (h *here) certificates(p pointer, path string) {
	text, err := readFile(path)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		err = errors.New("there is no PEM certificate in it")
	}
	if err != nil {
		h.refuse(p, path, err, "")
	}
}

// secret looks for the file of a reference; other references are resolved by the daemon only.
func (h *here) secret(p pointer, r Ref) {
	if path, ok := strings.CutPrefix(string(r), "file:"); ok {
		h.regular(p, path)
	}
}

func (h *here) regular(p pointer, path string) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		h.refuse(p, path, err, "")
	}
}

func (h *here) program(p pointer, path string) {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = errors.New("it is not a regular file")
	case err == nil && info.Mode().Perm()&0o111 == 0:
		err = errors.New("it cannot be executed")
	}
	if err != nil {
		h.refuse(p, path, err, "install the program, or correct the path")
	}
}
