#include <algorithm>

#include "session.h"
#include "text.h"

namespace {

constexpr size_t mostVolumes = 64;  // of one set, VSS's own limit

// volumeNameOf is the \\?\Volume{...}\ of such a name or of a mount point, with its last backslash; empty when there is no
// such volume. Wine takes only mount points for GetVolumeNameForVolumeMountPoint, Windows takes both.
std::string volumeNameOf(const std::string &path) {
    std::wstring asked = wide(path);
    wchar_t name[64] = {}, mounts[1024];
    DWORD size = 0;
    bool whole = !path.empty() && path.back() == '\\';
    if (whole && lower(path).rfind("\\\\?\\volume{", 0) == 0) {
        return GetVolumePathNamesForVolumeNameW(asked.c_str(), mounts, 1024, &size) ? lower(path) : "";
    }
    return whole && GetVolumeNameForVolumeMountPointW(asked.c_str(), name, 64) ? lower(narrow(name)) : "";
}

}  // namespace

Message Session::initialize() {
    if (!config.error.empty()) {
        trace.mark("session", "config", {{"error", config.error}});
        return answer(E_INVALIDARG);
    }
    if (stage != Stage::created) {
        return answer(VSS_E_BAD_STATE);
    }
    stage = Stage::initialized;
    return answer(S_OK);
}

Message Session::setState(const Message &r) {
    if (stage != Stage::initialized) {
        return answer(VSS_E_BAD_STATE);
    }
    selectsComponents = r.at(1) == "1";
    backupType = std::stoi(r.at(2));
    stateSet = true;
    return answer(backupType == VSS_BT_UNDEFINED ? E_INVALIDARG : S_OK);
}

Message Session::setContext(const Message &r) {
    if (stage != Stage::initialized || contextSet) {
        return answer(VSS_E_BAD_STATE);
    }
    LONG asked = (LONG)hresultOf(r.at(1));
    if (config.clientEdition && (asked & VSS_VOLSNAP_ATTR_TRANSPORTABLE) != 0) {
        return answer(VSS_E_UNSUPPORTED_CONTEXT);
    }
    context = asked;
    contextSet = true;
    return answer(S_OK);
}

