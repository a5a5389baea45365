#include "trace.h"

#include <cstdio>
#include <map>
#include <mutex>

#include "text.h"

namespace {

// FileLock is a mutex of all processes of this prefix. A holder that died gives it up; one that was stopped in the middle is
// not waited for longer than that.
class FileLock {
public:
    FileLock() { held = handle() != nullptr && WaitForSingleObject(handle(), 500) != WAIT_TIMEOUT; }
    ~FileLock() {
        if (held) {
            ReleaseMutex(handle());
        }
    }
    FileLock(const FileLock &) = delete;
    FileLock &operator=(const FileLock &) = delete;

private:
    // The mutex lives as long as the process: a line is written in the middle of what is measured.
    static HANDLE handle() {
        static HANDLE mutex = CreateMutexW(nullptr, FALSE, L"stillframe-lab-append");
        return mutex;
    }
    bool held;
};

// appendHandle is the file of a path, which a process opens once; whoever empties the file truncates it.
HANDLE appendHandle(const std::string &path) {
    static std::mutex lock;
    static std::map<std::string, HANDLE> open;
    std::lock_guard<std::mutex> guard(lock);
    auto found = open.find(path);
    if (found != open.end()) {
        return found->second;
    }
    HANDLE file = CreateFileW(wide(path).c_str(), FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                              OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file != INVALID_HANDLE_VALUE) {
        open[path] = file;
    }
    return file;
}

}  // namespace

double nowMs() {
    LARGE_INTEGER count, perSecond;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&perSecond);
    return 1000.0 * (double)count.QuadPart / (double)perSecond.QuadPart;
}

bool appendLine(const std::string &path, const std::string &line) {
    FileLock lock;
    HANDLE file = appendHandle(path);
    if (file == INVALID_HANDLE_VALUE) {
        return false;
    }
    std::string whole = line + "\n";
    DWORD written = 0;
    return WriteFile(file, whole.data(), (DWORD)whole.size(), &written, nullptr) && written == whole.size();
}

std::string jsonText(const std::string &s) {
    std::string out = "\"";
    for (unsigned char c : s) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += (char)c;
        } else if (c < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
            out += escaped;
        } else {
            out += (char)c;
        }
    }
    return out + "\"";
}

std::string Trace::place() { return environment("LAB_VSS_TRACE", "C:\\lab\\vss-trace.jsonl"); }

void Trace::line(const char *at, const std::string &who, const std::string &what, const Fields &fields) const {
    if (path.empty()) {
        return;
    }
    char head[96];
    std::snprintf(head, sizeof head, "{\"ms\":%.3f,\"pid\":%lu,\"tid\":%lu,\"at\":\"%s\"", nowMs(), GetCurrentProcessId(),
                  GetCurrentThreadId(), at);
    std::string out = head;
    out += ",\"who\":" + jsonText(who) + ",\"what\":" + jsonText(what);
    for (const auto &field : fields) {
        out += "," + jsonText(field.first) + ":" + jsonText(field.second);
    }
    if (!appendLine(path, out + "}")) {
        std::fprintf(stderr, "trace %s: error %lu\n", path.c_str(), GetLastError());
    }
}

void Trace::mark(const std::string &who, const std::string &what, const Fields &fields) const { line("mark", who, what, fields); }

void Trace::begin(const std::string &who, const std::string &what, const Fields &fields) const { line("begin", who, what, fields); }

void Trace::end(const std::string &who, const std::string &what, HRESULT hr, const Fields &fields) const {
    Fields all = {{"hr", hresultText(hr)}};
    all.insert(all.end(), fields.begin(), fields.end());
    line("end", who, what, all);
}
