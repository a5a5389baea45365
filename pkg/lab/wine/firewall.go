package wine

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// FirewallRules lists the rules that the prefix's firewall has (testing/cpp/netsh.cpp), each as its words, apart by tabs.
func (p *Prefix) FirewallRules() ([]string, error) {
	text, err := os.ReadFile(p.Path(labFolder + `\firewall`))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rules []string
	for line := range strings.Lines(string(text)) {
		rules = append(rules, strings.TrimSpace(line))
	}
	return rules, nil
}
