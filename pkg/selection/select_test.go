package selection

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/inventory"
)

// vm is a VM of the small estate below.
func vm(path string, change func(*inventory.Member)) inventory.Member {
	cut := strings.LastIndex(path, "/")
	m := inventory.Member{
		Name: display(path[cut+1:]), Path: path, Folder: path[:cut], Moref: "vm-" + path, InstanceUUID: "uuid-" + path,
		Cluster: "/DC0/host/C0", Pool: "/DC0/host/C0/Resources", PowerState: "poweredOn",
	}
	if change != nil {
		change(&m)
	}
	return m
}

func estate() inventory.Estate {
	gold := inventory.Tag{Category: "tier", Name: "gold"}
	return inventory.Estate{
		Members: []inventory.Member{
			vm("/DC0/vm/prod/web-01", func(m *inventory.Member) { m.Tags = []inventory.Tag{gold} }),
			vm("/DC0/vm/prod/WEB-02", func(m *inventory.Member) { m.Attributes = map[string]string{"owner": "Ann", "backup": "yes"} }),
			vm("/DC0/vm/prod/sql/db-01", func(m *inventory.Member) { m.Pool += "/silver/db"; m.Attributes = map[string]string{"owner": "bob"} }),
			vm("/DC0/vm/test/db-01", func(m *inventory.Member) { m.Cluster = "/DC0/host/C1" }),
			vm("/DC0/vm/test/a%2fb", nil),
			vm("/DC0/vm/golden", func(m *inventory.Member) { m.Template = true }),
			vm("/DC1/vm/prod/lost", func(m *inventory.Member) { m.InstanceUUID = "" }),
		},
		Folders:  []string{"/DC0/vm", "/DC0/vm/prod", "/DC0/vm/prod/sql", "/DC0/vm/test", "/DC0/vm/empty", "/DC1/vm", "/DC1/vm/prod"},
		Clusters: []string{"/DC0/host/C0", "/DC0/host/C1", "/DC1/host/C1"},
		Pools:    []string{"/DC0/host/C0/Resources", "/DC0/host/C0/Resources/silver", "/DC0/host/C0/Resources/silver/db", "/DC0/host/C1/Resources"},
		Tags: []inventory.Tag{
			gold, {Category: "os", Name: "linux"}, {Category: "color", Name: "red"}, {Category: "state", Name: "red"}, {Category: "Tier", Name: "odd"},
		},
		TagsRead: true, Attributes: []string{"backup", "owner"},
	}
}

func paths(choices []Choice) []string {
	all := []string{}
	for _, c := range choices {
		all = append(all, c.VM.Path)
	}
	return all
}

