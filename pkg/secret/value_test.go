package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/stillframe/stillframe/pkg/lab/canary"
)

// holders are the places in which a Value is met.
func holders(v Value) map[string]any {
	type open struct{ V Value }
	type hidden struct{ v Value }
	type deep struct {
		p *hidden
		m map[string]hidden
		s []*Value
		i any
	}
	return map[string]any{
		"bare": v, "pointer": &v, "exported field": open{v}, "behind a pointer": &open{v},
		"unexported field": hidden{v}, "unexported behind a pointer": &hidden{v}, "slice": []Value{v}, "map": map[string]Value{"k": v},
		"secret": Secret{User: "u", Value: v, Version: "1"}, "error": fmt.Errorf("with %v and %w", v, &Error{codeUnusable, "op", fmt.Errorf("%s", v)}),
		"deep": deep{&hidden{v}, map[string]hidden{"k": {v}}, []*Value{&v}, hidden{v}},
	}
}

// TestValueIsNeverPrinted prints a Value in every way that the product or a library knows.
func TestValueIsNeverPrinted(t *testing.T) {
	c := canary.New()
	v := New([]byte(c.String()))
	if v.Reveal() != c.String() {
		t.Fatalf("Reveal = %q", v.Reveal())
	}
	for place, holder := range holders(v) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "% x", "%q", "%d", "%o", "%b", "%c", "%U", "%t", "%p", "%e", "%10.3s"} {
			look(t, c, place+" "+verb, []byte(fmt.Sprintf(verb, holder)))
		}
		var log bytes.Buffer
		core := zapcore.NewTee(
			zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&log), zap.DebugLevel),
			zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.AddSync(&log), zap.DebugLevel),
		)
		logger := zap.New(core)
		logger.Info("any", zap.Any("a", holder), zap.Reflect("r", holder), zap.Object("o", v), zap.Inline(v))
		logger.Sugar().Infow("sugar", "a", holder)
		logger.Sugar().Infof("%v %+v", holder, holder)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "a", holder)
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "a", holder)
		look(t, c, place+" in a log", log.Bytes())

		for format, marshal := range map[string]func(any) ([]byte, error){"JSON": json.Marshal, "YAML": func(a any) ([]byte, error) { return yaml.Marshal(a) }, "XML": xml.Marshal} {
			out, err := marshal(holder)
			look(t, c, place+" in "+format, append(out, fmt.Sprint(err)...))
		}
		var page bytes.Buffer
		err := template.Must(template.New("").Parse("{{.}} {{printf `%s` .}}")).Execute(&page, holder)
		look(t, c, place+" in a template", append(page.Bytes(), fmt.Sprint(err)...))
	}
}

func look(t *testing.T, c canary.Canary, where string, text []byte) {
	t.Helper()
	if found := c.Find(text); found != nil {
		t.Errorf("%s: found as %q in %q", where, found, text)
	}
}

// TestRedaction: one word everywhere, also for what is empty, so that it does not tell whether there is a secret.
func TestRedaction(t *testing.T) {
	for name, v := range map[string]Value{"zero": {}, "full": New([]byte("x"))} {
		text, err := json.Marshal(map[string]Value{"v": v})
		if err != nil || string(text) != `{"v":"[redacted]"}` {
			t.Errorf("%s: JSON = %s, %v", name, text, err)
		}
		doc, err := yaml.Marshal(struct{ V Value }{v})
		if err != nil || strings.TrimSpace(string(doc)) != "v: '[redacted]'" && strings.TrimSpace(string(doc)) != `v: "[redacted]"` {
			t.Errorf("%s: YAML = %s, %v", name, doc, err)
		}
		if got := fmt.Sprintf("%v %s %d", v, v, v); got != "[redacted] [redacted] [redacted]" {
			t.Errorf("%s: printed as %q", name, got)
		}
	}
	if got := (Value{}).Reveal(); got != "" {
		t.Errorf("the zero Value reveals %q", got)
	}
}

// TestNewCopies: the caller clears its own copy after use.
func TestNewCopies(t *testing.T) {
	plain := []byte("secret")
	v := New(plain)
	clear(plain)
	if v.Reveal() != "secret" {
		t.Errorf("Reveal = %q", v.Reveal())
	}
}
