package inventory

import (
	"cmp"
	"slices"
	"strings"
)

const (
	maxNear     = 5
	maxDistance = 2 // letters
)

// Near picks the names that resemble query, the nearest first, at most 5: they contain it, are contained in it, or differ
// by at most two letters. Case does not count.
func Near(query string, names []string) []string {
	query = strings.ToLower(query)
	type miss struct {
		name     string
		distance int
	}
	var misses []miss
	for _, name := range names {
		low := strings.ToLower(name)
		d := distance(query, low)
		if d > maxDistance && (len(query) < 3 || !strings.Contains(low, query)) && (len(low) < 3 || !strings.Contains(query, low)) {
			continue
		}
		misses = append(misses, miss{name, d})
	}
	slices.SortFunc(misses, func(a, b miss) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	var nearest []string
	for _, m := range misses {
		if len(nearest) < maxNear && !slices.Contains(nearest, m.name) {
			nearest = append(nearest, m.name)
		}
	}
	return nearest
}

// distance is Levenshtein's, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
