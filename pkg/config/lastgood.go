package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// The copy of the configuration that was last taken over, in the state folder.
const (
	lastGoodName    = "config.lkg.yaml"
	lastGoodNewName = "config.lkg.yaml.new"
	lastGoodHeader  = "# Written by stillframe daemon: the configuration that it last took over. Do not edit.\n"
)

// WriteLastGood keeps what the files of a configuration say, conf.d among them, for a start at which they cannot be used.
// Secrets are there as references only; variables and flags are not kept. Killed at any point, the name leads to all of the
// old or all of the new content.
func WriteLastGood(stateDir string, c *Config) error {
	text, err := lastGoodText(c.written)
	if err != nil {
		return fmt.Errorf("keep the configuration: %w", err)
	}
	fresh, path := filepath.Join(stateDir, lastGoodNewName), filepath.Join(stateDir, lastGoodName)
	if err := writeSynced(fresh, text); err != nil {
		return fmt.Errorf("keep the configuration: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("keep the configuration: %w", err)
	}
	folder, err := os.Open(stateDir)
	if err != nil {
		return fmt.Errorf("keep the configuration: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// lastGoodText is JSON, which is YAML too, and says each text in one way only. It is read back before it takes the place of
// an older one.
func lastGoodText(written map[string]any) (string, error) {
	var b strings.Builder
	b.WriteString(lastGoodHeader)
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(written); err != nil {
		return "", err
	}
	again, problems := parseSource(lastGoodName, []byte(b.String()))
	if len(problems) > 0 || !reflect.DeepEqual(again.value, any(written)) {
		return "", fmt.Errorf("it would not be read as it was written: %v", problems)
	}
	return b.String(), nil
}

// writeSynced writes a file that only its owner reads, and has it on the disk when it returns.
func writeSynced(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// LoadLastGood reads what WriteLastGood kept, and checks it like any other file. One that was never kept is SF1201.
func LoadLastGood(stateDir string, o Options) (*Config, []Problem) {
	l := loader{file: filepath.Join(stateDir, lastGoodName), options: o}
	l.main()
	return l.finish()
}
