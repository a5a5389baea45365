#include "services.h"

#include <windows.h>

#include <vector>

#include "text.h"

namespace {

std::string failure() { return "error " + std::to_string(GetLastError()); }

// Handle closes itself.
class Handle {
  public:
    explicit Handle(SC_HANDLE h) : h(h) {}
    ~Handle() {
        if (h != nullptr) {
            DWORD last = GetLastError();
            CloseServiceHandle(h);
            SetLastError(last);
        }
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    operator SC_HANDLE() const { return h; }

  private:
    SC_HANDLE h;
};

// with opens a service and lets use answer.
template <typename Use> std::string with(const std::string &name, DWORD access, Use use) {
    Handle manager(OpenSCManagerW(nullptr, nullptr, SC_MANAGER_CONNECT));
    if (manager == nullptr) {
        return failure();
    }
    Handle service(OpenServiceW(manager, wide(name).c_str(), access));
    return service == nullptr ? failure() : use(service);
}

std::string numbers(const SERVICE_STATUS_PROCESS &s) {
    std::string out;
    for (DWORD n : {s.dwServiceType, s.dwCurrentState, s.dwControlsAccepted, s.dwWin32ExitCode, s.dwServiceSpecificExitCode, s.dwCheckPoint,
                    s.dwWaitHint, s.dwProcessId, s.dwServiceFlags}) {
        out += (out.empty() ? "" : " ") + std::to_string(n);
    }
    return out;
}

// clean is text that fits into a field of a line.
std::string clean(const wchar_t *text) {
    std::string out = narrow(text);
    for (char &c : out) {
        if (c == '\t' || c == '\r' || c == '\n') {
            c = ' ';
        }
    }
    return out;
}

}  // namespace

std::string createService(const std::string &name, const std::string &display, const std::string &path) {
    Handle manager(OpenSCManagerW(nullptr, nullptr, SC_MANAGER_CONNECT | SC_MANAGER_CREATE_SERVICE));
    if (manager == nullptr) {
        return failure();
    }
    Handle service(CreateServiceW(manager, wide(name).c_str(), wide(display).c_str(), SERVICE_QUERY_STATUS, SERVICE_WIN32_OWN_PROCESS,
                                  SERVICE_DEMAND_START, SERVICE_ERROR_IGNORE, wide(path).c_str(), nullptr, nullptr, nullptr, nullptr, nullptr));
    return service == nullptr ? failure() : "ok";
}

std::string startService(const std::string &name) {
    return with(name, SERVICE_START, [](SC_HANDLE s) { return StartServiceW(s, 0, nullptr) ? "ok" : failure(); });
}

std::string stopService(const std::string &name) {
    return with(name, SERVICE_STOP, [](SC_HANDLE s) {
        SERVICE_STATUS status;
        return ControlService(s, SERVICE_CONTROL_STOP, &status) ? "ok" : failure();
    });
}

std::string deleteService(const std::string &name) {
    return with(name, DELETE, [](SC_HANDLE s) { return DeleteService(s) ? "ok" : failure(); });
}

std::string queryService(const std::string &name) {
    return with(name, SERVICE_QUERY_STATUS, [](SC_HANDLE s) {
        SERVICE_STATUS_PROCESS status;
        DWORD needed;
        bool good = QueryServiceStatusEx(s, SC_STATUS_PROCESS_INFO, reinterpret_cast<BYTE *>(&status), sizeof status, &needed);
        return good ? "status " + numbers(status) : failure();
    });
}

std::string configOfService(const std::string &name) {
    return with(name, SERVICE_QUERY_CONFIG, [](SC_HANDLE s) {
        std::vector<BYTE> buffer(8 << 10);
        auto config = reinterpret_cast<QUERY_SERVICE_CONFIGW *>(buffer.data());
        DWORD needed;
        if (!QueryServiceConfigW(s, config, static_cast<DWORD>(buffer.size()), &needed)) {
            return failure();
        }
        return "config " + std::to_string(config->dwServiceType) + " " + std::to_string(config->dwStartType) + " " +
               std::to_string(config->dwErrorControl) + "\t" + clean(config->lpBinaryPathName) + "\t" + clean(config->lpServiceStartName) + "\t" +
               clean(config->lpDisplayName);
    });
}

std::string listServices() {
    Handle manager(OpenSCManagerW(nullptr, nullptr, SC_MANAGER_CONNECT | SC_MANAGER_ENUMERATE_SERVICE));
    if (manager == nullptr) {
        return failure();
    }
    std::vector<BYTE> buffer(256 << 10);  // all that there are, at once
    DWORD needed, count, resume = 0;
    if (!EnumServicesStatusExW(manager, SC_ENUM_PROCESS_INFO, SERVICE_WIN32, SERVICE_STATE_ALL, buffer.data(), static_cast<DWORD>(buffer.size()),
                               &needed, &count, &resume, nullptr)) {
        return failure();
    }
    auto all = reinterpret_cast<ENUM_SERVICE_STATUS_PROCESSW *>(buffer.data());
    std::string out;
    for (DWORD i = 0; i < count; i++) {
        out += clean(all[i].lpServiceName) + "\t" + clean(all[i].lpDisplayName) + "\t" + numbers(all[i].ServiceStatusProcess) + "\n";
    }
    return out + ".";
}
