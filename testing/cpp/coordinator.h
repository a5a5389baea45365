// Coordinator is what all sessions of one VSS share: the one snapshot set in progress, the writers' open sessions, and how
// often a planned fault has struck already.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include <windows.h>

#include "config.h"

class Coordinator {
public:
    static Coordinator &instance();

    // takeSet claims the one place for set; false while another set is being made, or the config plans it.
    bool takeSet(const GUID &set, const Config &config);
    void giveSet(const GUID &set);
    bool setInProgress();

    // openSession answers how many sessions each writer has open now, leaked ones included; previous is the set before.
    int openSession(const Config &config, const GUID &set, GUID &previous);
    // closeSession ends one properly; a session that is never closed stays counted.
    int closeSession();

private:
    std::mutex lock;
    bool busy = false;
    GUID current{}, last{};
    int open = 0;
    std::map<std::string, int> refused;  // by config text, so that a new config begins anew
};
