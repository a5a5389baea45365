#include "backupcomponents.h"

#include <functional>

#include "async.h"
#include "comobject.h"
#include "enumobject.h"
#include "link.h"
#include "metadata.h"
#include "text.h"

namespace {

// A derivation from mingw's own IVssBackupComponentsEx4 gives the vtable an origin that no code of ours shares.
class BackupComponents : public ComObject<IVssBackupComponentsEx4> {
public:
    BackupComponents() : config(std::make_shared<Config>(Config::of(Config::readText()))), trace(Trace::place()), sessionId(newGuid()) {
        trace.mark("requestor", "Create");
    }

    HRESULT STDMETHODCALLTYPE InitializeForBackup(BSTR xml) override {
        return traced("InitializeForBackup", {}, [&]() -> HRESULT {
            if (xml != nullptr) {
                return E_INVALIDARG;
            }
            if (link == nullptr) {
                HRESULT hr = S_OK;
                link = openLink(*config, trace, hr);
                if (FAILED(hr)) {
                    return hr;
                }
            }
            return say({"initialize"});
        });
    }
    HRESULT STDMETHODCALLTYPE SetBackupState(boolean components, boolean bootable, VSS_BACKUP_TYPE type, boolean partial) override {
        Fields fields = {{"components", flag(components)}, {"bootable", flag(bootable)}, {"type", std::to_string(type)}, {"partial", flag(partial)}};
        return traced("SetBackupState", fields, [&] { return say({"set_state", flag(components), std::to_string(type)}); });
    }
    HRESULT STDMETHODCALLTYPE SetContext(LONG context) override {
        return traced("SetContext", {{"context", hresultText(context)}}, [&] { return say({"set_context", hresultText(context)}); });
    }
    HRESULT STDMETHODCALLTYPE DisableWriterClasses(const VSS_ID *ids, UINT count) override { return classes("DisableWriterClasses", "disable_classes", ids, count); }
    HRESULT STDMETHODCALLTYPE EnableWriterClasses(const VSS_ID *ids, UINT count) override { return classes("EnableWriterClasses", "enable_classes", ids, count); }

    HRESULT STDMETHODCALLTYPE GatherWriterMetadata(IVssAsync **out) override { return work("GatherWriterMetadata", "gather_metadata", out); }
    HRESULT STDMETHODCALLTYPE GetWriterMetadataCount(UINT *count) override {
        return traced("GetWriterMetadataCount", {}, [&] {
            Message reply = ask({"metadata"});
            *count = (UINT)(reply.size() - 1);
            return hrOf(reply);
        });
    }
    HRESULT STDMETHODCALLTYPE GetWriterMetadata(UINT i, VSS_ID *instance, IVssExamineWriterMetadata **out) override {
        IVssExamineWriterMetadataEx *ex = nullptr;
        HRESULT hr = examine("GetWriterMetadata", i, instance, &ex);
        *out = ex;
        return hr;
    }
    HRESULT STDMETHODCALLTYPE GetWriterMetadataEx(UINT i, VSS_ID *instance, IVssExamineWriterMetadataEx **out) override {
        return examine("GetWriterMetadataEx", i, instance, out);
    }
    HRESULT STDMETHODCALLTYPE FreeWriterMetadata() override {
        return traced("FreeWriterMetadata", {}, [&] { return say({"free_metadata"}); });
    }
    HRESULT STDMETHODCALLTYPE AddComponent(VSS_ID instance, VSS_ID writer, VSS_COMPONENT_TYPE type, LPCWSTR path, LPCWSTR name) override {
        return traced("AddComponent", {{"writer", guidText(writer)}, {"path", narrow(path)}, {"component", narrow(name)}},
                      [&] { return say({"add_component", guidText(instance), guidText(writer), std::to_string(type), narrow(path), narrow(name)}); });
    }

    HRESULT STDMETHODCALLTYPE StartSnapshotSet(VSS_ID *set) override {
        return traced("StartSnapshotSet", {}, [&] { return identified({"start_set"}, set); });
    }
    HRESULT STDMETHODCALLTYPE AddToSnapshotSet(VSS_PWSZ volume, VSS_ID provider, VSS_ID *snapshot) override {
        return traced("AddToSnapshotSet", {{"volume", narrow(volume)}, {"provider", guidText(provider)}},
                      [&] { return identified({"add_volume", narrow(volume), guidText(provider)}, snapshot); });
    }
    HRESULT STDMETHODCALLTYPE IsVolumeSupported(VSS_ID provider, VSS_PWSZ volume, WINBOOL *supported) override {
        return traced("IsVolumeSupported", {{"volume", narrow(volume)}, {"provider", guidText(provider)}}, [&] {
            Message reply = ask({"is_volume_supported", guidText(provider), narrow(volume)});
            *supported = reply.size() > 1 && reply[1] == "1";
            return hrOf(reply);
        });
    }
    HRESULT STDMETHODCALLTYPE PrepareForBackup(IVssAsync **out) override { return work("PrepareForBackup", "prepare", out); }
    HRESULT STDMETHODCALLTYPE DoSnapshotSet(IVssAsync **out) override { return work("DoSnapshotSet", "snapshot", out); }

