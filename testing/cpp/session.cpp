#include "session.h"

#include "text.h"

Message answer(HRESULT hr, const Message &fields) {
    Message m = {hresultText(hr)};
    m.insert(m.end(), fields.begin(), fields.end());
    return m;
}

bool Session::Component::is(const Component &other) const {
    return instance == other.instance && writer == other.writer && type == other.type && logicalPath == other.logicalPath && name == other.name;
}

Session::Session(Config plan, Trace trace, EventLog events, DWORD requestorPid)
    : config(std::move(plan)), trace(std::move(trace)), events(std::move(events)), requestorPid(requestorPid), writers(config, this->trace, this->events) {
    this->trace.mark("session", "opened", {{"requestor_pid", std::to_string(requestorPid)}});
}

// When the requestor is gone everything is let go: a call that is still inside the provider is told by AbortSnapshots on
// another thread, and the writers get BackupShutdown. Their session stays open unless it was ended properly.
Session::~Session() {
    stop = true;
    if (busy()) {
        abortProviders();
    }
    operationEnd.notify_all();
    if (operation.joinable()) {
        operation.join();
    }
    if (stage != Stage::created) {
        writers.abandon("shutdown");
    }
    Coordinator::instance().giveSet(set);
    volumes.clear();
    providers.clear();
    trace.mark("session", sessionOpen ? "leaked" : "closed", {});
}

Message Session::handle(const Message &r) {
    const std::string word = r.empty() ? "" : r[0];
    const std::pair<const char *, std::function<Message()>> words[] = {
        {"initialize", [&] { return initialize(); }},
        {"set_state", [&] { return setState(r); }},
        {"set_context", [&] { return setContext(r); }},
        {"disable_classes", [&] { return disableClasses(r, true); }},
        {"enable_classes", [&] { return disableClasses(r, false); }},
        {"gather_metadata", [&] { return gatherMetadata(); }},
        {"metadata", [&] { return metadata(); }},
        {"free_metadata", [&] { return freeMetadata(); }},
        {"add_component", [&] { return addComponent(r); }},
        {"start_set", [&] { return startSet(); }},
        {"add_volume", [&] { return addVolume(r); }},
        {"is_volume_supported", [&] { return isVolumeSupported(r); }},
        {"prepare", [&] { return prepare(); }},
        {"snapshot", [&] { return snapshot(); }},
        {"snapshot_properties", [&] { return snapshotProperties(r); }},
        {"gather_status", [&] { return gatherStatus(); }},
        {"status", [&] { return status(); }},
        {"free_status", [&] { return freeStatus(); }},
        {"set_succeeded", [&] { return setSucceeded(r); }},
        {"complete", [&] { return complete(); }},
        {"abort", [&] { return abort(); }},
        {"poll", [&] { return poll(r); }},
        {"cancel", [&] { return cancel(); }},
        {"set_in_progress", [&] { return answer(Coordinator::instance().setInProgress() ? S_OK : S_FALSE); }},
    };
    for (const auto &w : words) {
        if (word == w.first) {
            return w.second();
        }
    }
    return answer(E_NOTIMPL);
}
