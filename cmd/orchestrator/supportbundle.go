package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stillframe/stillframe/pkg/api"
	"github.com/stillframe/stillframe/pkg/api/client"
	"github.com/stillframe/stillframe/pkg/audit"
	"github.com/stillframe/stillframe/pkg/backup"
	"github.com/stillframe/stillframe/pkg/config"
	"github.com/stillframe/stillframe/pkg/secret"
	"github.com/stillframe/stillframe/pkg/store"
)

const (
	// bundledFile is how much of one file goes into a bundle, bundledRuns how many runs of the list, bundledLogs how many logs of
	// runs when none is named, bundledNames how many names of files.
	bundledFile  = 16 << 20
	bundledRuns  = 500
	bundledLogs  = 5
	bundledNames = 5000
)

// bundleFlags are the flags of "stillframe support-bundle".
type bundleFlags struct {
	dbFlags
	socket, out string
	runs        []string
}

func (c *cli) supportBundleCommand() *cobra.Command {
	var f bundleFlags
	cmd := &cobra.Command{
		Use: "support-bundle", Short: "Put what support asks for into one file, without secrets", Args: cobra.NoArgs,
		Long: `Writes a .tar.gz that only you can read: version, the effective configuration with references only, what the daemon says of itself, its metrics,
jobs, VMs, snapshots and newest runs, the logs of runs, the schema of the database and the head of the audit log. Without a daemon it has what the
state folder tells.

What the configuration's references lead to is taken out wherever it is found, in plain text, hexadecimal digits, base64, decimal numbers and UTF-16, and so is what
is called a password, token or key. manifest.json in it lists the files, what was taken out, what could not be read, and which secrets
could not be searched for: run it as the daemon's user, who can read them all. It has names of VMs, hosts and accounts: look into it before you
send it.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.supportBundle(cmd.Context(), f) },
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&f.socket, "socket", "", "the daemon's socket (default STILLFRAME_SOCKET, else that of the configuration)")
	cmd.Flags().StringSliceVar(&f.runs, "run", nil, "the run that it is about, or several (default the newest 5 that failed)")
	cmd.Flags().StringVar(&f.out, "out", "", "the file to make (default stillframe-support-TIME.tar.gz here)")
	return cmd
}

// bundleManifest says what is in a bundle and what is not. Fields are only ever added.
type bundleManifest struct {
	APIVersion string        `json:"api_version"`
	Version    string        `json:"version"`
	MadeAt     time.Time     `json:"made_at"`
	Daemon     bool          `json:"daemon"` // whether it answered
	Files      []bundledPart `json:"files"`
	Removed    []removal     `json:"removed"`
	// Unsearched are references whose secrets could not be read or are too short, so that they were not searched for.
	Unsearched []bundleGap `json:"unsearched"`
	Missing    []bundleGap `json:"missing"`
}

type bundledPart struct {
	Name      string `json:"name"`
	SizeBytes int    `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

type bundleGap struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// bundle is what goes into the file.
type bundle struct {
	redactor
	bundleManifest
	content map[string][]byte
}

// put adds a file, without secrets; of one that could not be read it notes why.
func (b *bundle) put(name string, text []byte, err error) {
	if err != nil {
		why, _ := b.redact(name, []byte(err.Error()))
		b.Missing = append(b.Missing, bundleGap{name, string(why)})
	}
	if len(text) == 0 {
		return
	}
	if len(text) > bundledFile {
		b.Missing = append(b.Missing, bundleGap{name, fmt.Sprintf("only the first %d of its bytes are here", bundledFile)})
		text = text[:bundledFile]
	}
	text, removed := b.redact(name, text)
	b.Removed = append(b.Removed, removed...)
	b.content[name] = text
	sum := sha256.Sum256(text)
	b.Files = append(b.Files, bundledPart{name, len(text), hex.EncodeToString(sum[:])})
}

func (b *bundle) putJSON(name string, v any, err error) {
	var text strings.Builder
	if err == nil {
		err = writeJSON(&text, v)
	}
	b.put(name, []byte(text.String()), err)
}

func (c *cli) supportBundle(ctx context.Context, f bundleFlags) error {
	now := time.Now().UTC()
	f.out = first(f.out, "stillframe-support-"+now.Format("20060102T150405Z")+".tar.gz")
	for n, id := range f.runs {
		id, err := runID(id)
		if err != nil {
			return err
		}
		f.runs[n] = id
	}
	b := &bundle{content: map[string][]byte{}, bundleManifest: bundleManifest{
		APIVersion: backup.APIVersion, Version: version, MadeAt: now, Files: []bundledPart{}, Removed: []removal{}, Unsearched: []bundleGap{}, Missing: []bundleGap{},
	}}
	conf, problems := config.LoadWith(first(f.config, c.getenv("STILLFRAME_CONFIG"), config.DefaultPath), config.Options{Getenv: c.getenv})
	if conf == nil {
		dir := first(f.state, c.getenv("STILLFRAME_STATE_DIR"), defaultStateDir)
		conf, _ = config.LoadLastGood(dir, config.Options{Getenv: c.getenv})
	}
	p := place{dir: first(f.state, c.getenv("STILLFRAME_STATE_DIR"), defaultStateDir)}
	socket := first(f.socket, c.getenv("STILLFRAME_SOCKET"))
	var settings []config.Setting
	if conf != nil {
		p = place{first(f.state, conf.Store.StateDir), conf.Store.DSN}
		socket = first(socket, conf.Listen.Socket)
		settings = conf.Settings()
	}
	if err := c.hide(ctx, b, p.dir, settings); err != nil {
		return err
	}
	b.putJSON("version.json", ownVersions(), nil)
	b.putJSON("config.json", map[string]any{"settings": some(settings), "problems": some(problems)}, nil)
	d := client.New(first(socket, defaultSocket))
	defer d.Close()
	b.ask(ctx, d)
	if err := b.logs(ctx, d, f.runs, runLogDir(p.dir)); err != nil {
		return err
	}
	b.state(ctx, c, p)
	if err := ctx.Err(); err != nil {
		return err
	}
	size, err := b.write(f.out)
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	if f.output == "json" {
		return writeJSON(c.stdout, struct {
			bundleManifest
			File      string `json:"file"`
			SizeBytes int64  `json:"size_bytes"`
		}{b.bundleManifest, f.out, size})
	}
	_, err = fmt.Fprintf(c.stdout, "%s  %d files, %d bytes; in %d places secrets were taken out, %d secrets could not be searched for, %d things are missing (manifest.json)\n",
		printable(f.out), len(b.Files), size, len(b.Removed), len(b.Unsearched), len(b.Missing))
	return err
}

// hide has everything taken out that the configuration's references lead to, and what the environment has for one-shot commands.
func (c *cli) hide(ctx context.Context, b *bundle, dir string, settings []config.Setting) error {
	secrets, err := secret.OpenStore(filepath.Join(dir, "creds"), secret.StoreOptions{Getenv: c.getenv})
	if err != nil {
		return err
	}
	var refs []secret.Ref
	for _, s := range settings {
		text, is := s.Value.(string)
		if ref, err := secret.ParseRef(text); is && err == nil && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	resolver := secret.NewResolver(secret.Options{Getenv: c.getenv, Store: secrets})
	for _, ref := range refs {
		found, err := resolver.Resolve(ctx, ref)
		switch {
		case err != nil:
			b.Unsearched = append(b.Unsearched, bundleGap{ref.String(), err.Error()})
		case !b.add(ref.String(), found.Value.Reveal()):
			b.Unsearched = append(b.Unsearched, bundleGap{ref.String(), fmt.Sprintf("it has less than %d bytes", shortestSecret)})
		default:
			b.inside(ref.String(), found.Value.Reveal())
		}
	}
	for _, name := range []string{"GOVC_PASSWORD", "GOVC_HOST_PASSWORD"} {
		b.add("env:"+name, c.getenv(name))
	}
	b.inside("env:GOVC_URL", c.getenv("GOVC_URL"))
	if _, password, ok := strings.Cut(c.getenv("GOVC_GUEST_LOGIN"), ":"); ok {
		b.add("env:GOVC_GUEST_LOGIN", password)
	}
	return nil
}

// inside has the password in an address taken out, such as that of a database, also without the rest.
func (b *bundle) inside(of, value string) {
	if u, err := url.Parse(value); err == nil && u.User != nil {
		password, _ := u.User.Password()
		b.add(of, password)
	}
	for field := range strings.FieldsSeq(value) { // host=a password=b
		if password, ok := strings.CutPrefix(field, "password="); ok {
			b.add(of, strings.Trim(password, "'"))
		}
	}
}

// ask has the daemon tell what it knows.
func (b *bundle) ask(ctx context.Context, d *client.Client) {
	ready, err := d.Readiness(ctx)
	b.putJSON("readyz.json", ready, err)
	if err != nil {
		return
	}
	b.Daemon = true
	metrics, err := d.Metrics(ctx)
	b.put("metrics.txt", metrics, err)
	jobs, err := d.Jobs(ctx)
	b.putJSON("jobs.json", some(jobs), err)
	vms, err := d.VMs(ctx, api.VMFilter{})
	b.putJSON("vms.json", some(vms), err)
	runs, err := d.Runs(ctx, api.RunFilter{}, bundledRuns)
	b.putJSON("runs.json", some(runs), err)
	snapshots, err := d.Snapshots(ctx, api.SnapshotFilter{})
	b.putJSON("snapshots.json", some(snapshots), err)
	windows, err := d.Windows(ctx)
	b.putJSON("windows.json", some(windows), err)
	found, err := d.Examine(ctx, "", "")
	b.putJSON("doctor.json", found, err)
}

// logs adds the runs that were named, or those that failed last; without a daemon the newest logs. A run that nobody knows is
// an error.
func (b *bundle) logs(ctx context.Context, d *client.Client, ids []string, dir string) error {
	wanted := len(ids) > 0
	switch {
	case wanted:
	case b.Daemon:
		runs, err := d.Runs(ctx, api.RunFilter{State: "failed"}, bundledLogs)
		if err != nil {
			b.put("runs", nil, err)
		}
		for _, r := range runs {
			ids = append(ids, r.ID)
		}
	default:
		ids = newestLogs(dir)
	}
	for _, id := range ids {
		name := "runs/" + id
		if b.Daemon {
			r, err := d.Run(ctx, id)
			if err != nil && wanted {
				return err
			}
			b.putJSON(name+"/run.json", r, err)
			events, err := d.Timeline(ctx, id)
			b.putJSON(name+"/timeline.json", some(events), err)
			findings, err := d.Findings(ctx, id)
			b.putJSON(name+"/findings.json", some(findings), err)
		}
		text, err := logOf(ctx, d, b.Daemon, id, dir)
		if errors.Is(err, fs.ErrNotExist) && wanted && !b.Daemon {
			return &notThere{"SF1717", fmt.Sprintf("there is no log of run %s in %s, and no daemon answers", id, dir)}
		}
		b.put(name+"/log"+logSuffix, text, err)
	}
	return nil
}

// logOf reads the log of a run from the daemon, or from its file.
func logOf(ctx context.Context, d *client.Client, answers bool, id, dir string) ([]byte, error) {
	open := func() (io.ReadCloser, error) { return os.Open(runLogPath(dir, id)) }
	if answers {
		open = func() (io.ReadCloser, error) { return d.RunLog(ctx, id) }
	}
	log, err := open()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(log, bundledFile+1))
	return text, errors.Join(err, log.Close())
}

// newestLogs are the runs whose logs in the folder were written last.
func newestLogs(dir string) []string {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	written := map[string]time.Time{}
	var ids []string
	for _, f := range files {
		id, is := strings.CutSuffix(f.Name(), logSuffix)
		if about, err := f.Info(); is && err == nil {
			written[id] = about.ModTime()
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return written[b].Compare(written[a]) })
	return ids[:min(bundledLogs, len(ids))]
}

// state adds what the state folder tells: its files by name, the head of the audit log, and the database's schema.
func (b *bundle) state(ctx context.Context, c *cli, p place) {
	var names strings.Builder
	left := bundledNames
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		about, err := d.Info()
		if err != nil {
			return err
		}
		if left--; left < 0 {
			return fs.SkipAll
		}
		_, err = fmt.Fprintf(&names, "%s %10d %s %s\n", about.Mode(), about.Size(), about.ModTime().UTC().Format(time.RFC3339), path)
		return err
	})
	b.put("state.txt", []byte(names.String()), err)
	record, err := os.Open(filepath.Join(p.dir, "audit.jsonl"))
	if err != nil {
		b.put("audit.json", nil, err)
	} else {
		report, broken := audit.Verify(record, "")
		b.putJSON("audit.json", audited{backup.APIVersion, record.Name(), broken == nil, report}, record.Close())
		b.put("audit.json", nil, broken)
	}
	o, err := c.database(ctx, p)
	if err != nil {
		b.put("database.json", nil, err)
		return
	}
	found, err := store.Inspect(ctx, o)
	b.putJSON("database.json", checkedDatabase(o, found, err), nil)
	b.put("database.json", nil, err)
}

// write makes the file, which only its maker reads.
func (b *bundle) write(path string) (size int64, err error) {
	var manifest strings.Builder
	if err := writeJSON(&manifest, b.bundleManifest); err != nil {
		return 0, err
	}
	text, _ := b.redact("manifest.json", []byte(manifest.String()))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, invalid("%w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	zipped := gzip.NewWriter(file)
	out := tar.NewWriter(zipped)
	folder := strings.TrimSuffix(filepath.Base(path), ".tar.gz") + "/"
	put := func(name string, text []byte) error {
		h := &tar.Header{Name: folder + name, Mode: 0o600, Size: int64(len(text)), ModTime: b.MadeAt}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := out.Write(text)
		return err
	}
	if err := put("manifest.json", text); err != nil {
		return 0, err
	}
	for _, part := range b.Files {
		if err := put(part.Name, b.content[part.Name]); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(out.Close(), zipped.Close(), file.Sync()); err != nil {
		return 0, err
	}
	about, err := file.Stat()
	if err != nil {
		return 0, err
	}
	return about.Size(), nil
}
