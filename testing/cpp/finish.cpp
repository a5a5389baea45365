#include "session.h"
#include "text.h"

Message Session::gatherStatus() {
    bool possible = metadataGathered && stage != Stage::aborted && !statusGathered;
    if (!possible || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    return run("GatherWriterStatus", [this] {
        statusGathered = step("status");
        if (statusGathered && completeSaid) {
            closeSession();
        }
        return S_OK;
    });
}

// status has five fields a writer: its config word, state, failure, application failure and message.
Message Session::status() {
    if (!statusGathered || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    Message rows;
    for (const Writers::Status &w : writers.status()) {
        Message row = {w.plan->key, std::to_string(w.state), hresultText(w.hr), hresultText(w.plan->appHr), w.plan->appMessage};
        rows.insert(rows.end(), row.begin(), row.end());
    }
    return answer(S_OK, rows);
}

Message Session::freeStatus() {
    if (!statusGathered || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    statusGathered = false;
    return answer(S_OK);
}

Message Session::setSucceeded(const Message &r) {
    if (stage != Stage::snapshotted || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    Component named{guidOf(r.at(1)), guidOf(r.at(2)), std::stoi(r.at(3)), r.at(4), r.at(5)};
    for (Component &c : components) {
        if (c.is(named)) {
            c.succeeded = r.at(6) == "1";
            return answer(S_OK);
        }
    }
    return answer(VSS_E_OBJECT_NOT_FOUND);
}

// truncate marks what a writer would now do with its logs: only a full backup that was called a success lets them go.
void Session::truncate() {
    for (const Component &c : components) {
        if (backupType == VSS_BT_FULL && c.succeeded) {
            trace.mark("writer", "truncates", {{"class", guidText(c.writer)}, {"component", c.name}});
        }
    }
}

Message Session::complete() {
    if (stage != Stage::snapshotted || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    return run("BackupComplete", [this] {
        if (!step("backup_complete")) {
            return S_OK;
        }
        writers.phase("backup_complete", VSS_WS_FAILED_AT_BACKUP_COMPLETE, VSS_WS_STABLE, stop);
        truncate();
        stage = Stage::completed;
        completeSaid = true;
        return S_OK;
    });
}

Message Session::abort() {
    if (stage == Stage::created || stage == Stage::aborted || stage == Stage::completed || busy()) {
        return answer(VSS_E_BAD_STATE);
    }
    step("abort");
    abortProviders();
    writers.abandon("abort");
    Coordinator::instance().giveSet(set);
    stage = Stage::aborted;
    closeSession();
    return answer(S_OK);
}

void Session::closeSession() {
    if (sessionOpen) {
        sessionOpen = false;
        trace.mark("session", "ended", {{"open", std::to_string(Coordinator::instance().closeSession())}});
    }
}
