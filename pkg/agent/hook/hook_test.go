package hook

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/agent"
)

func TestParse(t *testing.T) {
	d, err := parse("# a comment\n\n point = prepare , pre-freeze\nholds=true\nrequired=false\nlimit=4s\nenv.PGHOST=/run/a=b\n")
	want := description{points: []agent.Point{"prepare", "pre-freeze"}, holds: true, limit: 4 * time.Second, env: []string{"PGHOST=/run/a=b"}}
	if diff := cmp.Diff(want, d, cmp.AllowUnexported(description{})); err != nil || diff != "" {
		t.Errorf("parse: %v %s", err, diff)
	}
	if d, err := parse("point=post-thaw"); err != nil || !d.required {
		t.Errorf("a hook that says nothing of it is required = %t, %v, want true", d.required, err)
	}
	if b := d.bound(time.Second); b != time.Second {
		t.Errorf("a hook's own limit of 4 s made 1 s to %v", b)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "point is missing",
		"point=":                               "not prepare",
		"point=freeze":                         `point "freeze"`,
		"point=prepare,prepare":                "twice",
		"point=prepare\npoint=prepare":         "twice",
		"point=prepare\nholds=true":            "goes with",
		"point=pre-freeze":                     "goes with",
		"point=prepare\nrequired=maybe":        "required",
		"point=prepare\nlimit=0s":              "above 0",
		"point=prepare\nlimit=5":               "limit",
		"point=prepare\nuser=postgres":         "user",
		"point=prepare\nenv.=x":                "env.",
		"point=prepare\nenv.A B=x":             "env.A B",
		"point=prepare\nenv.STILLFRAME_OK=1":   "STILLFRAME_OK",
		"point=prepare\nsome words":            "key=value",
		"point=prepare\nenv.A=1\nenv.A=2\n":    "twice",
		"point=prepare\nenv.1A=x":              "env.1A",
		"point=pre-freeze,post-thaw\nholds=no": "holds",
	} {
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse(%q) = %v, want an error with %q", text, err, want)
		}
	}
}
