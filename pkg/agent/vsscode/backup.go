package vsscode

// BackupType is VSS_BACKUP_TYPE (vss.h): what the writers are told of the kind of backup.
type BackupType uint32

// The types that Stillframe asks for. A full backup may let an application cut its logs, a copy touches nothing.
const (
	Full BackupType = 1
	Copy BackupType = 5
)

// ComponentType is VSS_COMPONENT_TYPE (vswriter.h).
type ComponentType uint32

// The types of components.
const (
	Database  ComponentType = 1
	FileGroup ComponentType = 2
)

// Context is VSS_SNAPSHOT_CONTEXT with VSS_VOLUME_SNAPSHOT_ATTRIBUTES (vss.h): a set of bits, not a number.
type Context uint32

// The bits that Stillframe uses.
const (
	Persistent     Context = 0x1
	NoAutoRecovery Context = 0x2
	NoAutoRelease  Context = 0x8
	Transportable  Context = 0x20
	TxFRecovery    Context = 0x2000000

	// ServerContext is asked for first; client editions answer VSS_E_UNSUPPORTED_CONTEXT and get ClientContext.
	ServerContext = ClientContext | Transportable
	ClientContext = Persistent | NoAutoRelease | NoAutoRecovery | TxFRecovery
)

const (
	// MaxVolumes is the most that one set takes (VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED).
	MaxVolumes = 64
	// SoftwareProvider is VSS_PROV_SOFTWARE of VSS_PROVIDER_TYPE (vss.h).
	SoftwareProvider = 2
)
