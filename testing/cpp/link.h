// The two ways from vssapi.dll to a Session: in fakevssvc.exe, started on demand, or in this process.
#pragma once

#include <memory>

#include "config.h"
#include "message.h"
#include "trace.h"

// openLink begins a session with config. Failure is an empty pointer and hr.
std::unique_ptr<Link> openLink(const Config &config, const Trace &trace, HRESULT &hr);

// serviceSetInProgress asks a service that runs already whether it is making a set.
bool serviceSetInProgress();

// servicePortFile is where fakevssvc.exe says its port and process id.
std::wstring servicePortFile();
