// Async is the IVssAsync of one piece of work in a session.
#pragma once

#include <windows.h>

#include <vss.h>

#include <memory>
#include <string>

#include "message.h"
#include "trace.h"

IVssAsync *newAsync(std::shared_ptr<Link> link, const Trace &trace, const std::string &name);
