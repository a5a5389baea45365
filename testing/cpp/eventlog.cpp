#include "eventlog.h"

#include <cstdio>

#include "text.h"
#include "trace.h"

namespace {

std::string escaped(const std::string &s) {
    std::string out;
    for (char c : s) {
        switch (c) {
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '&': out += "&amp;"; break;
        case '\n': out += "&#10;"; break;
        default: out += c;
        }
    }
    return out;
}

}  // namespace

std::string utcNow() {
    SYSTEMTIME t;
    GetSystemTime(&t);
    char out[40];
    std::snprintf(out, sizeof out, "%04d-%02d-%02dT%02d:%02d:%02d.%03d0000Z", t.wYear, t.wMonth, t.wDay, t.wHour, t.wMinute, t.wSecond, t.wMilliseconds);
    return out;
}

std::string EventLog::place() { return environment("LAB_EVENT_LOG", "C:\\lab\\events.xml"); }

void EventLog::add(const std::string &channel, const std::string &provider, int id, int level, const std::vector<std::string> &data) const {
    if (path.empty()) {
        return;
    }
    std::string out = "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='" + provider + "'/>";
    out += "<EventID Qualifiers='0'>" + std::to_string(id) + "</EventID><Level>" + std::to_string(level) + "</Level>";
    out += "<TimeCreated SystemTime='" + utcNow() + "'/><Channel>" + channel + "</Channel><Computer>LAB</Computer></System><EventData>";
    for (const std::string &d : data) {
        out += "<Data>" + escaped(d) + "</Data>";
    }
    if (!appendLine(path, out + "</EventData></Event>")) {
        std::fprintf(stderr, "event log %s: error %lu\n", path.c_str(), GetLastError());
    }
}

void EventLog::flushTookTooLong(const std::string &volume) const { add("System", "volsnap", 9, 2, {"\\Device\\HarddiskVolumeShadowCopy1", volume}); }

void EventLog::holdRanOut(const std::string &volume) const { add("System", "volsnap", 8, 2, {"\\Device\\HarddiskVolumeShadowCopy1", volume}); }

void EventLog::sessionOverwritten(const std::string &writer, const GUID &newSet, const GUID &oldSet, int active) const {
    std::string counters = "Max(64), Completed(0), Active(" + std::to_string(active) + "), Aborted(0), Failed(0)";
    add("Application", "VSS", 12289, 2,
        {"Unexpected error: session overwritten. " + counters + ", new snapshot set {" + guidText(newSet) + "}, old snapshot set {" + guidText(oldSet) +
             "}, old operation: 1014, old state: 1, old failure: 0",
         "0x80042409, The writer's status is not available for one or more writers.", "Operation:\n   PostSnapshot Event\n\nContext:\n   Writer Name: " + writer});
}

void EventLog::sqlFrozen(const std::string &database) const {
    add("Application", "MSSQLSERVER", 3197, 4, {database});
}

void EventLog::sqlResumed(const std::string &database) const {
    add("Application", "MSSQLSERVER", 3198, 4, {database});
}
