package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/stillframe/stillframe/internal/failpoint"
)

// maxLeftover (bytes) is what is read of an answer nobody needs, so that the connection can be used again.
const maxLeftover = 64 << 10

// put sends a file to the URL that vCenter gave for it. The URL carries a token, so no error may show it.
func (g *GuestOps) put(ctx context.Context, to string, size int64, r io.Reader) error {
	body := io.NopCloser(r)
	if size == 0 {
		body = http.NoBody
	}
	res, err := g.transfer(ctx, http.MethodPut, to, body, size)
	if err != nil {
		return err
	}
	err = transferStatus(res)
	_, drainErr := io.Copy(io.Discard, io.LimitReader(res.Body, maxLeftover))
	return errors.Join(err, drainErr, res.Body.Close())
}

// get reads a file from the URL that vCenter gave for it.
func (g *GuestOps) get(ctx context.Context, from string, limit int64) ([]byte, error) {
	res, err := g.transfer(ctx, http.MethodGet, from, http.NoBody, 0)
	if err != nil {
		return nil, err
	}
	if err := transferStatus(res); err != nil {
		return nil, errors.Join(err, res.Body.Close())
	}
	var data bytes.Buffer
	if res.ContentLength > 0 && res.ContentLength <= limit { // an agent has megabytes: a buffer that grows leaves many times that behind
		data.Grow(int(res.ContentLength) + bytes.MinRead)
	}
	_, err = data.ReadFrom(io.LimitReader(res.Body, limit+1))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if int64(data.Len()) > limit {
		return nil, &Error{Op: "read at most", Subject: fmt.Sprintf("%d bytes", limit), SF: "SF3605", Err: errTooLarge}
	}
	return data.Bytes(), nil
}

func (g *GuestOps) transfer(ctx context.Context, method, raw string, body io.Reader, size int64) (*http.Response, error) {
	u, client, err := g.route(ctx, raw)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, errors.New("the transfer URL cannot be used")
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	failpoint.Before("vsphere", method)
	res, err := client.Do(req)
	failpoint.After("vsphere", method)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL
	}
	if err == nil || errors.Is(err, context.Canceled) || transportCode(err) != "SF2004" {
		return res, err
	}
	return nil, &Error{Op: "move a file through", Subject: u.Host, SF: "SF3612", Err: err}
}

func transferStatus(res *http.Response) error {
	switch res.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return nil
	}
	// The host is there and says no: the file cannot be written or read in the guest, a full disk included.
	return &Error{Op: "move a file through", Subject: res.Request.URL.Host, SF: "SF3608", Err: errors.New("answer " + res.Status)}
}

// route decides whom to ask. Host * means the endpoint itself, as a direct ESXi host answers. vCenter names the VM's host
// instead; that one is trusted by the endpoint's rule or by the thumbprint that vCenter knows of it.
func (g *GuestOps) route(ctx context.Context, raw string) (*url.URL, *http.Client, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, nil, errors.New("the transfer URL cannot be read")
	}
	own := g.e.vim.URL()
	if u.Hostname() == "*" {
		u.Host = own.Host // with its port: there may be a port forwarding
	}
	if u.Scheme != own.Scheme && u.Scheme != "https" {
		return nil, nil, fmt.Errorf("the transfer URL of %s is not https", u.Host)
	}
	if u.Hostname() == own.Hostname() && port(u) == port(own) {
		return u, g.e.files, nil
	}
	thumbprint, err := g.hostThumbprint(ctx)
	if err != nil {
		return nil, nil, err
	}
	trust, err := g.e.trust.forHost(thumbprint)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{
		Proxy: g.e.transport.Proxy, DialContext: newDialer().DialContext, DialTLSContext: trust.dial,
		TLSClientConfig: trust.config(u.Hostname()), TLSHandshakeTimeout: handshakeLimit, DisableKeepAlives: true,
	}
	return u, &http.Client{Transport: transport, CheckRedirect: refuseRedirect}, nil
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

// hostThumbprint reads the thumbprint of the host that runs the VM now; empty when vCenter does not know it.
func (g *GuestOps) hostThumbprint(ctx context.Context) (string, error) {
	p, err := g.e.properties(ctx, vmRef(g.vm.Moref), "runtime.host")
	if err != nil {
		return "", err
	}
	host, ok := p["runtime.host"].(types.ManagedObjectReference)
	if !ok {
		return "", nil
	}
	p, err = g.e.properties(ctx, host, "summary.config.sslThumbprint")
	if err != nil {
		return "", err
	}
	return text(p, "summary.config.sslThumbprint"), nil
}
