#include "coordinator.h"

Coordinator &Coordinator::instance() {
    static Coordinator only;
    return only;
}

bool Coordinator::takeSet(const GUID &set, const Config &config) {
    std::lock_guard<std::mutex> guard(lock);
    int &times = refused[config.text];
    if (times < config.inProgress) {
        times++;
        return false;
    }
    if (busy) {
        return false;
    }
    busy = true;
    current = set;
    return true;
}

void Coordinator::giveSet(const GUID &set) {
    std::lock_guard<std::mutex> guard(lock);
    if (busy && current == set) {
        busy = false;
    }
}

bool Coordinator::setInProgress() {
    std::lock_guard<std::mutex> guard(lock);
    return busy;
}

int Coordinator::openSession(const Config &config, const GUID &set, GUID &previous) {
    std::lock_guard<std::mutex> guard(lock);
    previous = last;
    last = set;
    open++;
    return open + config.leakedSessions;
}

int Coordinator::closeSession() {
    std::lock_guard<std::mutex> guard(lock);
    return --open;
}
