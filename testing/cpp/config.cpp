#include "config.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "text.h"

namespace {

WriterPlan writer(const char *key, const char *classId, const char *name, int limitMs, int source, std::vector<ComponentPlan> components) {
    WriterPlan w;
    w.key = key;
    w.classId = guidOf(classId);
    w.instanceId = w.classId;
    w.instanceId.Data1 ^= 0x5afe0001;  // fixed, so that traces of two runs compare
    w.name = name;
    w.limitMs = limitMs;
    w.source = source;
    w.components = std::move(components);
    return w;
}

ComponentPlan component(int type, const char *logicalPath, const char *name, bool selectable, const char *path, const char *spec) {
    return ComponentPlan{type, logicalPath, name, selectable, {FilePlan{path, spec, true}}};
}

// 20 s: Exchange writer (KB1680); the others have VSS's own 60 s.
std::vector<WriterPlan> usualWriters() {
    return {
        writer("exchange", "76fe1ac4-15f7-4bcd-987e-8e1acb462fb7", "Microsoft Exchange Writer", 20000, 1,
               {component(1, "Microsoft Exchange Server\\Microsoft Information Store\\LAB", "DB01", true, "C:\\ExchangeDB\\DB01", "*"),
                component(2, "Microsoft Exchange Server\\Microsoft Information Store\\LAB\\DB01", "Logs", false, "C:\\ExchangeDB\\DB01\\Logs", "*.log")}),
        writer("sql", "a65faa63-5ea8-4ebc-9dbd-a0c4db26912a", "SqlServerWriter", 60000, 1,
               {component(1, "LAB\\MSSQLSERVER", "orders", true, "C:\\SQL\\DATA", "orders.mdf")}),
        writer("ntds", "b2014c9e-8711-4c5c-a5a9-3cf384484757", "NTDS", 60000, 1,
               {component(1, "C:_Windows_NTDS", "ntds", true, "%SystemRoot%\\NTDS", "ntds.dit")}),
        writer("system", "e8132975-6f93-4464-a53e-1050253ae220", "System Writer", 60000, 2,
               {component(2, "", "System Files", false, "%SystemRoot%", "*")}),
        writer("unknown", "11111111-2222-4333-8444-555555555555", "Somebody's Writer", 60000, 3,
               {component(2, "", "Things", true, "C:\\Things", "*")}),
    };
}

bool isTrue(const std::string &value) { return value == "1" || value == "true"; }

int number(const std::string &value) { return (int)std::strtol(value.c_str(), nullptr, 0); }

// durationMs reads milliseconds, or "hang".
int durationMs(const std::string &value) { return value == "hang" ? -1 : number(value); }

StepPlan stepPlan(const std::string &value) {
    size_t colon = value.find(':');
    return colon == std::string::npos ? StepPlan{value, 0} : StepPlan{value.substr(0, colon), number(value.substr(colon + 1))};
}

// pairOf splits "a:b" at its first colon.
std::pair<std::string, std::string> pairOf(const std::string &value) {
    size_t colon = value.find(':');
    return colon == std::string::npos ? std::make_pair(value, std::string()) : std::make_pair(trim(value.substr(0, colon)), trim(value.substr(colon + 1)));
}

// componentOf reads type|logical path|name|selectable|path|filespec.
bool componentOf(const std::string &value, ComponentPlan &c) {
    std::vector<std::string> parts = split(value, '|');
    if (parts.size() != 6 || (parts[0] != "database" && parts[0] != "filegroup")) {
        return false;
    }
    c = component(parts[0] == "database" ? 1 : 2, parts[1].c_str(), parts[2].c_str(), isTrue(parts[3]), parts[4].c_str(), parts[5].c_str());
    return true;
}

struct Reader {
    Config &config;
    std::vector<std::string> ownComponents;  // writers whose usual components were replaced

    WriterPlan &named(const std::string &key) {
        for (WriterPlan &w : config.writers) {
            if (w.key == key) {
                return w;
            }
        }
        config.writers.push_back(writer(key.c_str(), "", key.c_str(), 60000, 3, {}));
        config.writers.back().classId = newGuid();
        config.writers.back().instanceId = newGuid();
        return config.writers.back();
    }

    bool writerComponent(WriterPlan &w, const std::string &value) {
        if (std::find(ownComponents.begin(), ownComponents.end(), w.key) == ownComponents.end()) {
            w.components.clear();
            ownComponents.push_back(w.key);
        }
        ComponentPlan c;
        if (!componentOf(value, c)) {
            return false;
        }
        w.components.push_back(c);
        return true;
    }

