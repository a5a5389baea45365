// fakevssvc.exe stands for vssvc: a process of its own that loads the providers by CLSID as local servers, drives their
// callbacks and keeps the writers. vssapi.dll starts it when it is needed; it may be killed, and it may hang.
//
// Credible for: what a provider meets in another process - activation, marshalling, foreign threads, calls that block, and a
// coordinator that dies. Never emulates: the service control manager's part, COM security, real writers.
#include "socket.h"  // before windows.h

#include "link.h"
#include "session.h"
#include "text.h"

#include <atomic>
#include <memory>
#include <thread>

namespace {

constexpr int idleSeconds = 120;  // a service that nobody has used for so long goes, so that none is left behind

std::atomic<int> connections{0};

// openSession is the answer to hello: config, trace, event log, the requestor's pid. A config that does not read is refused
// by the session's first call.
Message openSession(Socket &socket, std::unique_ptr<Session> &session, const Message &hello) {
    DWORD pid = (DWORD)std::stoul(hello.at(4));
    socket.setPeer(pid);
    session = std::make_unique<Session>(Config::of(hello.at(1)), Trace(hello.at(2)), EventLog(hello.at(3)), pid);
    return answer(S_OK);
}

Message reply(Socket &socket, std::unique_ptr<Session> &session, const Message &request) {
    if (request.at(0) == "hello" && session == nullptr && request.size() == 5) {
        return openSession(socket, session, request);
    }
    if (request.at(0) == "set_in_progress") {
        return answer(Coordinator::instance().setInProgress() ? S_OK : S_FALSE);
    }
    return session == nullptr ? answer(E_UNEXPECTED) : session->handle(request);
}

// serve is one requestor's connection. When it ends, however it ends, the session is let go.
void serve(SOCKET s) {
    CoInitializeEx(nullptr, COINIT_MULTITHREADED);
    {
        Socket socket(s);
        std::unique_ptr<Session> session;
        for (Message request; socket.receive(request);) {
            while (serviceFrozen) {
                Sleep(1000);
            }
            if (!socket.send(reply(socket, session, request))) {
                break;
            }
        }
    }
    CoUninitialize();
    connections--;
}

// wanted waits for the next requestor; false when there is none, and has been none for long.
bool wanted(SOCKET listening) {
    fd_set ready;
    FD_ZERO(&ready);
    FD_SET(listening, &ready);
    timeval idle{idleSeconds, 0};
    return select(0, &ready, nullptr, nullptr, &idle) != 0 || connections > 0;
}

constexpr int publishTries = 100;
constexpr DWORD publishPauseMs = 20;

// publish replaces the port file in one step, within two seconds.
bool publish(unsigned short port) {
    std::wstring place = servicePortFile(), fresh = place + L"." + std::to_wstring(GetCurrentProcessId());
    HANDLE file = CreateFileW(fresh.c_str(), GENERIC_WRITE, FILE_SHARE_READ, nullptr, CREATE_ALWAYS, 0, nullptr);
    if (file == INVALID_HANDLE_VALUE) {
        return false;
    }
    std::string text = std::to_string(port) + " " + std::to_string(GetCurrentProcessId()) + "\n";
    DWORD n = 0;
    bool good = WriteFile(file, text.data(), (DWORD)text.size(), &n, nullptr);
    CloseHandle(file);
    // Who waits for the port has the old file open for moments, in which it cannot be replaced.
    for (int tries = 0; good && tries < publishTries; tries++) {
        if (MoveFileExW(fresh.c_str(), place.c_str(), MOVEFILE_REPLACE_EXISTING)) {
            return true;
        }
        Sleep(publishPauseMs);
    }
    return false;
}

}  // namespace

int main() {
    unsigned short port = 0;
    SOCKET listening = Socket::startSockets() ? Socket::listenLocal(port) : INVALID_SOCKET;
    if (listening == INVALID_SOCKET || !publish(port)) {
        return 1;
    }
    CoInitializeEx(nullptr, COINIT_MULTITHREADED);
    u_long later = 1;
    ioctlsocket(listening, FIONBIO, &later);
    while (wanted(listening)) {
        SOCKET s = accept(listening, nullptr, nullptr);
        if (s != INVALID_SOCKET) {
            later = 0;
            ioctlsocket(s, FIONBIO, &later);
            connections++;
            std::thread(serve, s).detach();
        }
    }
    return 0;
}
