package main

import (
	"slices"
	"strings"
)

// withoutEmbedding drops the word that COM adds to the command line of a local server which it starts. COM writes
// -Embedding; /Embedding and --Embedding are older spellings (Microsoft Learn, "LocalServer32").
func withoutEmbedding(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		word := strings.TrimPrefix(a, "/")
		if word == a {
			word = strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-")
		}
		return word != a && strings.EqualFold(word, "Embedding")
	})
}
