// Trace is the lab's witness: one JSON line for each thing that happens in the fakes, appended to a file at once, so that a
// killed process loses nothing. Its clock is QueryPerformanceCounter, which all processes of a prefix share.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <windows.h>

using Fields = std::vector<std::pair<std::string, std::string>>;

class Trace {
public:
    // Lines go to path; an empty one keeps nothing.
    explicit Trace(std::string path) : path(std::move(path)) {}

    void mark(const std::string &who, const std::string &what, const Fields &fields = {}) const;
    void begin(const std::string &who, const std::string &what, const Fields &fields = {}) const;
    void end(const std::string &who, const std::string &what, HRESULT hr, const Fields &fields = {}) const;

    // Where the trace goes when nothing else is said: LAB_VSS_TRACE, else C:\lab\vss-trace.jsonl.
    static std::string place();
    const std::string &file() const { return path; }

private:
    void line(const char *at, const std::string &who, const std::string &what, const Fields &fields) const;

    std::string path;
};

// appendLine adds one whole line to a file that several processes write; false if it could not.
bool appendLine(const std::string &path, const std::string &line);

// jsonText is s quoted for JSON.
std::string jsonText(const std::string &s);

// nowMs is the shared monotonic clock in milliseconds.
double nowMs();
