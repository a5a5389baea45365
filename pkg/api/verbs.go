package api

import (
	"net/http"
	"strings"
)

// verbs is a mux that also knows paths such as /jobs/{name}:run, where ServeMux takes the verb for a part of the name. No
// name or id of ours has a colon.
type verbs struct {
	mux *http.ServeMux
	// by are the handlers of each verb, by the pattern without it.
	by map[string]map[string]http.HandlerFunc
}

func (v *verbs) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	rest, verb, ok := strings.Cut(pattern, "}:")
	if !ok {
		v.mux.HandleFunc(pattern, handler)
		return
	}
	rest += "}"
	if v.by[rest] == nil {
		handlers := map[string]http.HandlerFunc{}
		v.by[rest] = handlers
		name := rest[strings.LastIndex(rest, "{")+1 : len(rest)-1]
		v.mux.HandleFunc(rest, func(w http.ResponseWriter, r *http.Request) {
			value := r.PathValue(name)
			if i := strings.LastIndexByte(value, ':'); i >= 0 {
				if h, known := handlers[value[i+1:]]; known {
					r.SetPathValue(name, value[:i])
					h(w, r)
					return
				}
			}
			v.mux.ServeHTTP(w, noSuchPath(r))
		})
	}
	v.by[rest][verb] = handler
}

func (v *verbs) ServeHTTP(w http.ResponseWriter, r *http.Request) { v.mux.ServeHTTP(w, r) }

// noSuchPath is the request with a path that nobody handles.
func noSuchPath(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.URL.Path, r.URL.RawPath = "/", ""
	return r
}
