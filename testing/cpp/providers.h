// Providers are the snapshot providers registered with VSS, kept where Windows keeps them
// (HKLM\SYSTEM\CurrentControlSet\Services\VSS\Providers), so that what another version or an installer left is seen.
#pragma once

#include <string>
#include <vector>

#include <windows.h>

struct ProviderRecord {
    GUID id{}, classId{}, versionId{};
    std::string name, version;
    int type = 0;  // VSS_PROVIDER_TYPE
};

// The provider every Windows has, played by the fakes themselves: it supports each volume and holds nothing.
ProviderRecord systemProvider();

// registeredProviders has hardware before software before system, as VSS asks them, the system provider last.
std::vector<ProviderRecord> registeredProviders();
bool findProvider(const GUID &id, ProviderRecord &found);

HRESULT registerProvider(const ProviderRecord &record);
HRESULT unregisterProvider(const GUID &id);