    bool writerIdentity(WriterPlan &w, const std::string &key, const std::string &value) {
        if (key == "class") {
            w.classId = guidOf(value);
        } else if (key == "instance") {
            w.instanceId = guidOf(value);
        } else if (key == "name") {
            w.name = value;
        } else if (key == "instance_name") {
            w.instanceName = value;
        } else if (key == "usage") {
            w.usage = number(value);
        } else if (key == "source") {
            w.source = number(value);
        } else if (key == "component") {
            return writerComponent(w, value);
        } else {
            return false;
        }
        return true;
    }

    bool writerFault(WriterPlan &w, const std::string &key, const std::string &value) {
        if (key == "fail" || key == "failed_before") {
            w.failState = number(pairOf(value).first);
            w.failHr = hresultOf(pairOf(value).second);
            w.failedBefore = key == "failed_before";
            return w.failState >= 6 && w.failState <= 15;
        }
        if (key == "app") {
            w.appHr = hresultOf(pairOf(value).first);
            w.appMessage = pairOf(value).second;
        } else if (key == "present") {
            w.present = isTrue(value);
        } else if (key == "vanish") {
            w.vanish = isTrue(value);
        } else if (key == "limit_ms") {
            w.limitMs = number(value);
        } else if (key.rfind("delay.", 0) == 0) {
            w.delayMs[key.substr(6)] = durationMs(value);
        } else {
            return false;
        }
        return true;
    }

    bool writerKey(const std::string &rest, const std::string &value) {
        size_t dot = rest.find('.');
        if (dot == std::string::npos) {
            return false;
        }
        WriterPlan &w = named(rest.substr(0, dot));
        std::string key = rest.substr(dot + 1);
        return writerIdentity(w, key, value) || writerFault(w, key, value);
    }

    bool coordinatorKey(const std::string &key, const std::string &value) {
        if (key == "coordinator") {
            config.inProcess = value == "in_process";
            return config.inProcess || value == "service";
        }
        if (key == "edition") {
            config.clientEdition = value == "client";
            return config.clientEdition || value == "server";
        }
        if (key == "in_progress") {
            config.inProgress = number(value);
        } else if (key == "leaked_sessions") {
            config.leakedSessions = number(value);
        } else if (key == "prepared_state") {
            config.preparedState = number(value);
        } else if (key == "sql_events") {
            config.sqlEvents = isTrue(value);
        } else if (key == "veto_as") {
            config.vetoAs = hresultOf(value);
        } else if (key == "unsupported_volume") {
            config.unsupportedVolumes.push_back(value);
        } else if (key == "provider_error") {
            config.providerError[pairOf(value).first] = hresultOf(pairOf(value).second);
        } else {
            return false;
        }
        return true;
    }

    bool stepKey(const std::string &key, const std::string &value) {
        if (key == "hold_limit_ms") {
            config.holdLimitMs = number(value);
        } else if (key == "flush_ms") {
            config.flushMs = number(value);
        } else if (key == "flush_timeout") {
            config.flushTimeout = isTrue(value);
        } else if (key == "hold_event") {
            config.holdEvent = isTrue(value);
        } else if (key == "abort_during_commit") {
            config.abortDuringCommit = isTrue(value);
        } else if (key == "exit") {
            config.exitAt = stepPlan(value);
        } else if (key == "freeze_service") {
            config.freezeServiceAt = stepPlan(value);
        } else if (key == "kill_requestor") {
            config.killRequestorAt = stepPlan(value);
        } else if (key.rfind("delay.", 0) == 0) {
            config.stepDelayMs[key.substr(6)] = durationMs(value);
        } else {
            return false;
        }
        return true;
    }

    void line(const std::string &whole) {
        size_t equals = whole.find('=');
        std::string key = trim(whole.substr(0, equals)), value = equals == std::string::npos ? "" : trim(whole.substr(equals + 1));
        bool known = key.rfind("writer.", 0) == 0 ? writerKey(key.substr(7), value) : coordinatorKey(key, value) || stepKey(key, value);
        if ((!known || equals == std::string::npos) && config.error.empty()) {
            config.error = "not understood: " + whole;
        }
    }
};

}  // namespace

Config Config::of(const std::string &text) {
    Config config;
    config.text = text;
    config.writers = usualWriters();
    Reader reader{config, {}};
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        line = trim(line);
        if (!line.empty() && line[0] != '#') {
            reader.line(line);
        }
    }
    return config;
}

std::string Config::readText() {
    std::string path = environment("LAB_VSS_CONFIG", "C:\\lab\\vss.conf");
    HANDLE file = CreateFileW(wide(path).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING, 0, nullptr);
    if (file == INVALID_HANDLE_VALUE) {
        return "";
    }
    std::string text;
    char block[4096];
    for (DWORD n = 0; ReadFile(file, block, sizeof block, &n, nullptr) && n > 0;) {
        text.append(block, n);
    }
    CloseHandle(file);
    return text;
}
