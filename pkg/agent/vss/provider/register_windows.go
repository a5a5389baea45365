package provider

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

const (
	// providerName is what vssadmin list providers shows.
	providerName = "Stillframe VSS provider"
	// applicationID is the AppID that ties the class to the service that runs it; it never changes.
	applicationID = "8ec46b07-939b-40bb-a8be-2fc312d402b7"

	classes   = `SOFTWARE\Classes\`
	providers = `SYSTEM\CurrentControlSet\Services\VSS\Providers\`

	// mayLaunch and mayAccess let SYSTEM and Administrators, from this machine only, activate and call the class
	// (COM_RIGHTS_EXECUTE 1, EXECUTE_LOCAL 2, ACTIVATE_LOCAL 8; iaccess.h).
	mayLaunch = "O:BAG:BAD:(A;;0xB;;;SY)(A;;0xB;;;BA)"
	mayAccess = "O:BAG:BAD:(A;;0x3;;;SY)(A;;0x3;;;BA)"
)

var (
	// classCoordinator and iidAdmin: vsadmin.h.
	classCoordinator = com.MustGUID("e579ab5f-1cc4-44b4-bed9-de0991ff0623")
	iidAdmin         = com.MustGUID("77ed5996-2f63-11d3-8a39-00c04f72d8e3")
)

// The methods of IVssAdmin (vsadmin.h).
const (
	slotRegisterProvider   = 3
	slotUnregisterProvider = 4
)

// Registration is how this machine finds the provider.
type Registration struct {
	// Exe is the agent's path; COM starts it with the argument "com" unless Service runs it.
	Exe string
	// Service is the name of the service that runs the agent; empty for an agent that runs without one. With a name COM
	// starts the service, or finds it running.
	Service string
	// Version is shown by vssadmin list providers.
	Version string
}

// Register makes the provider known to COM and to VSS. It may be repeated; a registration left by another version is
// replaced. It needs an administrator and a goroutine that has entered an apartment. VSS_E_PROVIDER_IN_USE says that a set
// is open.
func Register(r Registration) error {
	if err := registerClass(r); err != nil {
		return err
	}
	known, err := registeredVersion()
	if err != nil {
		return err
	}
	if known == r.Version {
		return nil
	}
	return withAdmin(func(admin *com.Object) error {
		err := register(admin, r.Version)
		if !errors.Is(err, vsscode.VSS_E_PROVIDER_ALREADY_REGISTERED) {
			return err
		}
		if err := unregister(admin); err != nil {
			return err
		}
		return register(admin, r.Version)
	})
}

// Unregister takes back all that Register wrote; it may be repeated. It needs what Register needs.
func Unregister() error {
	err := withAdmin(unregister)
	for _, path := range []string{classPath() + `\LocalServer32`, classPath(), applicationPath()} {
		if e := registry.DeleteKey(registry.LOCAL_MACHINE, path); e != nil && !errors.Is(e, registry.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("delete %s: %w", path, e))
		}
	}
	return err
}

func classPath() string { return classes + `CLSID\` + ClassID().Braced() }

func applicationPath() string { return classes + `AppID\` + com.MustGUID(applicationID).Braced() }

// registerClass writes what COM reads to find the class.
func registerClass(r Registration) error {
	application := com.MustGUID(applicationID).Braced()
	err := writeKey(classPath(), map[string]any{"": providerName, "AppID": application})
	if err == nil {
		err = writeKey(classPath()+`\LocalServer32`, map[string]any{"": `"` + r.Exe + `" com`})
	}
	if err != nil {
		return err
	}
	launch, err := descriptor(mayLaunch)
	if err != nil {
		return err
	}
	access, err := descriptor(mayAccess)
	if err != nil {
		return err
	}
	values := map[string]any{"": providerName, "LaunchPermission": launch, "AccessPermission": access, "LocalService": nil}
	if r.Service != "" {
		values["LocalService"] = r.Service // COM prefers it to LocalServer32
	}
	return writeKey(applicationPath(), values)
}

// descriptor gives the bytes of a security descriptor, as the registry keeps them.
func descriptor(sddl string) ([]byte, error) {
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return nil, fmt.Errorf("read the security descriptor %s: %w", sddl, err)
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(sd)), sd.Length()), nil
}

// writeKey writes strings and bytes; nil deletes a value.
func writeKey(path string, values map[string]any) (err error) {
	key, _, err := registry.CreateKey(registry.LOCAL_MACHINE, path, registry.SET_VALUE)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, key.Close()) }()
	for name, value := range values {
		switch value := value.(type) {
		case string:
			err = key.SetStringValue(name, value)
		case []byte:
			err = key.SetBinaryValue(name, value)
		case nil:
			if err = key.DeleteValue(name); errors.Is(err, registry.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("write %s of %s: %w", name, path, err)
		}
	}
	return nil
}

// registeredVersion gives the version under which VSS knows the provider, "" when it knows none, or one of another class
// or release line.
func registeredVersion() (version string, err error) {
	path := providers + ID().Braced()
	class, err := readString(path+`\CLSID`, "")
	if err != nil || !sameGUID(class, ClassID()) {
		return "", err
	}
	line, err := readString(path, "VersionId")
	if err != nil || !sameGUID(line, VersionID()) {
		return "", err
	}
	return readString(path, "Version")
}

func sameGUID(text string, want com.GUID) bool {
	g, err := com.ParseGUID(text)
	return err == nil && g == want
}

// readString gives "" for what is not there.
func readString(path, name string) (value string, err error) {
	key, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE)
	if errors.Is(err, registry.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, key.Close()) }()
	value, _, err = key.GetStringValue(name)
	if errors.Is(err, registry.ErrNotExist) {
		return "", nil
	}
	return value, err
}

func withAdmin(do func(*com.Object) error) error {
	admin, err := com.Create(classCoordinator, iidAdmin)
	if err != nil {
		return fmt.Errorf("reach the VSS coordinator: %w", err)
	}
	defer admin.Release()
	return do(admin)
}

func register(admin *com.Object, version string) error {
	id, class, line := ID(), ClassID(), VersionID()
	name, err := windows.UTF16PtrFromString(providerName)
	if err != nil {
		return err
	}
	text, err := windows.UTF16PtrFromString(version)
	if err != nil {
		return fmt.Errorf("version %q: %w", version, err)
	}
	hr := vsscode.HRESULT(admin.Call(slotRegisterProvider, uintptr(unsafe.Pointer(&id)), uintptr(unsafe.Pointer(&class)),
		uintptr(unsafe.Pointer(name)), vsscode.SoftwareProvider, uintptr(unsafe.Pointer(text)), uintptr(unsafe.Pointer(&line))))
	if hr.Failed() {
		return fmt.Errorf("register the VSS provider: %w", hr)
	}
	return nil
}

// unregister is content when VSS does not know the provider.
func unregister(admin *com.Object) error {
	id := ID()
	hr := vsscode.HRESULT(admin.Call(slotUnregisterProvider, uintptr(unsafe.Pointer(&id))))
	if hr.Failed() && hr != vsscode.VSS_E_PROVIDER_NOT_REGISTERED {
		return fmt.Errorf("unregister the VSS provider: %w", hr)
	}
	return nil
}
