// EventLog is the file of events that the fake wevtapi.dll serves: one <Event> a line. Tests put lines into it, and the fakes
// add what Windows would have logged.
#pragma once

#include <string>
#include <vector>

#include <windows.h>

class EventLog {
public:
    explicit EventLog(std::string path) : path(std::move(path)) {}

    // Events are written to LAB_EVENT_LOG, else C:\lab\events.xml.
    static std::string place();
    const std::string &file() const { return path; }

    void flushTookTooLong(const std::string &volume) const;  // volsnap 9
    void holdRanOut(const std::string &volume) const;        // volsnap 8
    // 12289: a writer had so many sessions open that an older one was overwritten.
    void sessionOverwritten(const std::string &writer, const GUID &newSet, const GUID &oldSet, int active) const;
    void sqlFrozen(const std::string &database) const;   // 3197
    void sqlResumed(const std::string &database) const;  // 3198

private:
    void add(const std::string &channel, const std::string &provider, int id, int level, const std::vector<std::string> &data) const;

    std::string path;
};

// utcNow is the wall clock as event logs write it.
std::string utcNow();
