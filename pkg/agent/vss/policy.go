package vss

import (
	"slices"
	"strings"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/protocol"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// role is what a writer's failure means for a restore point.
type role uint8

const (
	tolerated role = iota
	required
	excluded
)

// policy says which writers must be well. A name or a class id of the job decides; what it does not name is required when
// Stillframe knows that it must be well, else tolerated.
type policy struct{ job protocol.WriterPolicy }

func (p policy) role(class com.GUID, name string) role {
	switch {
	case lists(p.job.Excluded, class, name):
		return excluded
	case lists(p.job.Required, class, name):
		return required
	case lists(p.job.Tolerated, class, name):
		return tolerated
	}
	if w, ok := vsscode.LookupWriter(class.String()); ok && w.Required {
		return required
	}
	return tolerated
}

// lists says whether one of words is the class or the name, in any case.
func lists(words []string, class com.GUID, name string) bool {
	return slices.ContainsFunc(words, func(word string) bool {
		g, err := com.ParseGUID(word)
		return (err == nil && g == class) || strings.EqualFold(word, name)
	})
}

// classes gives the class ids of the excluded writers: they are named to VSS before anything is known of the writers that
// live here, so a name that is in no table is refused.
func (p policy) classes() ([]com.GUID, error) {
	var all []com.GUID
	for _, word := range p.job.Excluded {
		if g, err := com.ParseGUID(word); err == nil {
			all = append(all, g)
			continue
		}
		known := vsscode.Writers()
		i := slices.IndexFunc(known, func(w vsscode.Writer) bool { return strings.EqualFold(w.Name, word) })
		if i < 0 {
			return nil, coded(codeNotReady, "exclude the writer %q: only a class id can be excluded when the name is not known", word)
		}
		all = append(all, com.MustGUID(known[i].ClassID))
	}
	return all, nil
}

// missing names the writers that the job requires and that are not among those present.
func (p policy) missing(present []writer) []string {
	var names []string
	for _, word := range p.job.Required {
		if !slices.ContainsFunc(present, func(w writer) bool { return lists([]string{word}, w.class, w.name) }) {
			names = append(names, word)
		}
	}
	return names
}
