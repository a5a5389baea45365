#include "providers.h"

#include <vss.h>

#include <algorithm>

#include "text.h"

namespace {

const wchar_t *const root = L"SYSTEM\\CurrentControlSet\\Services\\VSS\\Providers";

std::wstring keyOf(const GUID &id) { return std::wstring(root) + L"\\{" + wide(guidText(id)) + L"}"; }

std::string textValue(const std::wstring &key, const wchar_t *name) {
    wchar_t value[512] = {};
    DWORD size = sizeof value - sizeof(wchar_t);
    LSTATUS status = RegGetValueW(HKEY_LOCAL_MACHINE, key.c_str(), name, RRF_RT_REG_SZ, nullptr, value, &size);
    return status == ERROR_SUCCESS ? narrow(value) : "";
}

HRESULT setText(const std::wstring &key, const wchar_t *name, const std::string &value) {
    std::wstring w = wide(value);
    return HRESULT_FROM_WIN32(RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.c_str(), name, REG_SZ, w.c_str(), (DWORD)((w.size() + 1) * sizeof(wchar_t))));
}

ProviderRecord recordAt(const std::wstring &keyName) {
    std::wstring key = std::wstring(root) + L"\\" + keyName;
    ProviderRecord r;
    r.id = guidOf(narrow(keyName.c_str()));
    r.name = textValue(key, L"");
    r.version = textValue(key, L"Version");
    r.versionId = guidOf(textValue(key, L"VersionId"));
    r.classId = guidOf(textValue(key + L"\\CLSID", L""));
    DWORD type = 0, size = sizeof type;
    if (RegGetValueW(HKEY_LOCAL_MACHINE, key.c_str(), L"Type", RRF_RT_REG_DWORD, nullptr, &type, &size) == ERROR_SUCCESS) {
        r.type = (int)type;
    }
    return r;
}

}  // namespace

ProviderRecord systemProvider() {
    ProviderRecord r;
    r.id = guidOf("b5946137-7b9f-4925-af80-51abd60b20d5");
    r.classId = guidOf("65ee1dba-8ff4-4a58-ac1c-3470ee2f376a");
    r.versionId = guidOf("00000001-0000-0000-0007-000000000001");
    r.name = "Microsoft Software Shadow Copy provider 1.0";
    r.version = "1.0.0.7";
    r.type = VSS_PROV_SYSTEM;
    return r;
}

std::vector<ProviderRecord> registeredProviders() {
    std::vector<ProviderRecord> all;
    HKEY key = nullptr;
    if (RegOpenKeyExW(HKEY_LOCAL_MACHINE, root, 0, KEY_READ, &key) == ERROR_SUCCESS) {
        wchar_t name[128];
        for (DWORD i = 0, n = 128; RegEnumKeyExW(key, i, name, &n, nullptr, nullptr, nullptr, nullptr) == ERROR_SUCCESS; i++, n = 128) {
            all.push_back(recordAt(name));
        }
        RegCloseKey(key);
    }
    std::stable_sort(all.begin(), all.end(), [](const ProviderRecord &a, const ProviderRecord &b) { return a.type > b.type; });
    all.push_back(systemProvider());
    return all;
}

bool findProvider(const GUID &id, ProviderRecord &found) {
    for (const ProviderRecord &r : registeredProviders()) {
        if (r.id == id) {
            found = r;
            return true;
        }
    }
    return false;
}

HRESULT registerProvider(const ProviderRecord &r) {
    ProviderRecord present;
    if (findProvider(r.id, present)) {
        return VSS_E_PROVIDER_ALREADY_REGISTERED;
    }
    if (r.type != VSS_PROV_SOFTWARE && r.type != VSS_PROV_HARDWARE) {
        return E_INVALIDARG;
    }
    std::wstring key = keyOf(r.id);
    DWORD type = (DWORD)r.type;
    HRESULT results[] = {
        setText(key, nullptr, r.name),
        setText(key, L"Version", r.version),
        setText(key, L"VersionId", "{" + guidText(r.versionId) + "}"),
        setText(key + L"\\CLSID", nullptr, "{" + guidText(r.classId) + "}"),
        HRESULT_FROM_WIN32(RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.c_str(), L"Type", REG_DWORD, &type, sizeof type)),
    };
    for (HRESULT hr : results) {
        if (FAILED(hr)) {
            return hr;
        }
    }
    return S_OK;
}

HRESULT unregisterProvider(const GUID &id) {
    LSTATUS status = RegDeleteTreeW(HKEY_LOCAL_MACHINE, keyOf(id).c_str());
    return status == ERROR_FILE_NOT_FOUND ? VSS_E_PROVIDER_NOT_REGISTERED : HRESULT_FROM_WIN32(status);
}
