package guest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAgentCodes holds the codes that are taken from a guest to those in the agent's source.
func TestAgentCodes(t *testing.T) {
	var given []string
	for _, root := range []string{"../agent", "../../cmd/agent"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`"(SF\d{4})\b`).FindAllStringSubmatch(string(source), -1) {
				given = append(given, m[1])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(given)
	if given = slices.Compact(given); !slices.Equal(given, agentCodes()) {
		t.Errorf("the agent gives the codes %v, taken from it are %v", given, agentCodes())
	}
	for _, code := range []string{"", "SF3001", "SF1104", "SF2001", "SF4008 ", "sf4008"} {
		if got := AgentCode(code, "SF3901"); got != "SF3901" {
			t.Errorf("code %q of a guest is taken for %q, want SF3901", code, got)
		}
	}
	if got := AgentCode("SF4008", "SF3901"); got != "SF4008" {
		t.Errorf("the agent's SF4008 is taken for %q", got)
	}
}
