// Package selection picks the VMs that a job takes from the estate of a vCenter, and says why each was taken or left out.
package selection

// Kind is what a rule looks at.
type Kind string

// The kinds, the most specific first: where several rules take a VM, the first of them in this order is named.
const (
	VM              Kind = "vms"
	Name            Kind = "names"
	Tag             Kind = "tags"
	CustomAttribute Kind = "custom_attributes"
	Folder          Kind = "folders"
	ResourcePool    Kind = "resource_pools"
	Cluster         Kind = "clusters"
)

// Rule is one line of a selector.
type Rule struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
}

// String names the rule as the selector has it.
func (r Rule) String() string { return string(r.Kind) + ": " + r.Text }

// Rules take every VM that at least one of them matches. Case never counts, unless two things differ in nothing else:
// then the one that is written the same is meant.
type Rules struct {
	// Folders, ResourcePools and Clusters are inventory paths (/DC0/vm/prod), or the end of one (prod, vm/prod) that fits
	// only one thing. What lies below counts.
	Folders       []string `json:"folders,omitempty"        yaml:"folders"`
	Clusters      []string `json:"clusters,omitempty"       yaml:"clusters"`
	ResourcePools []string `json:"resource_pools,omitempty" yaml:"resource_pools"`
	// Tags are category/name, or a name that only one category has.
	Tags []string `json:"tags,omitempty" yaml:"tags"`
	// CustomAttributes are name=value, where the value may have * and ?, or a name alone for any value.
	CustomAttributes []string `json:"custom_attributes,omitempty" yaml:"custom_attributes"`
	// Names are names of VMs with * for any letters and ? for one.
	Names []string `json:"names,omitempty" yaml:"names"`
	// VMs are single VMs by instance UUID, inventory path, the end of one, or name.
	VMs []string `json:"vms,omitempty" yaml:"vms"`
}

// List gives the rules in the order of the kinds.
func (r Rules) List() []Rule {
	var all []Rule
	for _, of := range []struct {
		kind  Kind
		texts []string
	}{
		{VM, r.VMs},
		{Name, r.Names},
		{Tag, r.Tags},
		{CustomAttribute, r.CustomAttributes},
		{Folder, r.Folders},
		{ResourcePool, r.ResourcePools},
		{Cluster, r.Clusters},
	} {
		for _, text := range of.texts {
			all = append(all, Rule{of.kind, text})
		}
	}
	return all
}

// Selector says which VMs a job takes: those that Rules match and Exclude does not. The zero Selector takes none.
type Selector struct {
	Rules   `yaml:",inline"`
	Exclude Rules `json:"exclude" yaml:"exclude"`
}

// NeedsTags says whether the estate must have been read with its tags.
func (s Selector) NeedsTags() bool { return len(s.Tags) > 0 || len(s.Exclude.Tags) > 0 }