Message Session::disableClasses(const Message &r, bool yes) {
    if (stage != Stage::initialized || metadataGathered || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    for (size_t i = 1; i < r.size(); i++) {
        writers.disable(guidOf(r[i]), yes);
    }
    return answer(S_OK);
}

Message Session::gatherMetadata() {
    if (stage != Stage::initialized || metadataGathered || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    return run("GatherWriterMetadata", [this] {
        if (!step("metadata")) {
            return S_OK;
        }
        writers.identify();
        writers.phase("identify", VSS_WS_FAILED_AT_IDENTIFY, VSS_WS_STABLE, stop);
        metadataGathered = !stop;
        return S_OK;
    });
}

// metadata names the writers in their order; what they consist of is in the config, which the requestor's side has too.
Message Session::metadata() {
    if (!metadataGathered || metadataFreed || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    Message keys;
    for (const WriterPlan *plan : writers.identified()) {
        keys.push_back(plan->key);
    }
    return answer(S_OK, keys);
}

Message Session::freeMetadata() {
    if (!metadataGathered || metadataFreed || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    metadataFreed = true;
    return answer(S_OK);
}

const ComponentPlan *Session::findComponent(const Component &c) const {
    for (const WriterPlan *w : writers.identified()) {
        if (w->classId != c.writer || w->instanceId != c.instance) {
            continue;
        }
        for (const ComponentPlan &plan : w->components) {
            if (plan.type == c.type && plan.logicalPath == c.logicalPath && plan.name == c.name) {
                return &plan;
            }
        }
    }
    return nullptr;
}

namespace {

// hasSelectableAncestor says whether plan comes along with another component, so that it may not be named itself.
bool hasSelectableAncestor(const WriterPlan &writer, const ComponentPlan &plan) {
    return std::any_of(writer.components.begin(), writer.components.end(), [&](const ComponentPlan &other) {
        std::string below = other.logicalPath.empty() ? other.name : other.logicalPath + "\\" + other.name;
        return other.selectable && (plan.logicalPath == below || plan.logicalPath.rfind(below + "\\", 0) == 0);
    });
}

}  // namespace

Message Session::addComponent(const Message &r) {
    if (stage != Stage::initialized || !stateSet || !selectsComponents || !metadataGathered || metadataFreed || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    Component c{guidOf(r.at(1)), guidOf(r.at(2)), std::stoi(r.at(3)), r.at(4), r.at(5)};
    const ComponentPlan *plan = findComponent(c);
    if (plan == nullptr) {
        return answer(VSS_E_OBJECT_NOT_FOUND);
    }
    for (const WriterPlan *w : writers.identified()) {
        if (w->classId == c.writer && w->instanceId == c.instance && !plan->selectable && hasSelectableAncestor(*w, *plan)) {
            return answer(VSS_E_OBJECT_NOT_FOUND);
        }
    }
    for (const Component &other : components) {
        if (other.is(c)) {
            return answer(VSS_E_OBJECT_ALREADY_EXISTS);
        }
    }
    components.push_back(c);
    return answer(S_OK);
}

Message Session::startSet() {
    bool ready = metadataGathered || (context & VSS_VOLSNAP_ATTR_NO_WRITERS) != 0;
    if (stage != Stage::initialized || !stateSet || !ready || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    step("start_set");
    GUID fresh = newGuid();
    if (!Coordinator::instance().takeSet(fresh, config)) {
        return answer(VSS_E_SNAPSHOT_SET_IN_PROGRESS);
    }
    set = fresh;
    stage = Stage::setStarted;
    return answer(S_OK, {guidText(set)});
}

HRESULT Session::loadProvider(const ProviderRecord &record, std::shared_ptr<Provider> &loaded) {
    for (const auto &p : providers) {
        if (p->record().id == record.id) {
            loaded = p;
            return S_OK;
        }
    }
    HRESULT hr = Provider::load(record, config, trace, context, loaded);
    if (SUCCEEDED(hr)) {
        providers.push_back(loaded);
    }
    return hr;
}

// chooseProvider takes the one that was named, else the first that supports the volume: hardware, software, system. One that
// cannot be loaded is passed over then.
HRESULT Session::chooseProvider(const GUID &id, const std::string &volume, std::shared_ptr<Provider> &chosen) {
    bool any = id == GUID{};
    bool known = false;
    for (const ProviderRecord &record : registeredProviders()) {
        if (!any && record.id != id) {
            continue;
        }
        known = true;
        std::shared_ptr<Provider> p;
        HRESULT hr = loadProvider(record, p);
        bool supported = false;
        if (SUCCEEDED(hr)) {
            hr = p->isVolumeSupported(volume, supported);
        }
        if (FAILED(hr) && !any) {
            return hr;
        }
        if (supported) {
            chosen = p;
            return S_OK;
        }
    }
    if (!known) {
        return VSS_E_PROVIDER_NOT_REGISTERED;
    }
    return any ? VSS_E_VOLUME_NOT_SUPPORTED : VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER;
}

Message Session::addVolume(const Message &r) {
    if (stage != Stage::setStarted || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    const std::string &volume = r.at(1);
    std::string name = volumeNameOf(volume);
    if (name.empty()) {
        return answer(VSS_E_OBJECT_NOT_FOUND);
    }
    for (const std::string &u : config.unsupportedVolumes) {
        if (lower(u) == lower(volume) || volumeNameOf(u) == name) {
            return answer(VSS_E_VOLUME_NOT_SUPPORTED);
        }
    }
    for (const Volume &v : volumes) {
        if (volumeNameOf(v.name) == name) {
            return answer(VSS_E_OBJECT_ALREADY_EXISTS);
        }
    }
    if (volumes.size() == mostVolumes) {
        return answer(VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED);
    }
    step("add_volume");
    Volume added{volume, newGuid(), nullptr};
    HRESULT hr = chooseProvider(guidOf(r.at(2)), volume, added.provider);
    if (SUCCEEDED(hr)) {
        hr = added.provider->beginPrepare(set, added.snapshot, volume, context);
    }
    if (FAILED(hr)) {
        return answer(hr);
    }
    trace.mark("coordinator", "volume", {{"volume", volume}, {"provider", guidText(added.provider->record().id)}});
    volumes.push_back(added);
    return answer(S_OK, {guidText(added.snapshot)});
}

Message Session::isVolumeSupported(const Message &r) {
    if (stage == Stage::created || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    std::shared_ptr<Provider> p;
    HRESULT hr = chooseProvider(guidOf(r.at(1)), r.at(2), p);
    bool no = hr == VSS_E_VOLUME_NOT_SUPPORTED || hr == VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER;
    return no ? answer(S_OK, {"0"}) : answer(hr, {SUCCEEDED(hr) ? "1" : "0"});
}