func TestRules(t *testing.T) {
	prod := []string{"/DC0/vm/prod/WEB-02", "/DC0/vm/prod/sql/db-01", "/DC0/vm/prod/web-01"}
	for name, c := range map[string]struct {
		rules Rules
		want  []string
		code  string
		says  string
	}{
		"folder by path":               {Rules{Folders: []string{"/DC0/vm/prod"}}, prod, "", ""},
		"folder by end, another case":  {Rules{Folders: []string{"dc0/VM/prod/"}}, prod, "", ""},
		"folder below":                 {Rules{Folders: []string{"sql"}}, prod[1:2], "", ""},
		"folder by half a name":        {Rules{Folders: []string{"rod"}}, nil, "SF1602", "near: prod"},
		"two folders":                  {Rules{Folders: []string{"prod"}}, nil, "SF1603", "/DC0/vm/prod, /DC1/vm/prod"},
		"folder misspelt":              {Rules{Folders: []string{"/DC0/vm/tset"}}, nil, "SF1602", "near: test"},
		"folder that is empty":         {Rules{Folders: []string{"empty"}}, nil, "SF1604", "no VM"},
		"a whole path that is none":    {Rules{Folders: []string{"/vm/prod"}}, nil, "SF1602", "near: prod"},
		"cluster":                      {Rules{Clusters: []string{"DC0/host/C1"}}, []string{"/DC0/vm/test/db-01"}, "", ""},
		"two clusters":                 {Rules{Clusters: []string{"C1"}}, nil, "SF1603", "/DC1/host/C1"},
		"pool, with those below":       {Rules{ResourcePools: []string{"silver"}}, prod[1:2], "", ""},
		"pool unknown":                 {Rules{ResourcePools: []string{"sliver"}}, nil, "SF1602", "near: silver"},
		"tag":                          {Rules{Tags: []string{"tier/gold"}}, prod[2:], "", ""},
		"tag with a colon":             {Rules{Tags: []string{"TIER:gold"}}, prod[2:], "", ""},
		"tag by name alone":            {Rules{Tags: []string{"Gold"}}, prod[2:], "", ""},
		"tag of two categories":        {Rules{Tags: []string{"red"}}, nil, "SF1603", "color/red, state/red"},
		"tag that no VM has":           {Rules{Tags: []string{"os/linux"}}, nil, "SF1604", "no VM"},
		"tag unknown":                  {Rules{Tags: []string{"golf"}}, nil, "SF1602", "near: gold"},
		"attribute is set":             {Rules{CustomAttributes: []string{"Owner"}}, prod[:2], "", ""},
		"attribute has a value":        {Rules{CustomAttributes: []string{"owner = ann"}}, prod[:1], "", ""},
		"attribute fits":               {Rules{CustomAttributes: []string{"owner=?o*"}}, prod[1:2], "", ""},
		"attribute fits nobody":        {Rules{CustomAttributes: []string{"owner=eve"}}, nil, "SF1604", "no VM"},
		"attribute unknown":            {Rules{CustomAttributes: []string{"ownr=ann"}}, nil, "SF1602", "near: owner"},
		"names":                        {Rules{Names: []string{"web-*"}}, []string{prod[0], prod[2]}, "", ""},
		"names fit nobody":             {Rules{Names: []string{"web-?"}}, nil, "SF1604", "no VM"},
		"name with a slash":            {Rules{Names: []string{"a/?"}}, []string{"/DC0/vm/test/a%2fb"}, "", ""},
		"VM by name":                   {Rules{VMs: []string{"web-02"}}, prod[:1], "", ""},
		"VM by UUID":                   {Rules{VMs: []string{"UUID-/DC0/vm/test/db-01"}}, []string{"/DC0/vm/test/db-01"}, "", ""},
		"VM by path":                   {Rules{VMs: []string{"/DC0/vm/test/db-01"}}, []string{"/DC0/vm/test/db-01"}, "", ""},
		"VM by the end of a path":      {Rules{VMs: []string{"sql/db-01"}}, prod[1:2], "", ""},
		"VM with a slash":              {Rules{VMs: []string{"a/b"}}, []string{"/DC0/vm/test/a%2fb"}, "", ""},
		"two VMs":                      {Rules{VMs: []string{"db-01"}}, nil, "SF1603", "/DC0/vm/prod/sql/db-01, /DC0/vm/test/db-01"},
		"VM unknown":                   {Rules{VMs: []string{"web-03"}}, nil, "SF1602", "near: WEB-02, web-01"},
		"an empty rule":                {Rules{Folders: []string{" / "}}, nil, "SF1602", "empty"},
		"a template":                   {Rules{VMs: []string{"golden"}}, nil, "", ""},
		"a VM without a UUID":          {Rules{VMs: []string{"lost"}}, nil, "", ""},
		"several rules, some of which": {Rules{VMs: []string{"nobody"}, Names: []string{"web-01"}}, prod[2:], "SF1602", "nothing of this name"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Select(estate(), Selector{Rules: c.rules}, nil)
			if got := paths(r.Taken); !slices.Equal(got, c.want) {
				t.Errorf("took %q, want %q", got, c.want)
			}
			if len(c.want) == 0 {
				var nothing *NothingError
				if err := r.Err(); !errors.As(err, &nothing) || nothing.Code() != "SF1601" || c.says != "" && !strings.Contains(err.Error(), c.says) {
					t.Errorf("Err = %v, want SF1601 with %q", err, c.says)
				}
			} else if err := r.Err(); err != nil {
				t.Errorf("Err = %v", err)
			}
			if c.code == "" && len(r.Problems) > 0 || c.code != "" &&
				(len(r.Problems) != 1 || r.Problems[0].Code() != c.code || !strings.Contains(r.Problems[0].Error(), c.says)) {
				t.Errorf("problems %v, want %q with %q", r.Problems, c.code, c.says)
			}
		})
	}
}

