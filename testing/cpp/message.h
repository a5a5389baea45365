// Message is one request or answer between vssapi.dll and the coordinator: a word or HRESULT, then fields.
#pragma once

#include <string>
#include <vector>

#include <windows.h>

using Message = std::vector<std::string>;

inline HRESULT hrOf(const Message &answer) { return answer.empty() ? E_FAIL : (HRESULT)std::stoul(answer[0], nullptr, 0); }

// Link carries requests of one session to the coordinator.
class Link {
public:
    virtual ~Link() = default;
    // call answers with at least an HRESULT; a coordinator that died is 0x800706be at first and 0x800706ba from then on.
    virtual Message call(const Message &request) = 0;
};
