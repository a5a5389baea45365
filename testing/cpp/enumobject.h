// EnumObject lists providers as Query and QueryProviders do; shadow copies it never has any.
#pragma once

#include <windows.h>

#include <vss.h>

#include <vector>

#include "providers.h"

IVssEnumObject *newEnumObject(std::vector<ProviderRecord> providers);
