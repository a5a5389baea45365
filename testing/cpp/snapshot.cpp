#include <chrono>
#include <future>

#include "session.h"
#include "text.h"

namespace {

constexpr int mostSessions = 64;  // that a writer keeps apart

}  // namespace

// Beside is a thread of the multithreaded apartment that waits for one piece of work, so that no hold pays for its start.
class Beside {
public:
    ~Beside() {
        if (!used) {
            given.set_value(Work());
        }
        thread.join();
    }
    std::future<HRESULT> run(std::function<HRESULT()> what) {
        Work work(std::move(what));
        std::future<HRESULT> result = work.get_future();
        used = true;
        given.set_value(std::move(work));
        return result;
    }

private:
    using Work = std::packaged_task<HRESULT()>;

    bool used = false;
    std::promise<Work> given;
    std::thread thread{[this] {
        CoInitializeEx(nullptr, COINIT_MULTITHREADED);
        Work work = given.get_future().get();
        if (work.valid()) {
            work();
        }
        CoUninitialize();
    }};
};

Message Session::prepare() {
    if (stage != Stage::setStarted || volumes.empty() || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    return run("PrepareForBackup", [this] {
        if (!step("prepare_backup")) {
            return S_OK;
        }
        GUID previous{};
        int open = Coordinator::instance().openSession(config, set, previous);
        sessionOpen = true;
        trace.mark("session", "writers", {{"open", std::to_string(open)}});
        if (open > mostSessions) {
            for (const Writers::Status &w : writers.status()) {
                events.sessionOverwritten(w.plan->name, set, previous, open);
            }
        }
        writers.phase("prepare_backup", VSS_WS_FAILED_AT_PREPARE_BACKUP, config.preparedState, stop);
        stage = Stage::prepared;
        return S_OK;
    });
}

Message Session::snapshot() {
    if (stage != Stage::prepared || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    return run("DoSnapshotSet", [this] {
        HRESULT hr = makeSnapshot();
        stage = SUCCEEDED(hr) && !stop ? Stage::snapshotted : Stage::failed;
        Coordinator::instance().giveSet(set);
        return hr;
    });
}

HRESULT Session::eachProvider(const std::function<HRESULT(Provider &)> &call) {
    for (const auto &p : providers) {
        HRESULT hr = stop ? S_OK : call(*p);
        if (FAILED(hr)) {
            return hr;
        }
    }
    return S_OK;
}

HRESULT Session::makeSnapshot() {
    Beside beside;
    step("prepare_snapshot");
    writers.phase("prepare_snapshot", VSS_WS_FAILED_AT_PREPARE_SNAPSHOT, VSS_WS_WAITING_FOR_FREEZE, stop);
    if (!step("end_prepare")) {
        return undo(S_OK);
    }
    providersPrepared = true;
    HRESULT hr = eachProvider([this](Provider &p) { return p.endPrepare(set); });
    if (SUCCEEDED(hr) && !stop) {
        hr = freezeAndCommit(beside);
    }
    if (FAILED(hr) || stop) {
        return undo(hr);
    }
    step("thaw");
    writers.thaw(stop);
    return finalCommit();
}

HRESULT Session::freezeAndCommit(Beside &beside) {
    if (!step("freeze")) {
        return S_OK;
    }
    writers.freeze(stop);
    if (!step("pre_commit")) {
        return S_OK;
    }
    HRESULT hr = eachProvider([this](Provider &p) { return p.preCommit(set); });
    if (SUCCEEDED(hr) && !stop) {
        hr = flush();
    }
    if (SUCCEEDED(hr) && !stop) {
        hr = commitUnderHold(beside);
    }
    if (SUCCEEDED(hr) && step("post_commit")) {
        hr = eachProvider([this](Provider &p) { return p.postCommit(set, (LONG)volumes.size()); });
    }
    return hr;
}

HRESULT Session::flush() {
    trace.begin("volume", "flush");
    step("flush");
    pause(config.flushMs);
    HRESULT hr = config.flushTimeout ? VSS_E_FLUSH_WRITES_TIMEOUT : S_OK;
    trace.end("volume", "flush", hr);
    if (FAILED(hr)) {
        events.flushTookTooLong(volumes.front().name);
    }
    return hr;
}

// commitUnderHold holds all writes from before Commit until it returned, or until the limit; then the set has failed, whatever
// Commit says later.
HRESULT Session::commitUnderHold(Beside &beside) {
    trace.begin("volume", "hold", {{"limit_ms", std::to_string(config.holdLimitMs)}});
    double begunMs = nowMs();
    std::future<HRESULT> commit = beside.run([this] {
        step("commit");
        return eachProvider([this](Provider &p) { return p.commit(set); });
    });
    bool inTime = commit.wait_for(std::chrono::milliseconds(config.holdLimitMs)) == std::future_status::ready;
    HRESULT hr = inTime ? commit.get() : VSS_E_HOLD_WRITES_TIMEOUT;
    trace.end("volume", "hold", hr, {{"held_ms", std::to_string((int)(nowMs() - begunMs))}, {"how", inTime ? "commit" : "limit"}});
    if (inTime && config.holdEvent) {
        events.holdRanOut(volumes.front().name);
    }
    if (inTime) {
        return hr;
    }
    events.holdRanOut(volumes.front().name);
    if (config.abortDuringCommit) {
        abortProviders();
    }
    commit.wait();
    return hr;
}

// finalCommit is only for sets with auto-recovery; the others are ready when the writers are thawed.
HRESULT Session::finalCommit() {
    if ((context & VSS_VOLSNAP_ATTR_NO_AUTORECOVERY) != 0) {
        return S_OK;
    }
    HRESULT hr = eachProvider([this](Provider &p) { return p.preFinalCommit(set); });
    if (SUCCEEDED(hr)) {
        step("post_snapshot");
        writers.phase("post_snapshot", VSS_WS_FAILED_AT_POST_SNAPSHOT, VSS_WS_WAITING_FOR_BACKUP_COMPLETE, stop);
        hr = eachProvider([this](Provider &p) { return p.postFinalCommit(set); });
    }
    return hr;
}

void Session::abortProviders() {
    if (!providersPrepared.exchange(false)) {
        return;
    }
    for (const auto &p : providers) {
        p->abort(set);
    }
}

// undo is the end of a set that failed or was cancelled.
HRESULT Session::undo(HRESULT why) {
    trace.mark("coordinator", "abort", {{"hr", hresultText(why)}});
    abortProviders();
    writers.abandon("abort");
    return why;
}

Message Session::snapshotProperties(const Message &r) {
    GUID id = guidOf(r.at(1));
    for (const Volume &v : volumes) {
        VSS_SNAPSHOT_PROP p{};
        if (v.snapshot == id && stage == Stage::snapshotted && SUCCEEDED(v.provider->snapshotProperties(id, p))) {
            return answer(S_OK, {guidText(p.m_SnapshotSetId), std::to_string(p.m_lSnapshotsCount), narrow(p.m_pwszSnapshotDeviceObject),
                                 narrow(p.m_pwszOriginalVolumeName), guidText(p.m_ProviderId), std::to_string(p.m_lSnapshotAttributes)});
        }
    }
    return answer(VSS_E_OBJECT_NOT_FOUND);
}
