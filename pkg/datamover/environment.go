package datamover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	// searchPath is the PATH of movers.
	searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// runVariable marks every process that a mover starts, so that they are found when its orchestrator has died.
	runVariable = "STILLFRAME_RUN_ID"
	// credentialsFD is the first descriptor after the standard ones.
	credentialsFD = 3
	// maxCredentials is what a pipe takes without a reader (PIPE_BUF of pipe(7)).
	maxCredentials = 4096
)

// environment is all of the environment that a mover has: nothing of our own is in it.
func (x *Exec) environment(j Job) []string {
	var env []string
	add := func(name, value string) {
		env = append(env, name+"="+strings.ReplaceAll(value, "\x00", "")) // a zero byte would keep the program from starting
	}
	add("PATH", searchPath)
	add("HOME", x.Home)
	add(runVariable, j.RunID)
	add("STILLFRAME_LEVEL", j.Level)
	add("STILLFRAME_VM_NAME", j.VM.Name)
	add("STILLFRAME_VM_PATH", j.VM.Path)
	add("STILLFRAME_VM_MOREF", j.VM.Moref)
	add("STILLFRAME_VM_INSTANCE_UUID", j.VM.InstanceUUID)
	add("STILLFRAME_SNAPSHOT_NAME", j.Snapshot.Name)
	add("STILLFRAME_SNAPSHOT_MOREF", j.Snapshot.Moref)
	add("STILLFRAME_ENDPOINT_URL", j.Origin.URL.String())
	add("STILLFRAME_ENDPOINT_THUMBPRINT", j.Origin.Thumbprint)
	add("STILLFRAME_CREDENTIALS_FD", strconv.Itoa(credentialsFD))
	add("STILLFRAME_DISKS", strconv.Itoa(len(j.Origin.Disks)))
	for i, d := range j.Origin.Disks {
		name := fmt.Sprintf("STILLFRAME_DISK_%d_", i)
		add(name+"KEY", strconv.Itoa(int(d.Key)))
		add(name+"LABEL", d.Label)
		add(name+"FILE", d.File)
		add(name+"UUID", d.UUID)
		add(name+"CAPACITY_BYTES", strconv.FormatInt(d.CapacityBytes, 10))
		add(name+"CHANGE_ID", d.ChangeID)
	}
	return env
}

// credentials is a pipe that holds the account as one line of JSON and then ends. The caller closes it.
func credentials(ctx context.Context, j Job) (*os.File, error) {
	account, err := j.Origin.Login(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the account: %w", err)
	}
	password, _ := account.Password()
	line, err := json.Marshal(struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}{account.Username(), password})
	if err != nil {
		return nil, errors.New("write the account as JSON") // the error might repeat it
	}
	if line = append(line, '\n'); len(line) > maxCredentials {
		return nil, fmt.Errorf("the account takes %d bytes, more than %d", len(line), maxCredentials)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.Write(line)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}
