// Command mover is a mover for the lab (docs/mover.md): it proves that it was told everything, copies the disk as the lab
// cut it for the snapshot, and checks the copy.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func main() {
	admin := flag.String("admin", "", "address of the lab's admin")
	out := flag.String("out", "", "where the disk goes")
	pause := flag.Duration("pause", 0, "how long to wait after each MiB")
	flag.Parse()
	if err := run(context.Background(), *admin, *out, *pause); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, admin, out string, pause time.Duration) error {
	if err := present(ctx); err != nil {
		return fmt.Errorf("look for the snapshot at vCenter: %w", err)
	}
	image, err := find(ctx, admin)
	if err != nil {
		return fmt.Errorf("look for the disk in the lab: %w", err)
	}
	sum, err := copyDisk(image.Path, out, pause)
	if err != nil {
		return fmt.Errorf("copy the disk: %w", err)
	}
	if sum != image.SHA256 {
		return fmt.Errorf("the copy has the SHA-256 %s, the disk was cut with %s", sum, image.SHA256)
	}
	return tell(1, "copied and checked")
}

// present logs in with the account of the descriptor, trusts only the certificate that we were told of, and looks whether
// the snapshot is the VM's and exists.
func present(ctx context.Context) (err error) {
	account, err := login()
	if err != nil {
		return err
	}
	u, err := url.Parse(os.Getenv("STILLFRAME_ENDPOINT_URL"))
	if err != nil {
		return err
	}
	client := soap.NewClient(u, true)
	client.DefaultTransport().TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error {
		sum := sha256.Sum256(s.PeerCertificates[0].Raw)
		if got := hex.EncodeToString(sum[:]); got != os.Getenv("STILLFRAME_ENDPOINT_THUMBPRINT") {
			return fmt.Errorf("the certificate has the thumbprint %s", got)
		}
		return nil
	}
	vim, err := vim25.NewClient(ctx, client)
	if err != nil {
		return err
	}
	sessions := session.NewManager(vim)
	if err := sessions.Login(ctx, account); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sessions.Logout(ctx)) }()
	ref := types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: os.Getenv("STILLFRAME_SNAPSHOT_MOREF")}
	var snapshot mo.VirtualMachineSnapshot
	if err := property.DefaultCollector(vim).RetrieveOne(ctx, ref, []string{"vm"}, &snapshot); err != nil {
		return err
	}
	if snapshot.Vm.Value != os.Getenv("STILLFRAME_VM_MOREF") {
		return fmt.Errorf("it belongs to %s", snapshot.Vm.Value)
	}
	return nil
}

// login reads the account.
func login() (*url.Userinfo, error) {
	fd, err := strconv.Atoi(os.Getenv("STILLFRAME_CREDENTIALS_FD"))
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "credentials")
	var account struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	err = json.NewDecoder(file).Decode(&account)
	return url.UserPassword(account.Username, account.Password), errors.Join(err, file.Close())
}

// image is the lab's copy of a disk at the instant of a snapshot.
type image struct {
	Snapshot string `json:"snapshot"`
	Path     string `json:"path"`
	SHA256   string `json:"sha256"`
}

func find(ctx context.Context, admin string) (found image, err error) {
	if n := os.Getenv("STILLFRAME_DISKS"); n != "1" {
		return found, fmt.Errorf("the snapshot has %q disks, the lab's VMs have one", n)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/vm/"+url.PathEscape(os.Getenv("STILLFRAME_VM_NAME"))+"/snapshots", nil)
	if err != nil {
		return found, err
	}
	answer, err := new(http.Client).Do(request)
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	var all struct {
		Images []image `json:"images"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		return found, err
	}
	for _, one := range all.Images {
		if one.Snapshot == os.Getenv("STILLFRAME_SNAPSHOT_NAME") && one.Path != "" {
			return one, nil
		}
	}
	return found, errors.New("it has no image of this snapshot")
}

// copyDisk copies MiB by MiB and gives the SHA-256 of what it wrote, read back.
func copyDisk(from, to string, pause time.Duration) (sum string, err error) {
	src, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	info, err := src.Stat()
	if err != nil {
		return "", err
	}
	for done := int64(0); done < info.Size(); {
		n, err := io.CopyN(dst, src, min(1<<20, info.Size()-done))
		if err != nil {
			return "", err
		}
		done += n
		if err := tell(float64(done)/float64(info.Size()), "disk "+os.Getenv("STILLFRAME_DISK_0_KEY")); err != nil {
			return "", err
		}
		time.Sleep(pause)
	}
	if _, err := dst.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, dst)
	return hex.EncodeToString(h.Sum(nil)), err
}

// tell writes one line of progress.
func tell(fraction float64, text string) error {
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"progress": fraction, "text": text})
}
