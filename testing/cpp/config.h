// Config is what goes right and wrong in one VSS session: a file of "key = value" lines, read anew for each session.
// README.md lists the keys. A key nobody knows is an error, which the first call of the session returns.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <windows.h>

// FilePlan is one file group of a component.
struct FilePlan {
    std::string path, spec;
    bool recursive = true;
};

// ComponentPlan is one component of a writer's metadata.
struct ComponentPlan {
    int type = 1;  // 1 database, 2 file group
    std::string logicalPath, name;
    bool selectable = true;
    std::vector<FilePlan> files;
};

// WriterPlan is one writer and its faults.
struct WriterPlan {
    std::string key;  // its word in the config
    GUID classId{}, instanceId{};
    std::string name, instanceName;
    int usage = 3, source = 1;
    bool present = true;
    int limitMs = 60000;  // between its freeze and its thaw
    std::map<std::string, int> delayMs;  // by phase; -1 hangs until the session ends
    int failState = 0;    // 6..15, 0 never
    HRESULT failHr = 0;
    bool failedBefore = false;  // in failState from the start, takes no part
    bool vanish = false;        // gone after its metadata
    HRESULT appHr = 0;
    std::string appMessage;
    std::vector<ComponentPlan> components;
};

// StepPlan is something that happens ms after a step was entered.
struct StepPlan {
    std::string step;
    int ms = 0;
};

struct Config {
    std::string text;   // as it was read
    std::string error;  // what is wrong with it
    bool inProcess = false;
    bool clientEdition = false;
    int holdLimitMs = 10000;
    int flushMs = 2;
    bool flushTimeout = false;
    bool holdEvent = false;  // volsnap 8 is logged although the hold ended in time
    int inProgress = 0;
    int leakedSessions = 0;
    int preparedState = 1;  // of the writers, after PrepareForBackup
    bool sqlEvents = false;
    bool abortDuringCommit = false;
    HRESULT vetoAs = (HRESULT)0x80042306;
    std::vector<std::string> unsupportedVolumes;
    std::map<std::string, HRESULT> providerError;
    std::map<std::string, int> stepDelayMs;  // -1 hangs
    StepPlan exitAt, freezeServiceAt, killRequestorAt;
    std::vector<WriterPlan> writers;

    // of reads the text; what it leaves out has its default.
    static Config of(const std::string &text);
    // readText is the text of the file at LAB_VSS_CONFIG, else C:\lab\vss.conf; none is empty.
    static std::string readText();
};
