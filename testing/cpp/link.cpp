#include "socket.h"  // before windows.h

#include "link.h"

#include <cstdio>
#include <mutex>

#include "session.h"
#include "text.h"

namespace {

constexpr HRESULT callFailed = (HRESULT)0x800706be;         // RPC_S_CALL_FAILED
constexpr HRESULT serverUnavailable = (HRESULT)0x800706ba;  // RPC_S_SERVER_UNAVAILABLE
constexpr int startLimitMs = 20000;

class LocalLink : public Link {
public:
    LocalLink(const Config &config, const Trace &trace) : session(config, trace, EventLog(EventLog::place()), GetCurrentProcessId()) {}
    Message call(const Message &request) override { return session.handle(request); }

private:
    Session session;
};

class ServiceLink : public Link {
public:
    ServiceLink(SOCKET s, DWORD servicePid) : socket(s) { socket.setPeer(servicePid); }

    Message call(const Message &request) override {
        std::lock_guard<std::mutex> guard(lock);
        if (dead) {
            return answer(serverUnavailable);
        }
        Message reply;
        if (socket.send(request) && socket.receive(reply)) {
            return reply;
        }
        dead = true;
        return answer(callFailed);
    }

private:
    std::mutex lock;
    bool dead = false;
    Socket socket;
};

std::wstring systemPath(const wchar_t *name) {
    wchar_t path[MAX_PATH];
    UINT n = GetSystemDirectoryW(path, MAX_PATH);
    return std::wstring(path, n) + L"\\" + name;
}

// Service is the way to a running fakevssvc.exe.
struct Service {
    SOCKET socket = INVALID_SOCKET;
    DWORD pid = 0;
    bool found() const { return socket != INVALID_SOCKET; }
};

bool runs(DWORD pid) {
    HANDLE process = OpenProcess(SYNCHRONIZE, FALSE, pid);
    bool yes = process != nullptr && WaitForSingleObject(process, 0) == WAIT_TIMEOUT;
    CloseHandle(process);
    return yes;
}

Service connectRunning() {
    HANDLE file = CreateFileW(servicePortFile().c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING, 0, nullptr);
    Service service;
    if (file == INVALID_HANDLE_VALUE) {
        return service;
    }
    char text[64] = {};
    DWORD n = 0;
    bool good = ReadFile(file, text, sizeof text - 1, &n, nullptr);
    CloseHandle(file);
    unsigned short port = 0;
    if (good && std::sscanf(text, "%hu %lu", &port, &service.pid) == 2 && runs(service.pid)) {
        service.socket = Socket::connectLocal(port);
    }
    return service;
}

bool startService() {
    std::wstring command = L"\"" + systemPath(L"fakevssvc.exe") + L"\"";
    STARTUPINFOW start{};
    start.cb = sizeof start;
    PROCESS_INFORMATION process{};
    DWORD flags = DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP;
    if (!CreateProcessW(nullptr, command.data(), nullptr, nullptr, FALSE, flags, nullptr, nullptr, &start, &process)) {
        return false;
    }
    CloseHandle(process.hThread);
    CloseHandle(process.hProcess);
    return true;
}

// connectService finds the running service or starts it; only one requestor at a time may start it.
Service connectService() {
    Service s = connectRunning();
    if (s.found()) {
        return s;
    }
    HANDLE starting = CreateMutexW(nullptr, FALSE, L"stillframe-lab-start-vssvc");
    WaitForSingleObject(starting, startLimitMs);
    s = connectRunning();
    bool started = !s.found() && startService();
    for (double until = nowMs() + startLimitMs; started && !s.found() && nowMs() < until; s = connectRunning()) {
        Sleep(10);
    }
    ReleaseMutex(starting);
    CloseHandle(starting);
    return s;
}

}  // namespace

std::wstring servicePortFile() { return systemPath(L"fakevssvc.port"); }

std::unique_ptr<Link> openLink(const Config &config, const Trace &trace, HRESULT &hr) {
    hr = S_OK;
    if (config.inProcess) {
        return std::make_unique<LocalLink>(config, trace);
    }
    Service s = Socket::startSockets() ? connectService() : Service{};
    if (!s.found()) {
        hr = serverUnavailable;
        return nullptr;
    }
    auto link = std::make_unique<ServiceLink>(s.socket, s.pid);
    hr = hrOf(link->call({"hello", config.text, trace.file(), EventLog::place(), std::to_string(GetCurrentProcessId())}));
    if (FAILED(hr)) {
        return nullptr;
    }
    return link;
}

bool serviceSetInProgress() {
    if (Coordinator::instance().setInProgress()) {
        return true;
    }
    Service s = Socket::startSockets() ? connectRunning() : Service{};
    return s.found() && hrOf(ServiceLink(s.socket, s.pid).call({"set_in_progress"})) == S_OK;
}
