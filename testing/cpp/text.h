// Text between the worlds: UTF-8 inside the fakes, UTF-16 and GUIDs at their borders.
#pragma once

#include <windows.h>

#include <string>
#include <vector>

std::wstring wide(const std::string &utf8);
std::string narrow(const wchar_t *utf16);  // nullptr is empty
std::string lower(std::string s);
std::string trim(const std::string &s);
std::vector<std::string> split(const std::string &s, char at);

// guidText is 8-4-4-4-12 in lower case without braces.
std::string guidText(const GUID &g);
// guidOf takes it with or without braces; what is none is GUID{}.
GUID guidOf(const std::string &s);
GUID newGuid();

// hresultText is 0x and eight lower-case digits.
std::string hresultText(HRESULT hr);
HRESULT hresultOf(const std::string &s);

// environment is a variable's value, or otherwise where it is not set.
std::string environment(const char *name, const std::string &otherwise);

// copyOf is s in memory of CoTaskMemAlloc, which the receiver frees.
wchar_t *copyOf(const std::string &s);
