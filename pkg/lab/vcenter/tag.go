package vcenter

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// restPath is where vCenter's REST interface begins, of which the front answers sessions and tags.
const restPath = "/rest/com/vmware/cis/"

// The prefixes of ids as vCenter gives them.
const (
	tagID      = "urn:vmomi:InventoryServiceTag:"
	categoryID = "urn:vmomi:InventoryServiceCategory:"
)

// tags are the tags of the lab and the REST sessions that may read them. The server's lock guards the sessions.
type tags struct {
	categories, names []string            // category i has the id categoryID+i, tag i tagID+i
	attached          map[string][]string // tags by the moref of a VM
	sessions          map[string]bool
}

// attach makes the tags that VMs have, written category/name.
func (s *Server) attach() error {
	s.tags = tags{attached: map[string][]string{}, sessions: map[string]bool{}}
	for _, m := range s.machines {
		for _, tag := range m.spec.Tags {
			category, name, ok := strings.Cut(tag, "/")
			if !ok || category == "" || name == "" {
				return fmt.Errorf("tag VM %q of lab vcenter: %q is not category/name", m.spec.Name, tag)
			}
			s.tags.add(category, tag)
			s.tags.attached[m.ref.Value] = append(s.tags.attached[m.ref.Value], s.tags.id(tag))
		}
	}
	return nil
}

func (t *tags) add(category, tag string) {
	if !slices.Contains(t.categories, category) {
		t.categories = append(t.categories, category)
	}
	if !slices.Contains(t.names, tag) {
		t.names = append(t.names, tag)
	}
}

func (t *tags) id(tag string) string { return fmt.Sprintf("%s%d", tagID, slices.Index(t.names, tag)) }

// AddTag makes a tag, written category/name, that no VM has. Call it before clients read tags.
func (s *Server) AddTag(tag string) {
	category, _, _ := strings.Cut(tag, "/")
	s.tags.add(category, tag)
}

// serveREST answers the REST interface: a login by name and password, tags, categories, attachments.
func (s *Server) serveREST(w http.ResponseWriter, r *http.Request) {
	what := strings.TrimPrefix(r.URL.Path, restPath)
	session := r.Header.Get("vmware-api-session-id")
	if what == "session" && r.Method == http.MethodPost {
		s.openREST(w, r)
		return
	}
	s.mu.Lock()
	known := s.tags.sessions[session]
	if what == "session" && r.Method == http.MethodDelete {
		delete(s.tags.sessions, session)
	}
	s.mu.Unlock()
	if !known {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if what == "session" {
		return
	}
	s.serveTags(w, r, what)
}

func (s *Server) openREST(w http.ResponseWriter, r *http.Request) {
	if user, password, ok := r.BasicAuth(); !ok || user != s.user || password != s.password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	id := rand.Text()
	s.mu.Lock()
	s.tags.sessions[id] = true
	s.mu.Unlock()
	value(w, id)
}

func (s *Server) serveTags(w http.ResponseWriter, r *http.Request, what string) {
	kind, id, one := strings.Cut(strings.TrimPrefix(what, "tagging/"), "/")
	kind, _, _ = strings.Cut(kind, "?")
	if one {
		id = strings.TrimPrefix(id, "id:")
	}
	switch {
	case kind == "category" && one:
		give(w, id, categoryID, s.tags.categories, func(name string) any { return map[string]string{"id": id, "name": name} })
	case kind == "category":
		value(w, numbered(categoryID, s.tags.categories))
	case kind == "tag" && one:
		give(w, id, tagID, s.tags.names, func(tag string) any {
			category, name, _ := strings.Cut(tag, "/")
			at := fmt.Sprintf("%s%d", categoryID, slices.Index(s.tags.categories, category))
			return map[string]string{"id": id, "name": name, "category_id": at}
		})
	case kind == "tag":
		value(w, numbered(tagID, s.tags.names))
	case kind == "tag-association":
		s.attachments(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// attachments answers list-attached-tags-on-objects; objects without a tag are left out.
func (s *Server) attachments(w http.ResponseWriter, r *http.Request) {
	type object struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	}
	var asked struct {
		Objects []object `json:"object_ids"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	type attached struct {
		Object object   `json:"object_id"`
		Tags   []string `json:"tag_ids"`
	}
	all := []attached{}
	for _, o := range asked.Objects {
		if tags := s.tags.attached[o.ID]; len(tags) > 0 {
			all = append(all, attached{o, tags})
		}
	}
	value(w, all)
}

func numbered(prefix string, names []string) []string {
	ids := []string{}
	for i := range names {
		ids = append(ids, fmt.Sprintf("%s%d", prefix, i))
	}
	return ids
}

// give answers one thing by its id.
func give(w http.ResponseWriter, id, prefix string, names []string, describe func(name string) any) {
	if i := slices.Index(numbered(prefix, names), id); i >= 0 {
		value(w, describe(names[i]))
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

// value writes an answer as the REST interface wraps it.
func value(w http.ResponseWriter, v any) {
	text, err := json.Marshal(map[string]any{"value": v})
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // all of them are ours
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(text); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// attributes gives VMs their custom attributes, before anybody listens.
func (s *Server) attributes() {
	keys := map[string]int32{}
	var fields []types.CustomFieldDef
	for _, m := range s.machines {
		made := s.virtualMachine(m)
		for _, name := range slices.Sorted(maps.Keys(m.spec.Attributes)) {
			if keys[name] == 0 {
				keys[name] = int32(len(keys) + 1)
				fields = append(fields, types.CustomFieldDef{Key: keys[name], Name: name, ManagedObjectType: "VirtualMachine", Type: "string"})
			}
			made.CustomValue = append(made.CustomValue, &types.CustomFieldStringValue{
				CustomFieldValue: types.CustomFieldValue{Key: keys[name]}, Value: m.spec.Attributes[name],
			})
		}
	}
	s.registry().Get(*s.model.ServiceContent.CustomFieldsManager).(*simulator.CustomFieldsManager).Field = fields
}
