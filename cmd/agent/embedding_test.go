package main

import (
	"slices"
	"strings"
	"testing"
)

func TestWithoutEmbedding(t *testing.T) {
	for in, want := range map[string]string{
		"com":                        "com",
		"com -Embedding":             "com",
		"-Embedding com":             "com",
		"com /embedding":             "com",
		"run --Embedding --peer x":   "run --peer x",
		"com ---Embedding":           "com ---Embedding",
		"com Embedding -Embeddings":  "com Embedding -Embeddings",
		"run --deployment Embedding": "run --deployment Embedding",
	} {
		args := strings.Fields(in)
		if got := strings.Join(withoutEmbedding(args), " "); got != want {
			t.Errorf("withoutEmbedding(%q) = %q, want %q", in, got, want)
		}
		if !slices.Equal(args, strings.Fields(in)) {
			t.Errorf("withoutEmbedding(%q) changed its argument", in)
		}
	}
}
