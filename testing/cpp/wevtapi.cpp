// wevtapi.dll serves the events of one file (eventlog.h), oldest first or last, as XML.
//
// Credible for: handles, EvtNext's batches and its end, sizes asked for with a buffer too small, events' XML. Never emulates:
// XPath - of a query it knows the channels and the lower bound of SystemTime, and passes everything else on, so a
// caller must look at each event itself; subscriptions, bookmarks, publishers' message texts.
#include <windows.h>

#include <winevt.h>

#include <algorithm>
#include <string>
#include <vector>

#include "eventlog.h"
#include "text.h"

namespace {

// Handle is what an EVT_HANDLE points to: a result set with a place in it, or one event.
struct Handle {
    std::vector<std::string> events;
    size_t next = 0;
};

std::vector<std::string> readEvents() {
    HANDLE file = CreateFileW(wide(EventLog::place()).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING, 0, nullptr);
    std::vector<std::string> events;
    if (file == INVALID_HANDLE_VALUE) {
        return events;
    }
    std::string text;
    char block[8192];
    for (DWORD n = 0; ReadFile(file, block, sizeof block, &n, nullptr) && n > 0;) {
        text.append(block, n);
    }
    CloseHandle(file);
    for (const std::string &line : split(text, '\n')) {
        if (line.find("<Event") != std::string::npos) {
            events.push_back(trim(line));
        }
    }
    return events;
}

// between is what stands between two marks, empty when they are not there.
std::string between(const std::string &s, const std::string &from, const std::string &to) {
    size_t a = s.find(from);
    if (a == std::string::npos) {
        return "";
    }
    size_t b = s.find(to, a + from.size());
    return b == std::string::npos ? "" : s.substr(a + from.size(), b - a - from.size());
}

std::string channelOf(const std::string &event) { return between(event, "<Channel>", "</Channel>"); }

std::string timeOf(const std::string &event) {
    std::string time = between(event, "SystemTime='", "'");
    return time.empty() ? between(event, "SystemTime=\"", "\"") : time;
}

// channelsOf are the channels that a query names: its path, or each Path="..." of a QueryList.
std::vector<std::string> channelsOf(const std::string &path, const std::string &query) {
    std::vector<std::string> channels;
    if (!path.empty()) {
        channels.push_back(lower(path));
    }
    for (const char *quote : {"\"", "'"}) {
        std::string mark = std::string("Path=") + quote;
        for (size_t at = query.find(mark); at != std::string::npos; at = query.find(mark, at + 1)) {
            channels.push_back(lower(between(query.substr(at), mark, quote)));
        }
    }
    return channels;
}

// earliestOf is the time of "@SystemTime >= 'time'", written plainly or escaped; empty when there is none.
std::string earliestOf(const std::string &query) {
    size_t at = query.find("@SystemTime");
    size_t greater = at == std::string::npos ? at : query.find_first_of(">&", at);
    if (greater == std::string::npos || query.compare(greater, 4, "&lt;") == 0) {
        return "";
    }
    size_t quote = query.find_first_of("'\"", greater);
    return quote == std::string::npos ? "" : between(query.substr(quote), query.substr(quote, 1), query.substr(quote, 1));
}

bool wanted(const std::string &event, const std::vector<std::string> &channels, const std::string &earliest) {
    bool there = std::find(channels.begin(), channels.end(), lower(channelOf(event))) != channels.end();
    return there && (earliest.empty() || timeOf(event).compare(0, 23, earliest, 0, 23) >= 0);
}

BOOL failWith(DWORD error) {
    SetLastError(error);
    return FALSE;
}

}  // namespace

extern "C" EVT_HANDLE WINAPI F_EvtQuery(EVT_HANDLE session, LPCWSTR path, LPCWSTR query, DWORD flags) {
    std::string text = narrow(query);
    std::vector<std::string> channels = channelsOf(narrow(path), text);
    if (session != nullptr || channels.empty() || (flags & EvtQueryFilePath) != 0) {
        failWith(ERROR_INVALID_PARAMETER);
        return nullptr;
    }
    auto *result = new Handle();
    std::string earliest = earliestOf(text);
    for (const std::string &event : readEvents()) {
        if (wanted(event, channels, earliest)) {
            result->events.push_back(event);
        }
    }
    if ((flags & EvtQueryReverseDirection) != 0) {
        std::reverse(result->events.begin(), result->events.end());
    }
    return result;
}

extern "C" BOOL WINAPI F_EvtNext(EVT_HANDLE set, DWORD size, EVT_HANDLE *out, DWORD, DWORD, PDWORD returned) {
    auto *result = static_cast<Handle *>(set);
    if (result == nullptr || out == nullptr || returned == nullptr) {
        return failWith(ERROR_INVALID_PARAMETER);
    }
    *returned = 0;
    for (; *returned < size && result->next < result->events.size(); result->next++, (*returned)++) {
        out[*returned] = new Handle{{result->events[result->next]}, 0};
    }
    return *returned == 0 ? failWith(ERROR_NO_MORE_ITEMS) : TRUE;
}

// Sizes are bytes, the final zero included.
extern "C" BOOL WINAPI F_EvtRender(EVT_HANDLE, EVT_HANDLE fragment, DWORD flags, DWORD size, PVOID buffer, PDWORD used, PDWORD properties) {
    auto *event = static_cast<Handle *>(fragment);
    if (event == nullptr || event->events.size() != 1 || flags != EvtRenderEventXml || used == nullptr) {
        return failWith(ERROR_INVALID_PARAMETER);
    }
    std::wstring xml = wide(event->events[0]);
    *used = (DWORD)((xml.size() + 1) * sizeof(wchar_t));
    if (properties != nullptr) {
        *properties = 0;
    }
    if (buffer == nullptr || size < *used) {
        return failWith(ERROR_INSUFFICIENT_BUFFER);
    }
    std::copy_n(xml.c_str(), xml.size() + 1, static_cast<wchar_t *>(buffer));
    return TRUE;
}

extern "C" BOOL WINAPI F_EvtClose(EVT_HANDLE handle) {
    delete static_cast<Handle *>(handle);
    return TRUE;
}

// No publisher has messages here.
extern "C" BOOL WINAPI F_EvtFormatMessage(EVT_HANDLE, EVT_HANDLE, DWORD, DWORD, PVOID, DWORD, DWORD, LPWSTR, PDWORD used) {
    if (used != nullptr) {
        *used = 0;
    }
    return failWith(ERROR_EVT_MESSAGE_NOT_FOUND);
}
