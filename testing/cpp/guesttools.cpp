// guesttools.exe stands for VMware Tools inside a Windows guest of the lab: it starts, lists and ends programs for guest
// operations, so that process ids and exit codes are the guest's own. It reads one command a line from standard input, fields
// apart by tabs, in UTF-8, and answers each with one line or, for "list", with lines up to "."; it goes when its input ends.
//
//   start FOLDER COMMAND-LINE LOG    "pid N", or "error N" with the number of Windows; output is added to the file LOG
//   list                             "PID\tENDED 0|1\tEXIT CODE\tPROGRAM" for what it started, and for what else runs
//   end PID                          "ok", or "error N"
//   clock                            "ms N": QueryPerformanceCounter, the clock of the trace
//   service create NAME DISPLAY PATH | start NAME | stop NAME | delete NAME | query NAME | config NAME | list
//                                    what services.h says, by the service control manager
#include <windows.h>

#include <tlhelp32.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

#include "services.h"
#include "text.h"
#include "trace.h"

namespace {

std::map<DWORD, HANDLE> started;  // kept open, so that a process id is not used twice and an exit code stays

std::string failure() { return "error " + std::to_string(GetLastError()); }

std::string start(const std::string &folder, const std::string &command, const std::string &log) {
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, nullptr, TRUE};
    HANDLE output = CreateFileW(wide(log).c_str(), FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, &inherited,
                                OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, nullptr);
    HANDLE input = CreateFileW(L"NUL", GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, &inherited, OPEN_EXISTING, 0, nullptr);
    if (output == INVALID_HANDLE_VALUE || input == INVALID_HANDLE_VALUE) {
        return failure();
    }
    STARTUPINFOW about = {};
    about.cb = sizeof about;
    about.dwFlags = STARTF_USESTDHANDLES;
    about.hStdInput = input;
    about.hStdOutput = about.hStdError = output;
    PROCESS_INFORMATION made = {};
    std::wstring line = wide(command);
    bool good = CreateProcessW(nullptr, &line[0], nullptr, nullptr, TRUE, CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP, nullptr,
                               wide(folder).c_str(), &about, &made);
    std::string answer = good ? "pid " + std::to_string(made.dwProcessId) : failure();
    CloseHandle(output);
    CloseHandle(input);
    if (good) {
        CloseHandle(made.hThread);
        started[made.dwProcessId] = made.hProcess;
    }
    return answer;
}

std::string programOf(DWORD pid, const wchar_t *otherwise) {
    HANDLE process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, pid);
    wchar_t path[MAX_PATH];
    DWORD size = MAX_PATH;
    bool good = process != nullptr && QueryFullProcessImageNameW(process, 0, path, &size);
    if (process != nullptr) {
        CloseHandle(process);
    }
    return narrow(good ? path : otherwise);
}

void list() {
    for (const auto &one : started) {
        bool ended = WaitForSingleObject(one.second, 0) == WAIT_OBJECT_0;
        DWORD code = 0;
        if (ended) {
            GetExitCodeProcess(one.second, &code);
        }
        std::cout << one.first << "\t" << ended << "\t" << code << "\t\n";
    }
    HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W row = {};
    row.dwSize = sizeof row;
    for (BOOL more = Process32FirstW(all, &row); more; more = Process32NextW(all, &row)) {
        if (started.count(row.th32ProcessID) == 0) {
            std::cout << row.th32ProcessID << "\t0\t0\t" << programOf(row.th32ProcessID, row.szExeFile) << "\n";
        }
    }
    CloseHandle(all);
    std::cout << "." << std::endl;
}

std::string end(DWORD pid) {
    HANDLE process = OpenProcess(PROCESS_TERMINATE, FALSE, pid);
    if (process == nullptr) {
        return failure();
    }
    std::string answer = TerminateProcess(process, 1) ? "ok" : failure();
    CloseHandle(process);
    return answer;
}

// service answers the commands about services.
std::string service(const std::vector<std::string> &words) {
    const std::string &what = words[1];
    if (what == "create" && words.size() == 5) {
        return createService(words[2], words[3], words[4]);
    }
    if (what == "list" && words.size() == 2) {
        return listServices();
    }
    if (words.size() == 3) {
        const std::map<std::string, std::string (*)(const std::string &)> known = {
            {"start", startService}, {"stop", stopService}, {"delete", deleteService}, {"query", queryService}, {"config", configOfService}};
        auto found = known.find(what);
        if (found != known.end()) {
            return found->second(words[2]);
        }
    }
    return "error " + std::to_string(ERROR_INVALID_PARAMETER);
}

}  // namespace

int main() {
    std::string line;
    while (std::getline(std::cin, line)) {
        if (!line.empty() && line.back() == '\r') {
            line.pop_back();
        }
        std::vector<std::string> words = split(line, '\t');
        if (words[0] == "start" && words.size() == 4) {
            std::cout << start(words[1], words[2], words[3]) << std::endl;
        } else if (words[0] == "list") {
            list();
        } else if (words[0] == "end" && words.size() == 2) {
            std::cout << end((DWORD)std::strtoul(words[1].c_str(), nullptr, 10)) << std::endl;
        } else if (words[0] == "service" && words.size() > 1) {
            std::cout << service(words) << std::endl;
        } else if (words[0] == "clock") {
            char text[64];
            std::snprintf(text, sizeof text, "ms %.3f", nowMs());
            std::cout << text << std::endl;
        } else {
            std::cout << "error " << ERROR_INVALID_PARAMETER << std::endl;
        }
    }
    return 0;
}
