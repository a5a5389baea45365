// Writers is the table of VSS writers in one session, and the truth about them: who is frozen since when, and whose own limit
// ran out. Times and faults come from the config.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config.h"
#include "eventlog.h"
#include "trace.h"

class Writers {
public:
    struct Status {
        const WriterPlan *plan;
        int state;
        HRESULT hr;
    };

    Writers(const Config &config, const Trace &trace, const EventLog &events);
    ~Writers();
    Writers(const Writers &) = delete;
    Writers &operator=(const Writers &) = delete;

    void disable(const GUID &classId, bool yes);
    bool has(const GUID &classId, const GUID &instanceId) const;

    // identify makes the list that the requestor sees from now on; who vanishes does it right after.
    void identify();
    // phase lets every living writer go through it; those that come well out of it are in the state next. It returns early when
    // stop is set. A writer's clock runs from its freeze to its thaw.
    void phase(const std::string &name, int failing, int next, const std::atomic<bool> &stop);
    void freeze(const std::atomic<bool> &stop) { phase("freeze", 9, 3, stop); }
    void thaw(const std::atomic<bool> &stop) { phase("thaw", 10, 5, stop); }
    // abandon lets go of all who are frozen and makes everybody stable: what Abort and BackupShutdown do.
    void abandon(const std::string &why);

    std::vector<Status> status() const;                 // of those still there
    std::vector<const WriterPlan *> identified() const;  // in the order of their metadata

private:
    struct Writer {
        const WriterPlan *plan;
        bool disabled = false, listed = false, gone = false, frozen = false;
        int state = 1;
        HRESULT hr = 0;
        double freezeMs = 0;
    };

    bool takesPart(const Writer &w) const;
    void finish(Writer &w, const std::string &name, int failing, int next, double begunMs);
    void hold(Writer &w, double sinceMs);
    void release(Writer &w, const std::string &how);
    bool wait(int ms, const std::atomic<bool> &stop) const;
    void watchLimits();
    void expire(Writer &w);

    const Config &config;
    const Trace &trace;
    const EventLog &events;
    mutable std::mutex lock;
    std::condition_variable changed;
    std::vector<Writer> all;
    bool closing = false;
    std::thread limits;
};
