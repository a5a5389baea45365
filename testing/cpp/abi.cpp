// abi.exe prints, as one JSON object, how mingw-w64's headers lay out the part of VSS and COM that the agent speaks:
// vtable slots, interface ids, sizes, offsets and enums. A test compares the agent's constants with it.
//
// Credible for: layouts as mingw-w64 has them, which no code of ours shares. Never emulates: Microsoft's own headers; where
// the two are known to differ (IVssWriterComponentsExt) nothing is printed.
#define INITGUID
#include <windows.h>

#include <cguid.h>
#include <initguid.h>
#include <objidl.h>
#include <vsadmin.h>
#include <vsbackup.h>
#include <vsprov.h>
#include <vss.h>
#include <vswriter.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

namespace {

// slotOf is the number of a virtual method in its vtable: the Itanium ABI, which mingw's g++ follows, stores 1 + the
// method's offset in a member pointer.
template <class Member>
size_t slotOf(Member member) {
    uintptr_t value = 0;
    std::memcpy(&value, &member, sizeof value);
    return (value - 1) / sizeof(void *);
}

std::string text(const GUID &g) {
    char out[40];
    std::snprintf(out, sizeof out, "%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", (unsigned long)g.Data1, g.Data2, g.Data3,
                  g.Data4[0], g.Data4[1], g.Data4[2], g.Data4[3], g.Data4[4], g.Data4[5], g.Data4[6], g.Data4[7]);
    return out;
}

std::string quoted(const std::string &s) { return "\"" + s + "\""; }

// Object writes the members of one JSON object, in order.
class Object {
public:
    Object &raw(const std::string &key, const std::string &value) {
        body += (body.empty() ? "" : ", ") + quoted(key) + ": " + value;
        return *this;
    }
    Object &number(const std::string &key, long long value) { return raw(key, std::to_string(value)); }
    Object &string(const std::string &key, const std::string &value) { return raw(key, quoted(value)); }
    std::string str() const { return "{" + body + "}"; }

private:
    std::string body;
};

Object interfaceNamed(const GUID *iid, const char *base) {
    Object o;
    o.string("origin", "mingw").string("base", base);
    if (iid != nullptr) {
        o.string("iid", text(*iid));
    }
    return o;
}

#define SLOT(I, m) slots.number(#m, (long long)slotOf(&I::m))

Object unknownSlots() {
    Object slots;
    slots.number("QueryInterface", (long long)slotOf(static_cast<HRESULT (STDMETHODCALLTYPE IUnknown::*)(REFIID, void **)>(&IUnknown::QueryInterface)));
    SLOT(IUnknown, AddRef);
    SLOT(IUnknown, Release);
    return slots;
}

Object backupComponentsSlots() {
    Object slots;
    using I = IVssBackupComponents;
    SLOT(I, GetWriterComponentsCount), SLOT(I, GetWriterComponents), SLOT(I, InitializeForBackup), SLOT(I, SetBackupState);
    SLOT(I, InitializeForRestore), SLOT(I, SetRestoreState), SLOT(I, GatherWriterMetadata), SLOT(I, GetWriterMetadataCount);
    SLOT(I, GetWriterMetadata), SLOT(I, FreeWriterMetadata), SLOT(I, AddComponent), SLOT(I, PrepareForBackup);
    SLOT(I, AbortBackup), SLOT(I, GatherWriterStatus), SLOT(I, GetWriterStatusCount), SLOT(I, FreeWriterStatus);
    SLOT(I, GetWriterStatus), SLOT(I, SetBackupSucceeded), SLOT(I, SetBackupOptions), SLOT(I, SetSelectedForRestore);
    SLOT(I, SetRestoreOptions), SLOT(I, SetAdditionalRestores), SLOT(I, SetPreviousBackupStamp), SLOT(I, SaveAsXML);
    SLOT(I, BackupComplete), SLOT(I, AddAlternativeLocationMapping), SLOT(I, AddRestoreSubcomponent);
    SLOT(I, SetFileRestoreStatus), SLOT(I, AddNewTarget), SLOT(I, SetRangesFilePath), SLOT(I, PreRestore);
    SLOT(I, PostRestore), SLOT(I, SetContext), SLOT(I, StartSnapshotSet), SLOT(I, AddToSnapshotSet);
    SLOT(I, DoSnapshotSet), SLOT(I, DeleteSnapshots), SLOT(I, ImportSnapshots), SLOT(I, BreakSnapshotSet);
    SLOT(I, GetSnapshotProperties), SLOT(I, Query), SLOT(I, IsVolumeSupported), SLOT(I, DisableWriterClasses);
    SLOT(I, EnableWriterClasses), SLOT(I, DisableWriterInstances), SLOT(I, ExposeSnapshot), SLOT(I, RevertToSnapshot);
    SLOT(I, QueryRevertStatus);
    return slots;
}

void addInterface(Object &all, const char *name, Object head, const Object &slots) { all.raw(name, head.raw("slots", slots.str()).str()); }

void addRequestor(Object &all) {
    addInterface(all, "IVssBackupComponents", interfaceNamed(&IID_IVssBackupComponents, "IUnknown"), backupComponentsSlots());
    {
        Object slots;
        using I = IVssBackupComponentsEx;
        SLOT(I, GetWriterMetadataEx), SLOT(I, SetSelectedForRestoreEx);
        addInterface(all, "IVssBackupComponentsEx", interfaceNamed(&IID_IVssBackupComponentsEx, "IVssBackupComponents"), slots);
    }
    {
        Object slots;
        using I = IVssBackupComponentsEx2;
        SLOT(I, UnexposeSnapshot), SLOT(I, SetAuthoritativeRestore), SLOT(I, SetRollForward), SLOT(I, SetRestoreName);
        SLOT(I, BreakSnapshotSetEx), SLOT(I, PreFastRecovery), SLOT(I, FastRecovery);
        addInterface(all, "IVssBackupComponentsEx2", interfaceNamed(&IID_IVssBackupComponentsEx2, "IVssBackupComponentsEx"), slots);
    }
    {
        Object slots;
        using I = IVssBackupComponentsEx3;
        SLOT(I, GetWriterStatusEx), SLOT(I, AddSnapshotToRecoverySet), SLOT(I, RecoverSet), SLOT(I, GetSessionId);
        addInterface(all, "IVssBackupComponentsEx3", interfaceNamed(&IID_IVssBackupComponentsEx3, "IVssBackupComponentsEx2"), slots);
    }
    {
        Object slots;
        using I = IVssBackupComponentsEx4;
        SLOT(I, GetRootAndLogicalPrefixPaths);
        addInterface(all, "IVssBackupComponentsEx4", interfaceNamed(&IID_IVssBackupComponentsEx4, "IVssBackupComponentsEx3"), slots);
    }
    Object slots;
    using I = IVssAsync;
    SLOT(I, Cancel), SLOT(I, Wait), SLOT(I, QueryStatus);
    addInterface(all, "IVssAsync", interfaceNamed(&IID_IVssAsync, "IUnknown"), slots);
}

void addMetadata(Object &all) {
    {
        Object slots;
        using I = IVssExamineWriterMetadata;
        SLOT(I, GetIdentity), SLOT(I, GetFileCounts), SLOT(I, GetIncludeFile), SLOT(I, GetExcludeFile), SLOT(I, GetComponent);
        SLOT(I, GetRestoreMethod), SLOT(I, GetAlternateLocationMapping), SLOT(I, GetBackupSchema), SLOT(I, GetDocument);
        SLOT(I, SaveAsXML), SLOT(I, LoadFromXML);
        addInterface(all, "IVssExamineWriterMetadata", interfaceNamed(&IID_IVssExamineWriterMetadata, "IUnknown"), slots);
    }
    {
        Object slots;
        using I = IVssExamineWriterMetadataEx;
        SLOT(I, GetIdentityEx);
        addInterface(all, "IVssExamineWriterMetadataEx", interfaceNamed(&IID_IVssExamineWriterMetadataEx, "IVssExamineWriterMetadata"), slots);
    }
    {
        Object slots;
        using I = IVssWMComponent;
        SLOT(I, GetComponentInfo), SLOT(I, FreeComponentInfo), SLOT(I, GetFile), SLOT(I, GetDatabaseFile);
        SLOT(I, GetDatabaseLogFile), SLOT(I, GetDependency);
        addInterface(all, "IVssWMComponent", interfaceNamed(nullptr, "IUnknown"), slots);
    }
    {
        Object slots;
        using I = IVssWMFiledesc;
        SLOT(I, GetPath), SLOT(I, GetFilespec), SLOT(I, GetRecursive), SLOT(I, GetAlternateLocation), SLOT(I, GetBackupTypeMask);
        addInterface(all, "IVssWMFiledesc", interfaceNamed(nullptr, "IUnknown"), slots);
    }
    Object slots;
    using I = IVssWMDependency;
    SLOT(I, GetWriterId), SLOT(I, GetLogicalPath), SLOT(I, GetComponentName);
    addInterface(all, "IVssWMDependency", interfaceNamed(nullptr, "IUnknown"), slots);
}

void addProvider(Object &all) {
    {
        Object slots;
        using I = IVssSoftwareSnapshotProvider;
        SLOT(I, SetContext), SLOT(I, GetSnapshotProperties), SLOT(I, Query), SLOT(I, DeleteSnapshots), SLOT(I, BeginPrepareSnapshot);
        SLOT(I, IsVolumeSupported), SLOT(I, IsVolumeSnapshotted), SLOT(I, SetSnapshotProperty), SLOT(I, RevertToSnapshot);
        SLOT(I, QueryRevertStatus);
        addInterface(all, "IVssSoftwareSnapshotProvider", interfaceNamed(&IID_IVssSoftwareSnapshotProvider, "IUnknown"), slots);
    }
    {
        Object slots;
        using I = IVssProviderCreateSnapshotSet;
        SLOT(I, EndPrepareSnapshots), SLOT(I, PreCommitSnapshots), SLOT(I, CommitSnapshots), SLOT(I, PostCommitSnapshots);
        SLOT(I, PreFinalCommitSnapshots), SLOT(I, PostFinalCommitSnapshots), SLOT(I, AbortSnapshots);
        addInterface(all, "IVssProviderCreateSnapshotSet", interfaceNamed(&IID_IVssProviderCreateSnapshotSet, "IUnknown"), slots);
    }
    {
        Object slots;
        using I = IVssProviderNotifications;
        SLOT(I, OnLoad), SLOT(I, OnUnload);
        addInterface(all, "IVssProviderNotifications", interfaceNamed(&IID_IVssProviderNotifications, "IUnknown"), slots);
    }
    Object slots;
    using I = IVssEnumObject;
    SLOT(I, Next), SLOT(I, Skip), SLOT(I, Reset), SLOT(I, Clone);
    addInterface(all, "IVssEnumObject", interfaceNamed(&IID_IVssEnumObject, "IUnknown"), slots);
}

void addCom(Object &all) {
    addInterface(all, "IUnknown", interfaceNamed(&IID_IUnknown, ""), unknownSlots());
    {
        Object slots;
        using I = IClassFactory;
        slots.number("CreateInstance", (long long)slotOf(static_cast<HRESULT (STDMETHODCALLTYPE I::*)(IUnknown *, REFIID, void **)>(&I::CreateInstance)));
        SLOT(I, LockServer);
        addInterface(all, "IClassFactory", interfaceNamed(&IID_IClassFactory, "IUnknown"), slots);
    }
    {
        Object slots;
        using I = IGlobalOptions;
        SLOT(I, Set), SLOT(I, Query);
        addInterface(all, "IGlobalOptions", interfaceNamed(&IID_IGlobalOptions, "IUnknown"), slots);
    }
    Object slots;
    using I = IVssAdmin;
    SLOT(I, RegisterProvider), SLOT(I, UnregisterProvider), SLOT(I, QueryProviders), SLOT(I, AbortAllSnapshotsInProgress);
    addInterface(all, "IVssAdmin", interfaceNamed(&IID_IVssAdmin, "IUnknown"), slots);
}

#define FIELD(T, f) fields.number(#f, (long long)offsetof(T, f))
#define STRUCT(T) all.raw(#T, Object().string("origin", "mingw").number("size", sizeof(T)).raw("offsets", fields.str()).str())

void addStructs(Object &all) {
    {
        Object fields;
        using T = VSS_COMPONENTINFO;
        FIELD(T, type), FIELD(T, bstrLogicalPath), FIELD(T, bstrComponentName), FIELD(T, bstrCaption), FIELD(T, pbIcon), FIELD(T, cbIcon);
        FIELD(T, bRestoreMetadata), FIELD(T, bNotifyOnBackupComplete), FIELD(T, bSelectable), FIELD(T, bSelectableForRestore);
        FIELD(T, dwComponentFlags), FIELD(T, cFileCount), FIELD(T, cDatabases), FIELD(T, cLogFiles), FIELD(T, cDependencies);
        STRUCT(VSS_COMPONENTINFO);
    }
    {
        Object fields;
        using T = VSS_SNAPSHOT_PROP;
        FIELD(T, m_SnapshotId), FIELD(T, m_SnapshotSetId), FIELD(T, m_lSnapshotsCount), FIELD(T, m_pwszSnapshotDeviceObject);
        FIELD(T, m_pwszOriginalVolumeName), FIELD(T, m_pwszOriginatingMachine), FIELD(T, m_pwszServiceMachine);
        FIELD(T, m_pwszExposedName), FIELD(T, m_pwszExposedPath), FIELD(T, m_ProviderId), FIELD(T, m_lSnapshotAttributes);
        FIELD(T, m_tsCreationTimestamp), FIELD(T, m_eStatus);
        STRUCT(VSS_SNAPSHOT_PROP);
    }
    {
        Object fields;
        using T = VSS_PROVIDER_PROP;
        FIELD(T, m_ProviderId), FIELD(T, m_pwszProviderName), FIELD(T, m_eProviderType), FIELD(T, m_pwszProviderVersion);
        FIELD(T, m_ProviderVersionId), FIELD(T, m_ClassId);
        STRUCT(VSS_PROVIDER_PROP);
    }
    {
        Object fields;
        using T = VSS_OBJECT_PROP;
        FIELD(T, Type), FIELD(T, Obj);
        STRUCT(VSS_OBJECT_PROP);
    }
    Object fields;
    STRUCT(GUID);
    STRUCT(boolean);
    STRUCT(WINBOOL);
    STRUCT(VARIANT);
}

#define VALUE(e) values.number(#e, (long long)(e))

Object enums() {
    Object values;
    VALUE(VSS_BT_UNDEFINED), VALUE(VSS_BT_FULL), VALUE(VSS_BT_INCREMENTAL), VALUE(VSS_BT_DIFFERENTIAL), VALUE(VSS_BT_LOG), VALUE(VSS_BT_COPY);
    VALUE(VSS_CT_DATABASE), VALUE(VSS_CT_FILEGROUP);
    VALUE(VSS_UT_BOOTABLESYSTEMSTATE), VALUE(VSS_UT_SYSTEMSERVICE), VALUE(VSS_UT_USERDATA), VALUE(VSS_UT_OTHER);
    VALUE(VSS_ST_TRANSACTEDDB), VALUE(VSS_ST_NONTRANSACTEDDB), VALUE(VSS_ST_OTHER);
    VALUE(VSS_PROV_SYSTEM), VALUE(VSS_PROV_SOFTWARE), VALUE(VSS_PROV_HARDWARE);
    VALUE(VSS_OBJECT_NONE), VALUE(VSS_OBJECT_SNAPSHOT_SET), VALUE(VSS_OBJECT_SNAPSHOT), VALUE(VSS_OBJECT_PROVIDER);
    VALUE(VSS_WS_STABLE), VALUE(VSS_WS_WAITING_FOR_FREEZE), VALUE(VSS_WS_WAITING_FOR_THAW), VALUE(VSS_WS_WAITING_FOR_POST_SNAPSHOT);
    VALUE(VSS_WS_WAITING_FOR_BACKUP_COMPLETE), VALUE(VSS_WS_FAILED_AT_IDENTIFY), VALUE(VSS_WS_FAILED_AT_PREPARE_BACKUP);
    VALUE(VSS_WS_FAILED_AT_PREPARE_SNAPSHOT), VALUE(VSS_WS_FAILED_AT_FREEZE), VALUE(VSS_WS_FAILED_AT_THAW);
    VALUE(VSS_WS_FAILED_AT_POST_SNAPSHOT), VALUE(VSS_WS_FAILED_AT_BACKUP_COMPLETE), VALUE(VSS_WS_FAILED_AT_PRE_RESTORE);
    VALUE(VSS_WS_FAILED_AT_POST_RESTORE), VALUE(VSS_WS_FAILED_AT_BACKUPSHUTDOWN);
    VALUE(VSS_CTX_BACKUP), VALUE(VSS_CTX_APP_ROLLBACK), VALUE(VSS_VOLSNAP_ATTR_PERSISTENT), VALUE(VSS_VOLSNAP_ATTR_NO_AUTORECOVERY);
    VALUE(VSS_VOLSNAP_ATTR_NO_AUTO_RELEASE), VALUE(VSS_VOLSNAP_ATTR_NO_WRITERS), VALUE(VSS_VOLSNAP_ATTR_TRANSPORTABLE);
    VALUE(VSS_VOLSNAP_ATTR_TXF_RECOVERY), VALUE(COMGLB_EXCEPTION_HANDLING), VALUE(COMGLB_EXCEPTION_DONOT_HANDLE);
    VALUE(CLSCTX_LOCAL_SERVER), VALUE(REGCLS_MULTIPLEUSE), VALUE(REGCLS_SUSPENDED);
    return values;
}

#define CODE(e) codes.string(#e, hex(e))

std::string hex(HRESULT hr) {
    char out[16];
    std::snprintf(out, sizeof out, "%08lx", (unsigned long)hr);
    return out;
}

Object codes() {
    Object codes;
    CODE(VSS_E_BAD_STATE), CODE(VSS_E_UNEXPECTED), CODE(VSS_E_PROVIDER_ALREADY_REGISTERED), CODE(VSS_E_PROVIDER_NOT_REGISTERED);
    CODE(VSS_E_PROVIDER_VETO), CODE(VSS_E_PROVIDER_IN_USE), CODE(VSS_E_OBJECT_NOT_FOUND), CODE(VSS_S_ASYNC_PENDING);
    CODE(VSS_S_ASYNC_FINISHED), CODE(VSS_S_ASYNC_CANCELLED), CODE(VSS_E_VOLUME_NOT_SUPPORTED), CODE(VSS_E_OBJECT_ALREADY_EXISTS);
    CODE(VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER), CODE(VSS_E_UNEXPECTED_PROVIDER_ERROR), CODE(VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED);
    CODE(VSS_E_FLUSH_WRITES_TIMEOUT), CODE(VSS_E_HOLD_WRITES_TIMEOUT), CODE(VSS_E_SNAPSHOT_SET_IN_PROGRESS);
    CODE(VSS_E_WRITER_INFRASTRUCTURE), CODE(VSS_E_WRITER_NOT_RESPONDING), CODE(VSS_E_UNSUPPORTED_CONTEXT);
    CODE(VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT), CODE(VSS_E_WRITERERROR_OUTOFRESOURCES), CODE(VSS_E_WRITERERROR_TIMEOUT);
    CODE(VSS_E_WRITERERROR_RETRYABLE), CODE(VSS_E_WRITERERROR_NONRETRYABLE), CODE(VSS_E_WRITER_STATUS_NOT_AVAILABLE);
    return codes;
}

Object classes() {
    Object all;
    all.raw("VSSCoordinator", Object().string("origin", "mingw").string("id", text(CLSID_VSSCoordinator)).str());
    all.raw("GlobalOptions", Object().string("origin", "mingw").string("id", text(CLSID_GlobalOptions)).str());
    return all;
}

}  // namespace

int main() {
    Object interfaces, structs;
    addCom(interfaces), addRequestor(interfaces), addMetadata(interfaces), addProvider(interfaces);
    addStructs(structs);
    Object all;
    all.number("pointer", sizeof(void *)).raw("interfaces", interfaces.str()).raw("classes", classes().str());
    all.raw("structs", structs.str()).raw("enums", enums().str()).raw("codes", codes().str());
    return std::puts(all.str().c_str()) < 0;
}
