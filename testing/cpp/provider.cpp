#include "provider.h"

#include <tlhelp32.h>

#include "text.h"

namespace {

// What a provider may answer; anything else is an unexpected provider error (vsprov.h's documentation).
bool listed(HRESULT hr) {
    switch (hr) {
    case S_OK:
    case E_OUTOFMEMORY:
    case E_INVALIDARG:
    case VSS_E_OBJECT_NOT_FOUND:
    case VSS_E_PROVIDER_VETO:
    case VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER:
    case VSS_E_UNSUPPORTED_CONTEXT:
    case VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED:
    case VSS_E_INSUFFICIENT_STORAGE:
        return true;
    default:
        return false;
    }
}

// died says that the process behind a proxy is gone: RPC_S_CALL_FAILED at first, RPC_S_SERVER_UNAVAILABLE from then on.
bool died(HRESULT hr) { return hr == (HRESULT)0x800706be || hr == (HRESULT)0x800706ba; }

// forgetDeadServers ends rpcss.exe, which comes back with its next caller. Wine's keeps the class of a server that was killed
// for ever, before any newer one of that class; Windows forgets it at once.
void forgetDeadServers() {
    HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry{};
    entry.dwSize = sizeof entry;
    for (BOOL more = Process32FirstW(all, &entry); more; more = Process32NextW(all, &entry)) {
        HANDLE process = lower(narrow(entry.szExeFile)) == "rpcss.exe" ? OpenProcess(PROCESS_TERMINATE, FALSE, entry.th32ProcessID) : nullptr;
        if (process != nullptr) {
            TerminateProcess(process, 1);
            CloseHandle(process);
        }
    }
    CloseHandle(all);
}

}  // namespace

HRESULT Provider::called(const char *method, HRESULT raw) const {
    trace.end("provider", method, raw, {{"provider", guidText(about.id)}});
    if (died(raw)) {
        forgetDeadServers();
    }
    auto planned = config.providerError.find(method);
    HRESULT hr = planned == config.providerError.end() ? raw : planned->second;
    if (hr == VSS_E_PROVIDER_VETO) {
        return config.vetoAs;
    }
    return listed(hr) ? hr : VSS_E_UNEXPECTED_PROVIDER_ERROR;
}

template <class Call>
HRESULT Provider::drive(const char *method, const Fields &fields, Call call) {
    Fields all = {{"provider", guidText(about.id)}};
    all.insert(all.end(), fields.begin(), fields.end());
    trace.begin("provider", method, all);
    return called(method, software == nullptr ? S_OK : call());
}

HRESULT Provider::activate() {
    trace.begin("provider", "CoCreateInstance", {{"class", guidText(about.classId)}});
    DWORD where = config.inProcess ? CLSCTX_ALL : CLSCTX_LOCAL_SERVER;
    auto create = [&] {
        return CoCreateInstance(about.classId, nullptr, where, IID_IVssSoftwareSnapshotProvider, reinterpret_cast<void **>(&software));
    };
    auto refused = config.providerError.find("CoCreateInstance");
    HRESULT hr = refused == config.providerError.end() ? create() : refused->second;
    if (died(hr)) {
        forgetDeadServers();
        hr = create();
    }
    if (SUCCEEDED(hr)) {
        hr = software->QueryInterface(IID_IVssProviderCreateSnapshotSet, reinterpret_cast<void **>(&sets));
    }
    if (SUCCEEDED(hr)) {
        hr = software->QueryInterface(IID_IVssProviderNotifications, reinterpret_cast<void **>(&notifications));
    }
    trace.end("provider", "CoCreateInstance", hr, {{"provider", guidText(about.id)}});
    return SUCCEEDED(hr) ? S_OK : VSS_E_UNEXPECTED_PROVIDER_ERROR;
}

HRESULT Provider::load(const ProviderRecord &record, const Config &config, const Trace &trace, LONG context, std::shared_ptr<Provider> &loaded) {
    std::shared_ptr<Provider> p(new Provider(record, config, trace));
    HRESULT hr = record.type == VSS_PROV_SYSTEM ? S_OK : p->activate();
    if (SUCCEEDED(hr)) {
        hr = p->drive("OnLoad", {}, [&] { return p->notifications->OnLoad(nullptr); });
    }
    if (SUCCEEDED(hr)) {
        hr = p->drive("SetContext", {{"context", hresultText(context)}}, [&] { return p->software->SetContext(context); });
    }
    if (SUCCEEDED(hr)) {
        loaded = p;
    }
    return hr;
}

Provider::~Provider() {
    if (software != nullptr && notifications != nullptr && sets != nullptr) {
        drive("OnUnload", {}, [&] { return notifications->OnUnload(TRUE); });
    }
    IUnknown *held[] = {notifications, sets, software};
    for (IUnknown *face : held) {
        if (face != nullptr) {
            face->Release();
        }
    }
}

HRESULT Provider::isVolumeSupported(const std::string &volume, bool &supported) {
    BOOL answer = software == nullptr;
    std::wstring name = wide(volume);
    HRESULT hr = drive("IsVolumeSupported", {{"volume", volume}}, [&] { return software->IsVolumeSupported(name.data(), &answer); });
    supported = SUCCEEDED(hr) && answer;
    trace.mark("provider", "supports", {{"provider", guidText(about.id)}, {"volume", volume}, {"answer", supported ? "yes" : "no"}});
    return hr;
}

HRESULT Provider::beginPrepare(const GUID &set, const GUID &snapshot, const std::string &volume, LONG context) {
    std::wstring name = wide(volume);
    return drive("BeginPrepareSnapshot", {{"set", guidText(set)}, {"snapshot", guidText(snapshot)}, {"volume", volume}},
                 [&] { return software->BeginPrepareSnapshot(set, snapshot, name.data(), context); });
}

HRESULT Provider::endPrepare(const GUID &set) {
    return drive("EndPrepareSnapshots", {}, [&] { return sets->EndPrepareSnapshots(set); });
}

HRESULT Provider::preCommit(const GUID &set) {
    return drive("PreCommitSnapshots", {}, [&] { return sets->PreCommitSnapshots(set); });
}

HRESULT Provider::commit(const GUID &set) {
    return drive("CommitSnapshots", {}, [&] { return sets->CommitSnapshots(set); });
}

HRESULT Provider::postCommit(const GUID &set, LONG count) {
    return drive("PostCommitSnapshots", {{"count", std::to_string(count)}}, [&] { return sets->PostCommitSnapshots(set, count); });
}

HRESULT Provider::preFinalCommit(const GUID &set) {
    return drive("PreFinalCommitSnapshots", {}, [&] { return sets->PreFinalCommitSnapshots(set); });
}

HRESULT Provider::postFinalCommit(const GUID &set) {
    return drive("PostFinalCommitSnapshots", {}, [&] { return sets->PostFinalCommitSnapshots(set); });
}

HRESULT Provider::abort(const GUID &set) {
    return drive("AbortSnapshots", {}, [&] { return sets->AbortSnapshots(set); });
}

HRESULT Provider::snapshotProperties(const GUID &snapshot, VSS_SNAPSHOT_PROP &properties) {
    if (software == nullptr) {
        return VSS_E_OBJECT_NOT_FOUND;
    }
    return drive("GetSnapshotProperties", {{"snapshot", guidText(snapshot)}}, [&] { return software->GetSnapshotProperties(snapshot, &properties); });
}
