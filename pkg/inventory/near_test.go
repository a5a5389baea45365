package inventory

import (
	"slices"
	"testing"
)

func TestNear(t *testing.T) {
	names := []string{"web-01", "web-02", "db-01", "prod-db-01", "WEB-03", "x"}
	for query, want := range map[string][]string{
		"web-04": {"WEB-03", "web-01", "web-02"},
		"db-01":  {"db-01", "web-01", "prod-db-01"},
		"DB-01":  {"db-01", "web-01", "prod-db-01"},
		"y":      {"x"},
		"zzzzzz": nil,
	} {
		if got := Near(query, names); !slices.Equal(got, want) {
			t.Errorf("Near(%q) = %q, want %q", query, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"web-01", "web-02", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
