package vsphere

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stillframe/stillframe/pkg/inventory"
	"github.com/stillframe/stillframe/pkg/lab/vcenter"
)

// startLab runs a lab vCenter until the test ends.
func startLab(t *testing.T, o vcenter.Options) *vcenter.Server {
	t.Helper()
	o.User, o.Password = "user", "pass"
	s, err := vcenter.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// labEndpoint opens an endpoint to a lab vCenter until the test ends.
func labEndpoint(t *testing.T, address *url.URL, thumbprint string) *Endpoint {
	t.Helper()
	e, err := Open(t.Context(), Options{URL: address, Thumbprint: thumbprint, Login: login("user", "pass"), Agent: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func calls(s *vcenter.Server) map[string]int {
	n := map[string]int{}
	for _, c := range s.TakeCalls() {
		name := c.Method
		if strings.HasPrefix(c.Object, "/rest/") {
			name += " " + strings.SplitN(c.Object, "/id:", 2)[0]
		}
		n[name]++
	}
	return n
}

func TestEstate(t *testing.T) {
	s := startLab(t, vcenter.Options{Clusters: 2, Hosts: 2, VMs: []vcenter.VM{
		{Name: "web", Folder: "prod/web", Tags: []string{"tier/gold", "os/linux"}, Attributes: map[string]string{"owner": "ann", "cost": "7"}},
		{Name: "db", Cluster: "DC0_C1", Host: "DC0_C1_H1", Pool: "silver/db", PowerState: "poweredOff", Conditions: []string{"consolidation_needed", "foreign_snapshot"}},
		{Name: "golden", Conditions: []string{"template"}},
	}})
	s.AddTag("tier/bronze")
	e := labEndpoint(t, s.URL(), s.Thumbprint())
	got, err := e.Estate(t.Context(), EstateOptions{Tags: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Members {
		m := &got.Members[i]
		_, instance := s.UUIDs(m.Name)
		if m.Moref != s.Moref(m.Name) || m.InstanceUUID != instance || instance == "" {
			t.Errorf("%s is %s %s, want %s %s", m.Name, m.Moref, m.InstanceUUID, s.Moref(m.Name), instance)
		}
		m.Moref, m.InstanceUUID = "", ""
	}
	member := func(name, folder, cluster, host, pool string) inventory.Member {
		return inventory.Member{
			Name: name, Folder: folder, Path: folder + "/" + name, Cluster: "/DC0/host/" + cluster, Host: "/DC0/host/" + cluster + "/" + host,
			Pool: "/DC0/host/" + cluster + "/Resources" + pool, Datastores: []string{"LocalDS_0"}, PowerState: "poweredOn", ConnectionState: "connected",
		}
	}
	db := member("db", "/DC0/vm", "DC0_C1", "DC0_C1_H1", "/silver/db")
	db.PowerState, db.ConsolidationNeeded = "poweredOff", true // a snapshot that does not begin as ours is none of our business
	golden := member("golden", "/DC0/vm", "DC0_C0", "DC0_C0_H0", "")
	golden.Template = true
	web := member("web", "/DC0/vm/prod/web", "DC0_C0", "DC0_C0_H0", "")
	web.Tags = []inventory.Tag{{Category: "os", Name: "linux"}, {Category: "tier", Name: "gold"}}
	web.Attributes = map[string]string{"owner": "ann", "cost": "7"}
	want := inventory.Estate{
		Members:    []inventory.Member{db, golden, web},
		Folders:    []string{"/DC0/vm", "/DC0/vm/prod", "/DC0/vm/prod/web"},
		Clusters:   []string{"/DC0/host/DC0_C0", "/DC0/host/DC0_C1"},
		Tags:       []inventory.Tag{{Category: "os", Name: "linux"}, {Category: "tier", Name: "bronze"}, {Category: "tier", Name: "gold"}},
		TagsRead:   true,
		Attributes: []string{"cost", "owner"},
		Pools: []string{
			"/DC0/host/DC0_C0/Resources", "/DC0/host/DC0_C1/Resources", "/DC0/host/DC0_C1/Resources/silver", "/DC0/host/DC0_C1/Resources/silver/db",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Estate (-want +got):\n%s", diff)
	}
}

// TestEstateCalls counts what 250 VMs in 40 folders cost: nothing depends on how many VMs there are.
func TestEstateCalls(t *testing.T) {
	const n = 250
	o := vcenter.Options{Clusters: 4, Hosts: 4}
	for i := range n {
		o.VMs = append(o.VMs, vcenter.VM{
			Name: fmt.Sprintf("vm-%04d", i), Folder: fmt.Sprintf("team-%02d", i%40), Cluster: fmt.Sprintf("DC0_C%d", i%4),
			Tags: []string{fmt.Sprintf("tier/t%d", i%5)}, Attributes: map[string]string{"owner": fmt.Sprint(i % 7)},
		})
	}
	s := startLab(t, o)
	e := labEndpoint(t, s.URL(), s.Thumbprint())
	s.TakeCalls()
	got, err := e.Estate(t.Context(), EstateOptions{})
	if err != nil || len(got.Members) != n || len(got.Folders) != 41 {
		t.Fatalf("Estate gave %d VMs and %d folders, %v", len(got.Members), len(got.Folders), err)
	}
	inventoryCalls := map[string]int{"CreateContainerView": 1, "RetrievePropertiesEx": 1, "DestroyView": 1}
	if diff := cmp.Diff(inventoryCalls, calls(s)); diff != "" {
		t.Errorf("calls without tags (-want +got):\n%s", diff)
	}
	if got, err = e.Estate(t.Context(), EstateOptions{Tags: true}); err != nil || !got.TagsRead || len(got.Members[n-1].Tags) != 1 {
		t.Fatalf("Estate with tags: %v", err)
	}
	want := map[string]int{
		"CreateContainerView": 1, "RetrievePropertiesEx": 1, "DestroyView": 1,
		"POST /rest/com/vmware/cis/session": 1, "DELETE /rest/com/vmware/cis/session": 1,
		"GET /rest/com/vmware/cis/tagging/category": 2, "GET /rest/com/vmware/cis/tagging/tag": 6, // the list, then each one
		"POST /rest/com/vmware/cis/tagging/tag-association": 1,
	}
	if diff := cmp.Diff(want, calls(s)); diff != "" {
		t.Errorf("calls with tags (-want +got):\n%s", diff)
	}
}

// TestEstateRefused asks with a password that is refused by the REST interface only after the SOAP login.
func TestEstateRefused(t *testing.T) {
	s := startLab(t, vcenter.Options{VMs: []vcenter.VM{{Name: "web"}}})
	o := Options{URL: s.URL(), Thumbprint: s.Thumbprint(), Login: login("user", "pass")}
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	e.account.source = login("user", "changed")
	s.TakeCalls()
	for range 2 { // the second one is not tried
		_, err = e.Estate(t.Context(), EstateOptions{Tags: true})
		wantCode(t, err, "SF2001")
	}
	if n := calls(s)["POST /rest/com/vmware/cis/session"]; n != 1 {
		t.Errorf("%d logins with a refused password, want 1", n)
	}
}
