#include "writers.h"

#include <vss.h>

#include <algorithm>
#include <chrono>

#include "text.h"

using namespace std::chrono_literals;

Writers::Writers(const Config &config, const Trace &trace, const EventLog &events) : config(config), trace(trace), events(events) {
    for (const WriterPlan &plan : config.writers) {
        if (!plan.present) {
            continue;
        }
        Writer w;
        w.plan = &plan;
        if (plan.failedBefore) {
            w.state = plan.failState;
            w.hr = plan.failHr;
        }
        all.push_back(w);
    }
    limits = std::thread([this] { watchLimits(); });
}

Writers::~Writers() {
    {
        std::lock_guard<std::mutex> guard(lock);
        closing = true;
    }
    changed.notify_all();
    limits.join();
}

void Writers::disable(const GUID &classId, bool yes) {
    std::lock_guard<std::mutex> guard(lock);
    for (Writer &w : all) {
        if (w.plan->classId == classId) {
            w.disabled = yes;
        }
    }
}

bool Writers::has(const GUID &classId, const GUID &instanceId) const {
    std::lock_guard<std::mutex> guard(lock);
    return std::any_of(all.begin(), all.end(), [&](const Writer &w) { return w.listed && w.plan->classId == classId && w.plan->instanceId == instanceId; });
}

void Writers::identify() {
    std::lock_guard<std::mutex> guard(lock);
    for (Writer &w : all) {
        w.listed = !w.disabled;
        if (w.listed) {
            trace.mark("writer", "identify", {{"writer", w.plan->key}});
            w.gone = w.plan->vanish;
        }
    }
}

bool Writers::takesPart(const Writer &w) const { return w.listed && !w.gone && w.state < VSS_WS_FAILED_AT_IDENTIFY; }

bool Writers::wait(int ms, const std::atomic<bool> &stop) const {
    double until = nowMs() + ms;
    while (!stop && (ms < 0 || nowMs() < until)) {
        std::this_thread::sleep_for(2ms);
    }
    return !stop;
}

void Writers::finish(Writer &w, const std::string &name, int failing, int next, double begunMs) {
    std::lock_guard<std::mutex> guard(lock);
    if (w.state >= VSS_WS_FAILED_AT_IDENTIFY) {
        // Its limit ran out meanwhile.
    } else if (w.plan->failState == failing) {
        w.state = failing;
        w.hr = w.plan->failHr;
    } else {
        w.state = next;
    }
    trace.end("writer", name, w.hr, {{"writer", w.plan->key}, {"state", std::to_string(w.state)}});
    if (name == "freeze" && w.state == next) {
        hold(w, begunMs);
    } else if (name == "thaw" && w.frozen) {
        release(w, "thaw");
    }
}

// All begin together, in the table's order, and end in the order of their delays: so a slow writer holds the others, and two
// runs give the same trace.
void Writers::phase(const std::string &name, int failing, int next, const std::atomic<bool> &stop) {
    std::vector<std::pair<int, Writer *>> running;
    double begunMs = nowMs();
    {
        std::lock_guard<std::mutex> guard(lock);
        for (Writer &w : all) {
            if (takesPart(w)) {
                auto delay = w.plan->delayMs.find(name);
                running.emplace_back(delay == w.plan->delayMs.end() ? 0 : delay->second, &w);
                trace.begin("writer", name, {{"writer", w.plan->key}});
            }
        }
    }
    std::stable_sort(running.begin(), running.end(), [](const auto &a, const auto &b) { return (unsigned)a.first < (unsigned)b.first; });
    for (auto &[delayMs, w] : running) {
        int left = delayMs < 0 ? -1 : std::max(0, delayMs - (int)(nowMs() - begunMs));
        if (!wait(left, stop)) {
            return;
        }
        finish(*w, name, failing, next, begunMs);
    }
}

void Writers::hold(Writer &w, double sinceMs) {
    w.frozen = true;
    w.freezeMs = sinceMs;
    trace.mark("writer", "held", {{"writer", w.plan->key}});
    if (config.sqlEvents && w.plan->key == "sql") {
        events.sqlFrozen("orders");
    }
    changed.notify_all();
}

void Writers::release(Writer &w, const std::string &how) {
    w.frozen = false;
    if (config.sqlEvents && w.plan->key == "sql") {
        events.sqlResumed("orders");
    }
    trace.mark("writer", "released", {{"writer", w.plan->key}, {"how", how}, {"held_ms", std::to_string((int)(nowMs() - w.freezeMs))}});
}

void Writers::abandon(const std::string &why) {
    std::lock_guard<std::mutex> guard(lock);
    for (Writer &w : all) {
        if (w.frozen) {
            release(w, why);
        }
        if (w.listed && !w.gone) {
            trace.mark("writer", why, {{"writer", w.plan->key}});
            if (w.state < VSS_WS_FAILED_AT_IDENTIFY) {
                bool fails = why == "shutdown" && w.plan->failState == VSS_WS_FAILED_AT_BACKUPSHUTDOWN;
                w.state = fails ? VSS_WS_FAILED_AT_BACKUPSHUTDOWN : VSS_WS_STABLE;
                w.hr = fails ? w.plan->failHr : S_OK;
            }
        }
    }
}

void Writers::expire(Writer &w) {
    w.state = VSS_WS_FAILED_AT_FREEZE;
    w.hr = VSS_E_WRITERERROR_TIMEOUT;
    trace.mark("writer", "limit", {{"writer", w.plan->key}, {"limit_ms", std::to_string(w.plan->limitMs)}});
    release(w, "limit");
}

void Writers::watchLimits() {
    std::unique_lock<std::mutex> guard(lock);
    while (!closing) {
        double next = nowMs() + 60000;
        for (Writer &w : all) {
            double limit = w.freezeMs + w.plan->limitMs;
            if (w.frozen && nowMs() >= limit) {
                expire(w);
            } else if (w.frozen) {
                next = std::min(next, limit);
            }
        }
        changed.wait_for(guard, std::chrono::duration<double, std::milli>(std::max(0.1, next - nowMs())));
    }
}

std::vector<Writers::Status> Writers::status() const {
    std::lock_guard<std::mutex> guard(lock);
    std::vector<Status> out;
    for (const Writer &w : all) {
        if (w.listed && !w.gone) {
            out.push_back({w.plan, w.state, w.hr});
        }
    }
    return out;
}

std::vector<const WriterPlan *> Writers::identified() const {
    std::lock_guard<std::mutex> guard(lock);
    std::vector<const WriterPlan *> out;
    for (const Writer &w : all) {
        if (w.listed) {
            out.push_back(w.plan);
        }
    }
    return out;
}