// TestSameCase has two folders that differ in nothing but their case.
func TestSameCase(t *testing.T) {
	e := inventory.Estate{
		Members: []inventory.Member{vm("/DC0/vm/Prod/a", nil), vm("/DC0/vm/prod/b", nil)}, Folders: []string{"/DC0/vm/Prod", "/DC0/vm/prod"},
	}
	for text, want := range map[string][]string{"Prod": {"/DC0/vm/Prod/a"}, "prod": {"/DC0/vm/prod/b"}, "PROD": {}} {
		if got := paths(Select(e, Selector{Rules: Rules{Folders: []string{text}}}, nil).Taken); !slices.Equal(got, want) {
			t.Errorf("folder %s takes %q, want %q", text, got, want)
		}
	}
}

func TestReasons(t *testing.T) {
	s := Selector{
		Rules:   Rules{Folders: []string{"/DC0/vm", "/DC1/vm"}, Names: []string{"web-*"}},
		Exclude: Rules{Folders: []string{"test"}, VMs: []string{"db-01", "gone-long-ago"}},
	}
	known := map[string]string{
		"UUID-/DC0/vm/prod/web-01": "/DC0/vm/old/web-01", "uuid-/dc0/vm/test/a%2fb": "/DC0/vm/test/a%2fb", "uuid-gone": "/DC0/vm/gone",
	}
	r := Select(estate(), s, known)
	say := func(c Choice) string {
		return fmt.Sprintf("%s by %s new=%v %s", c.VM.Path, c.By, c.New, c.Why)
	}
	var got []string
	for _, c := range r.Taken {
		got = append(got, say(c))
	}
	for _, c := range r.LeftOut {
		got = append(got, say(c))
	}
	for _, l := range r.Lost {
		got = append(got, fmt.Sprintf("lost %s %s: %s", l.InstanceUUID, l.Path, l.Why))
	}
	for _, p := range r.Problems {
		got = append(got, p.Code()+" "+p.Error())
	}
	want := []string{
		"/DC0/vm/prod/WEB-02 by names: web-* new=true ",
		"/DC0/vm/prod/web-01 by names: web-* new=false ",
		"/DC0/vm/golden by folders: /DC0/vm new=false it is a template",
		"/DC0/vm/prod/sql/db-01 by folders: /DC0/vm new=false excluded by vms: db-01", // ambiguous, so both stay out
		"/DC0/vm/test/a%2fb by folders: /DC0/vm new=false excluded by folders: test",
		"/DC0/vm/test/db-01 by folders: /DC0/vm new=false excluded by vms: db-01",
		"/DC1/vm/prod/lost by folders: /DC1/vm new=false vCenter does not tell its instance UUID, without which it cannot be followed",
		"lost uuid-gone /DC0/vm/gone: vCenter does not have it any more",
		"lost uuid-/dc0/vm/test/a%2fb /DC0/vm/test/a%2fb: excluded by folders: test",
		"SF1603 exclude vms: db-01: it means any of 2: /DC0/vm/prod/sql/db-01, /DC0/vm/test/db-01",
		"SF1602 exclude vms: gone-long-ago: vCenter has nothing of this name",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	for uuid := range known {
		delete(known, uuid)
	}
	if c := Select(estate(), s, known).Taken[0]; !c.New {
		t.Error("with nothing known, a VM is not new")
	}
	if c := Select(estate(), s, nil).Taken[0]; c.New {
		t.Error("at the first time a VM is new")
	}
}

func TestNeedsTags(t *testing.T) {
	e := estate()
	e.TagsRead = false
	if (Selector{Rules: Rules{Names: []string{"*"}}}).NeedsTags() || !(Selector{Exclude: Rules{Tags: []string{"x"}}}).NeedsTags() {
		t.Error("NeedsTags is wrong")
	}
	defer func() {
		if recover() == nil {
			t.Error("Select took an estate without tags for one in which no VM has any")
		}
	}()
	Select(e, Selector{Rules: Rules{Tags: []string{"gold"}}}, nil)
}

func TestFile(t *testing.T) {
	var s Selector
	text := "folders: [prod]\nnames: [\"web-*\"]\nexclude:\n  tags: [os/linux]\n  vms: [a]\n"
	if err := yaml.UnmarshalWithOptions([]byte(text), &s, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	want := Selector{Rules: Rules{Folders: []string{"prod"}, Names: []string{"web-*"}}, Exclude: Rules{Tags: []string{"os/linux"}, VMs: []string{"a"}}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("selector (-want +got):\n%s", diff)
	}
}
