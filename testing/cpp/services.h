// Services by the service control manager of this Windows. Each function gives the answer of guesttools.exe: "ok", "error N"
// with the number of Windows, or what it is about.
#pragma once

#include <string>

std::string createService(const std::string &name, const std::string &display, const std::string &path);
std::string startService(const std::string &name);
std::string stopService(const std::string &name);
std::string deleteService(const std::string &name);

// queryService is "status" and the nine numbers of a SERVICE_STATUS_PROCESS.
std::string queryService(const std::string &name);

// configOfService is "config TYPE START ERROR-CONTROL\tPATH\tACCOUNT\tDISPLAY".
std::string configOfService(const std::string &name);

// listServices is a line of "NAME\tDISPLAY\t" and the nine numbers for each, and "." on the last.
std::string listServices();
