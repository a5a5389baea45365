#include "text.h"

#include <objbase.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

std::wstring wide(const std::string &utf8) {
    int n = MultiByteToWideChar(CP_UTF8, 0, utf8.data(), (int)utf8.size(), nullptr, 0);
    std::wstring out(n, 0);
    MultiByteToWideChar(CP_UTF8, 0, utf8.data(), (int)utf8.size(), out.data(), n);
    return out;
}

std::string narrow(const wchar_t *utf16) {
    if (utf16 == nullptr) {
        return "";
    }
    int length = lstrlenW(utf16);
    int n = WideCharToMultiByte(CP_UTF8, 0, utf16, length, nullptr, 0, nullptr, nullptr);
    std::string out(n, 0);
    WideCharToMultiByte(CP_UTF8, 0, utf16, length, out.data(), n, nullptr, nullptr);
    return out;
}

std::string lower(std::string s) {
    std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return (char)std::tolower(c); });
    return s;
}

std::string trim(const std::string &s) {
    const char *blank = " \t\r\n";
    size_t first = s.find_first_not_of(blank);
    return first == std::string::npos ? "" : s.substr(first, s.find_last_not_of(blank) - first + 1);
}

std::vector<std::string> split(const std::string &s, char at) {
    std::vector<std::string> parts;
    size_t from = 0;
    for (size_t to; (to = s.find(at, from)) != std::string::npos; from = to + 1) {
        parts.push_back(s.substr(from, to - from));
    }
    parts.push_back(s.substr(from));
    return parts;
}

std::string guidText(const GUID &g) {
    char out[40];
    std::snprintf(out, sizeof out, "%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", (unsigned long)g.Data1, g.Data2, g.Data3,
                  g.Data4[0], g.Data4[1], g.Data4[2], g.Data4[3], g.Data4[4], g.Data4[5], g.Data4[6], g.Data4[7]);
    return out;
}

GUID guidOf(const std::string &s) {
    std::string bare = !s.empty() && s.front() == '{' ? s.substr(1) : s;
    GUID g{};
    unsigned long first = 0;
    unsigned rest[10] = {};
    int n = std::sscanf(bare.c_str(), "%8lx-%4x-%4x-%2x%2x-%2x%2x%2x%2x%2x%2x", &first, &rest[0], &rest[1], &rest[2], &rest[3],
                        &rest[4], &rest[5], &rest[6], &rest[7], &rest[8], &rest[9]);
    if (n != 11) {
        return GUID{};
    }
    g.Data1 = first;
    g.Data2 = (unsigned short)rest[0];
    g.Data3 = (unsigned short)rest[1];
    std::transform(rest + 2, rest + 10, g.Data4, [](unsigned v) { return (unsigned char)v; });
    return g;
}

GUID newGuid() {
    GUID g{};
    CoCreateGuid(&g);
    return g;
}

std::string hresultText(HRESULT hr) {
    char out[16];
    std::snprintf(out, sizeof out, "0x%08lx", (unsigned long)hr);
    return out;
}

HRESULT hresultOf(const std::string &s) { return (HRESULT)std::strtoul(s.c_str(), nullptr, 0); }

std::string environment(const char *name, const std::string &otherwise) {
    wchar_t value[1024];
    DWORD n = GetEnvironmentVariableW(wide(name).c_str(), value, 1024);
    return n == 0 || n >= 1024 ? otherwise : narrow(value);
}

wchar_t *copyOf(const std::string &s) {
    std::wstring w = wide(s);
    size_t size = (w.size() + 1) * sizeof(wchar_t);
    void *memory = CoTaskMemAlloc(size);
    if (memory != nullptr) {
        std::memcpy(memory, w.c_str(), size);
    }
    return static_cast<wchar_t *>(memory);
}
