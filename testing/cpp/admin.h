// Admin is IVssAdmin of CLSID_VSSCoordinator: the registrations of providers.
#pragma once

#include <windows.h>

#include <vsadmin.h>

IVssAdmin *newAdmin();