    HRESULT STDMETHODCALLTYPE GatherWriterStatus(IVssAsync **out) override { return work("GatherWriterStatus", "gather_status", out); }
    HRESULT STDMETHODCALLTYPE GetWriterStatusCount(UINT *count) override {
        return traced("GetWriterStatusCount", {}, [&] {
            Message reply = ask({"status"});
            *count = (UINT)((reply.size() - 1) / 5);
            return hrOf(reply);
        });
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatus(UINT i, VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_WRITER_STATE *state, HRESULT *failure) override {
        return writerStatus("GetWriterStatus", i, instance, writer, name, state, failure, nullptr, nullptr);
    }
    HRESULT STDMETHODCALLTYPE GetWriterStatusEx(UINT i, VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_WRITER_STATE *state, HRESULT *failure,
                                                HRESULT *application, BSTR *message) override {
        return writerStatus("GetWriterStatusEx", i, instance, writer, name, state, failure, application, message);
    }
    HRESULT STDMETHODCALLTYPE FreeWriterStatus() override {
        return traced("FreeWriterStatus", {}, [&] { return say({"free_status"}); });
    }

    HRESULT STDMETHODCALLTYPE SetBackupSucceeded(VSS_ID instance, VSS_ID writer, VSS_COMPONENT_TYPE type, LPCWSTR path, LPCWSTR name, boolean good) override {
        Fields fields = {{"writer", guidText(writer)}, {"path", narrow(path)}, {"component", narrow(name)}, {"ok", flag(good)}};
        return traced("SetBackupSucceeded", fields, [&] {
            return say({"set_succeeded", guidText(instance), guidText(writer), std::to_string(type), narrow(path), narrow(name), flag(good)});
        });
    }
    HRESULT STDMETHODCALLTYPE BackupComplete(IVssAsync **out) override { return work("BackupComplete", "complete", out); }
    HRESULT STDMETHODCALLTYPE AbortBackup() override {
        return traced("AbortBackup", {}, [&] { return say({"abort"}); });
    }

    HRESULT STDMETHODCALLTYPE GetSnapshotProperties(VSS_ID snapshot, VSS_SNAPSHOT_PROP *out) override {
        return traced("GetSnapshotProperties", {{"snapshot", guidText(snapshot)}}, [&] {
            Message reply = ask({"snapshot_properties", guidText(snapshot)});
            if (reply.size() == 7) {
                *out = {};
                out->m_SnapshotId = snapshot;
                out->m_SnapshotSetId = guidOf(reply[1]);
                out->m_lSnapshotsCount = std::stol(reply[2]);
                out->m_pwszSnapshotDeviceObject = copyOf(reply[3]);
                out->m_pwszOriginalVolumeName = copyOf(reply[4]);
                out->m_ProviderId = guidOf(reply[5]);
                out->m_lSnapshotAttributes = std::stol(reply[6]);
                out->m_eStatus = VSS_SS_CREATED;
            }
            return hrOf(reply);
        });
    }
    HRESULT STDMETHODCALLTYPE Query(VSS_ID about, VSS_OBJECT_TYPE, VSS_OBJECT_TYPE returned, IVssEnumObject **out) override {
        return traced("Query", {{"type", std::to_string(returned)}}, [&]() -> HRESULT {
            *out = nullptr;
            if (link == nullptr) {
                return VSS_E_BAD_STATE;
            }
            if (about != GUID{}) {
                return E_INVALIDARG;
            }
            *out = newEnumObject(returned == VSS_OBJECT_PROVIDER ? registeredProviders() : std::vector<ProviderRecord>());
            return S_OK;
        });
    }
    HRESULT STDMETHODCALLTYPE GetSessionId(VSS_ID *out) override {
        return traced("GetSessionId", {}, [&] { return *out = sessionId, S_OK; });
    }
    HRESULT STDMETHODCALLTYPE SaveAsXML(BSTR *out) override {
        return traced("SaveAsXML", {}, [&] { return *out = SysAllocString(L"<BACKUP_COMPONENTS/>"), S_OK; });
    }

    // What no backup of ours calls.
    HRESULT STDMETHODCALLTYPE GetWriterComponentsCount(UINT *) override { return foreign("GetWriterComponentsCount"); }
    HRESULT STDMETHODCALLTYPE GetWriterComponents(UINT, IVssWriterComponentsExt **) override { return foreign("GetWriterComponents"); }
    HRESULT STDMETHODCALLTYPE InitializeForRestore(BSTR) override { return foreign("InitializeForRestore"); }
    HRESULT STDMETHODCALLTYPE SetRestoreState(VSS_RESTORE_TYPE) override { return foreign("SetRestoreState"); }
    HRESULT STDMETHODCALLTYPE SetBackupOptions(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR) override { return foreign("SetBackupOptions"); }
    HRESULT STDMETHODCALLTYPE SetSelectedForRestore(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean) override { return foreign("SetSelectedForRestore"); }
    HRESULT STDMETHODCALLTYPE SetRestoreOptions(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR) override { return foreign("SetRestoreOptions"); }
    HRESULT STDMETHODCALLTYPE SetAdditionalRestores(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean) override { return foreign("SetAdditionalRestores"); }
    HRESULT STDMETHODCALLTYPE SetPreviousBackupStamp(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR) override { return foreign("SetPreviousBackupStamp"); }
    HRESULT STDMETHODCALLTYPE AddAlternativeLocationMapping(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean, LPCWSTR) override { return foreign("AddAlternativeLocationMapping"); }
    HRESULT STDMETHODCALLTYPE AddRestoreSubcomponent(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean) override { return foreign("AddRestoreSubcomponent"); }
    HRESULT STDMETHODCALLTYPE SetFileRestoreStatus(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_FILE_RESTORE_STATUS) override { return foreign("SetFileRestoreStatus"); }
    HRESULT STDMETHODCALLTYPE AddNewTarget(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR, LPCWSTR, boolean, LPCWSTR) override { return foreign("AddNewTarget"); }
    HRESULT STDMETHODCALLTYPE SetRangesFilePath(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, UINT, LPCWSTR) override { return foreign("SetRangesFilePath"); }
    HRESULT STDMETHODCALLTYPE PreRestore(IVssAsync **) override { return foreign("PreRestore"); }
    HRESULT STDMETHODCALLTYPE PostRestore(IVssAsync **) override { return foreign("PostRestore"); }
    HRESULT STDMETHODCALLTYPE DeleteSnapshots(VSS_ID, VSS_OBJECT_TYPE, WINBOOL, LONG *, VSS_ID *) override { return foreign("DeleteSnapshots"); }
    HRESULT STDMETHODCALLTYPE ImportSnapshots(IVssAsync **) override { return foreign("ImportSnapshots"); }
    HRESULT STDMETHODCALLTYPE BreakSnapshotSet(VSS_ID) override { return foreign("BreakSnapshotSet"); }
    HRESULT STDMETHODCALLTYPE DisableWriterInstances(const VSS_ID *, UINT) override { return foreign("DisableWriterInstances"); }
    HRESULT STDMETHODCALLTYPE ExposeSnapshot(VSS_ID, VSS_PWSZ, LONG, VSS_PWSZ, VSS_PWSZ *) override { return foreign("ExposeSnapshot"); }
    HRESULT STDMETHODCALLTYPE RevertToSnapshot(VSS_ID, WINBOOL) override { return foreign("RevertToSnapshot"); }
    HRESULT STDMETHODCALLTYPE QueryRevertStatus(VSS_PWSZ, IVssAsync **) override { return foreign("QueryRevertStatus"); }
    HRESULT STDMETHODCALLTYPE SetSelectedForRestoreEx(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean, VSS_ID) override { return foreign("SetSelectedForRestoreEx"); }
    HRESULT STDMETHODCALLTYPE UnexposeSnapshot(VSS_ID) override { return foreign("UnexposeSnapshot"); }
    HRESULT STDMETHODCALLTYPE SetAuthoritativeRestore(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, boolean) override { return foreign("SetAuthoritativeRestore"); }
    HRESULT STDMETHODCALLTYPE SetRollForward(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, VSS_ROLLFORWARD_TYPE, LPCWSTR) override { return foreign("SetRollForward"); }
    HRESULT STDMETHODCALLTYPE SetRestoreName(VSS_ID, VSS_COMPONENT_TYPE, LPCWSTR, LPCWSTR, LPCWSTR) override { return foreign("SetRestoreName"); }
    HRESULT STDMETHODCALLTYPE BreakSnapshotSetEx(VSS_ID, DWORD, IVssAsync **) override { return foreign("BreakSnapshotSetEx"); }
    HRESULT STDMETHODCALLTYPE PreFastRecovery(VSS_ID, DWORD, IVssAsync **) override { return foreign("PreFastRecovery"); }
    HRESULT STDMETHODCALLTYPE FastRecovery(VSS_ID, DWORD, IVssAsync **) override { return foreign("FastRecovery"); }
    HRESULT STDMETHODCALLTYPE AddSnapshotToRecoverySet(VSS_ID, DWORD, VSS_PWSZ) override { return foreign("AddSnapshotToRecoverySet"); }
    HRESULT STDMETHODCALLTYPE RecoverSet(DWORD, IVssAsync **) override { return foreign("RecoverSet"); }
    HRESULT STDMETHODCALLTYPE GetRootAndLogicalPrefixPaths(VSS_PWSZ, VSS_PWSZ *, VSS_PWSZ *, WINBOOL) override { return foreign("GetRootAndLogicalPrefixPaths"); }

private:
    ~BackupComponents() override { trace.mark("requestor", "Release"); }

    bool answers(REFIID wanted) const override {
        const IID *mine[] = {&__uuidof(IVssBackupComponents), &__uuidof(IVssBackupComponentsEx), &__uuidof(IVssBackupComponentsEx2),
                             &__uuidof(IVssBackupComponentsEx3), &__uuidof(IVssBackupComponentsEx4)};
        for (const IID *iid : mine) {
            if (wanted == *iid) {
                return true;
            }
        }
        return false;
    }

    static std::string flag(boolean b) { return b ? "1" : "0"; }

    HRESULT traced(const char *method, const Fields &fields, const std::function<HRESULT()> &call) {
        trace.begin("requestor", method, fields);
        HRESULT hr = call();
        trace.end("requestor", method, hr);
        return hr;
    }

    HRESULT foreign(const char *method) {
        return traced(method, {}, [] { return E_NOTIMPL; });
    }

    Message ask(const Message &request) { return link == nullptr ? Message{hresultText(VSS_E_BAD_STATE)} : link->call(request); }

    HRESULT say(const Message &request) { return hrOf(ask(request)); }

    HRESULT identified(const Message &request, VSS_ID *id) {
        Message reply = ask(request);
        *id = reply.size() > 1 ? guidOf(reply[1]) : GUID{};
        return hrOf(reply);
    }

    HRESULT work(const char *method, const char *word, IVssAsync **out) {
        return traced(method, {}, [&] {
            *out = nullptr;
            HRESULT hr = say({word});
            if (SUCCEEDED(hr)) {
                *out = newAsync(link, trace, method);
            }
            return hr;
        });
    }

    HRESULT classes(const char *method, const char *word, const VSS_ID *ids, UINT count) {
        Message request = {word};
        for (UINT i = 0; i < count; i++) {
            request.push_back(guidText(ids[i]));
        }
        return traced(method, {{"count", std::to_string(count)}}, [&] { return say(request); });
    }

    const WriterPlan *planOf(const std::string &key) const {
        for (const WriterPlan &w : config->writers) {
            if (w.key == key) {
                return &w;
            }
        }
        return nullptr;
    }

    HRESULT examine(const char *method, UINT i, VSS_ID *instance, IVssExamineWriterMetadataEx **out) {
        return traced(method, {{"index", std::to_string(i)}}, [&]() -> HRESULT {
            *out = nullptr;
            Message reply = ask({"metadata"});
            if (FAILED(hrOf(reply))) {
                return hrOf(reply);
            }
            const WriterPlan *plan = i + 1 < reply.size() ? planOf(reply[i + 1]) : nullptr;
            if (plan == nullptr) {
                return VSS_E_OBJECT_NOT_FOUND;
            }
            *instance = plan->instanceId;
            *out = newWriterMetadata(config, *plan);
            return S_OK;
        });
    }

    HRESULT writerStatus(const char *method, UINT i, VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_WRITER_STATE *state, HRESULT *failure,
                         HRESULT *application, BSTR *message) {
        return traced(method, {{"index", std::to_string(i)}}, [&]() -> HRESULT {
            Message reply = ask({"status"});
            if (FAILED(hrOf(reply))) {
                return hrOf(reply);
            }
            size_t row = 1 + 5 * (size_t)i;
            const WriterPlan *plan = row + 4 < reply.size() ? planOf(reply[row]) : nullptr;
            if (plan == nullptr) {
                return VSS_E_OBJECT_NOT_FOUND;
            }
            *instance = plan->instanceId;
            *writer = plan->classId;
            *name = SysAllocString(wide(plan->name).c_str());
            *state = (VSS_WRITER_STATE)std::stoi(reply[row + 1]);
            *failure = hresultOf(reply[row + 2]);
            if (application != nullptr) {
                *application = hresultOf(reply[row + 3]);
            }
            if (message != nullptr) {
                *message = reply[row + 4].empty() ? nullptr : SysAllocString(wide(reply[row + 4]).c_str());
            }
            return S_OK;
        });
    }

    std::shared_ptr<const Config> config;
    Trace trace;
    std::shared_ptr<Link> link;
    GUID sessionId;
};

}  // namespace

IVssBackupComponents *newBackupComponents() { return new BackupComponents(); }
