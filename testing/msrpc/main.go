// Command msrpc makes, starts, asks, stops and removes a service by the go-msrpc library, which shares no code with ours.
//
// It judges the lab's service control manager behind smbd, and nothing else. It reads the password from standard input and
// writes one line of JSON for each call.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/oiweiwei/go-msrpc/dcerpc"
	"github.com/oiweiwei/go-msrpc/msrpc/scmr/svcctl/v2"
	"github.com/oiweiwei/go-msrpc/smb2"
	"github.com/oiweiwei/go-msrpc/ssp"
	"github.com/oiweiwei/go-msrpc/ssp/credential"
	"github.com/oiweiwei/go-msrpc/ssp/gssapi"
)

// limit bounds the whole.
const limit = time.Minute

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) != 5 {
		fmt.Fprintln(stderr, "usage: msrpc HOST PORT ACCOUNT SERVICE COMMAND-LINE <password")
		return 2
	}
	password, err := bufio.NewReader(stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	port, err := strconv.Atoi(args[1])
	if err == nil {
		err = cycle(ctx, args[0], port, args[2], strings.TrimSpace(password), args[3], args[4], json.NewEncoder(stdout))
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// said is what one call was answered with.
type said struct {
	Call   string `json:"call"`
	Win32  uint32 `json:"win32"`
	State  uint32 `json:"state,omitempty"`
	PID    uint32 `json:"pid,omitempty"`
	Path   string `json:"path,omitempty"`
	Listed uint32 `json:"listed,omitempty"`
}

// Rights that are asked for (winsvc.h).
const (
	managerAll = 0xf003f
	serviceAll = 0xf01ff
)

func connect(ctx context.Context, host string, port int, account, password string) (svcctl.SvcctlClient, error) {
	who := credential.NewFromPassword(account, password)
	dialer := smb2.NewDialer(smb2.WithDialect(smb2.SMB311), smb2.WithSecurity(
		gssapi.WithCredential(who), gssapi.WithMechanismFactory(ssp.SPNEGO), gssapi.WithMechanismFactory(ssp.NTLM), gssapi.WithTargetName("cifs/"+host)))
	conn, err := dcerpc.Dial(ctx, host, dcerpc.WithSMBDialer(dialer), dcerpc.WithSMBPort(port), dcerpc.WithEndpoint(`ncacn_np:[svcctl]`))
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c, err := svcctl.NewSvcctlClient(ctx, conn, dcerpc.WithInsecure())
	if err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	return c, nil
}

func cycle(ctx context.Context, host string, port int, account, password, name, path string, out *json.Encoder) error {
	c, err := connect(ctx, host, port, account, password)
	if err != nil {
		return err
	}
	m, err := c.OpenSCMW(ctx, &svcctl.OpenSCMWRequest{MachineName: host, DatabaseName: "ServicesActive", DesiredAccess: managerAll})
	if m == nil || m.Return != 0 {
		return refused(out, "open", err, m == nil, func() uint32 { return m.Return })
	}
	made, err := c.CreateServiceW(ctx, &svcctl.CreateServiceWRequest{
		ServiceManager: m.SCM, ServiceName: name, DisplayName: "shown", DesiredAccess: serviceAll, ServiceType: 0x10, StartType: 3, BinaryPathName: path,
	})
	if made == nil || made.Return != 0 {
		return refused(out, "create", err, made == nil, func() uint32 { return made.Return })
	}
	if err := errors.Join(err, out.Encode(said{Call: "create"})); err != nil {
		return err
	}
	if err := use(ctx, c, made.Service, out); err != nil {
		return err
	}
	list, err := c.EnumServicesStatusW(ctx, &svcctl.EnumServicesStatusWRequest{ServiceManager: m.SCM, ServiceType: 0x30, ServiceState: 3, BufferLength: 65536})
	if list == nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := out.Encode(said{Call: "list", Win32: list.Return, Listed: list.ServicesReturned}); err != nil {
		return err
	}
	deleted, err := c.DeleteService(ctx, &svcctl.DeleteServiceRequest{Service: made.Service})
	if deleted == nil {
		return fmt.Errorf("delete: %w", err)
	}
	closed, err := c.CloseService(ctx, &svcctl.CloseServiceRequest{ServiceObject: made.Service})
	if closed == nil {
		return fmt.Errorf("close: %w", err)
	}
	return errors.Join(out.Encode(said{Call: "delete", Win32: deleted.Return}), out.Encode(said{Call: "close", Win32: closed.Return}))
}

// refused tells a number of Windows, or the error of what gave none.
func refused(out *json.Encoder, call string, err error, silent bool, number func() uint32) error {
	if silent {
		return fmt.Errorf("%s: %w", call, err)
	}
	return out.Encode(said{Call: call, Win32: number()})
}

// use starts, asks and stops a service.
func use(ctx context.Context, c svcctl.SvcctlClient, service *svcctl.Handle, out *json.Encoder) error {
	config, err := c.QueryServiceConfigW(ctx, &svcctl.QueryServiceConfigWRequest{Service: service, BufferLength: 8192})
	if config == nil {
		return fmt.Errorf("config: %w", err)
	}
	if err := out.Encode(said{Call: "config", Win32: config.Return, Path: config.ServiceConfig.BinaryPathName}); err != nil {
		return err
	}
	started, err := c.StartServiceW(ctx, &svcctl.StartServiceWRequest{Service: service})
	if started == nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := out.Encode(said{Call: "start", Win32: started.Return}); err != nil {
		return err
	}
	full, err := c.QueryServiceStatusEx(ctx, &svcctl.QueryServiceStatusExRequest{Service: service, BufferLength: 36})
	if full == nil || len(full.Buffer) < 36 {
		return fmt.Errorf("query in full: %w", err)
	}
	state, pid := binary.LittleEndian.Uint32(full.Buffer[4:]), binary.LittleEndian.Uint32(full.Buffer[28:])
	if err := out.Encode(said{Call: "query in full", Win32: full.Return, State: state, PID: pid}); err != nil {
		return err
	}
	stopped, err := c.ControlService(ctx, &svcctl.ControlServiceRequest{Service: service, Control: 1})
	if stopped == nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := out.Encode(said{Call: "stop", Win32: stopped.Return, State: stopped.ServiceStatus.CurrentState}); err != nil {
		return err
	}
	status, err := c.QueryServiceStatus(ctx, &svcctl.QueryServiceStatusRequest{Service: service})
	if status == nil {
		return fmt.Errorf("query: %w", err)
	}
	return out.Encode(said{Call: "query", Win32: status.Return, State: status.ServiceStatus.CurrentState})
}
