// startservice.exe stands for somebody who can do nothing in a guest but make services, as svcctl over SMB lets one: it makes
// a demand-start service, starts it, waits for its end with its entry held open, and prints how it ended.
//
//   startservice NAME COMMAND-LINE    "stopped W S": the service's Win32 exit code and its own one, or "error N" of Windows
#include <windows.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "text.h"

namespace {

constexpr int kTries = 600;  // a minute
constexpr DWORD kPauseMs = 100;

int failed() {
    std::printf("error %lu\n", GetLastError());
    return 1;
}

}  // namespace

int main(int count, char **words) {
    if (count != 3) {
        std::fprintf(stderr, "usage: startservice NAME COMMAND-LINE\n");
        return 2;
    }
    SC_HANDLE manager = OpenSCManagerW(nullptr, nullptr, SC_MANAGER_CREATE_SERVICE);
    if (manager == nullptr) {
        return failed();
    }
    SC_HANDLE service = CreateServiceW(manager, wide(words[1]).c_str(), wide(words[1]).c_str(), SERVICE_START | SERVICE_QUERY_STATUS | DELETE,
                                       SERVICE_WIN32_OWN_PROCESS, SERVICE_DEMAND_START, SERVICE_ERROR_NORMAL, wide(words[2]).c_str(),
                                       nullptr, nullptr, nullptr, nullptr, nullptr);
    if (service == nullptr || !StartServiceW(service, 0, nullptr)) {
        return failed();
    }
    for (int i = 0; i < kTries; i++) {
        SERVICE_STATUS status = {};
        if (!QueryServiceStatus(service, &status)) {
            return failed();
        }
        if (status.dwCurrentState == SERVICE_STOPPED) {
            std::printf("stopped %lu %lu\n", status.dwWin32ExitCode, status.dwServiceSpecificExitCode);
            const bool deleted = DeleteService(service);
            CloseServiceHandle(service);
            CloseServiceHandle(manager);
            return deleted ? 0 : failed();
        }
        Sleep(kPauseMs);
    }
    std::printf("error %ld\n", WAIT_TIMEOUT);
    return 1;
}
