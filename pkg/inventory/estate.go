package inventory

// Estate is what a selection of VMs is made from: every VM of one vCenter or ESXi host that the account may see, and the
// things that VMs can be selected by. It is a plain value of one moment.
type Estate struct {
	Members []Member
	// Folders are the inventory paths of all folders for VMs, such as /DC0/vm/prod. Pools are those of all resource pools
	// and vApps, such as /DC0/host/Cluster/Resources/silver.
	Folders, Pools []string
	// Clusters are the inventory paths of all clusters, such as /DC0/host/Cluster. A host that is in no cluster counts as
	// one with its own name.
	Clusters []string
	// Tags are all tags that exist, attached or not. TagsRead is false when nobody asked for them.
	Tags     []Tag
	TagsRead bool
	// Attributes are the names of all custom attributes that a VM can have.
	Attributes []string
}

// Tag is one vCenter tag.
type Tag struct{ Category, Name string }

// String is category/name.
func (t Tag) String() string { return t.Category + "/" + t.Name }

// Member is one VM as far as a selection asks. What the account may not read is empty.
type Member struct {
	// Name is the display name. Path is the inventory path, of which Folder is all but the name.
	Name, Path, Folder string
	// Moref is good only on the endpoint that gave it; InstanceUUID is the identity that lasts.
	Moref, InstanceUUID string
	// Cluster, Pool and Host are inventory paths.
	Cluster, Pool, Host string
	// Datastores are the names of the datastores that it lies on, sorted.
	Datastores []string
	// Tags are its own; vCenter does not hand tags of a folder down.
	Tags []Tag
	// Attributes are its custom attributes that have a value.
	Attributes map[string]string
	// Template is true for a template, which cannot run.
	Template bool
	// ConsolidationNeeded is runtime.consolidationNeeded.
	ConsolidationNeeded bool
	// PowerState is poweredOn, poweredOff or suspended; ConnectionState is connected, or why vCenter cannot reach the VM.
	PowerState, ConnectionState string
	// Snapshots are those whose names begin as ours do, parents before children.
	Snapshots []Listed
}
