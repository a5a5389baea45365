#include "async.h"

#include <algorithm>

#include "text.h"
#include "comobject.h"

namespace {

constexpr DWORD sliceMs = 20;  // a wait holds the link no longer, so that Cancel comes through

class Async : public ComObject<IVssAsync> {
public:
    Async(std::shared_ptr<Link> link, const Trace &trace, std::string name) : link(std::move(link)), trace(trace), name(std::move(name)) {}

    HRESULT STDMETHODCALLTYPE Cancel() override {
        trace.begin("async", "Cancel", {{"of", name}});
        HRESULT hr = ended ? result : hrOf(link->call({"cancel"}));
        trace.end("async", "Cancel", hr, {{"of", name}});
        return hr;
    }
    HRESULT STDMETHODCALLTYPE Wait(DWORD ms) override {
        double until = nowMs() + ms;
        while (!ended) {
            double left = ms == INFINITE ? sliceMs : until - nowMs();
            poll((DWORD)std::clamp(left, 0.0, (double)sliceMs));
            if (ms != INFINITE && nowMs() >= until) {
                break;
            }
        }
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE QueryStatus(HRESULT *out, INT *reserved) override {
        if (out == nullptr) {
            return E_POINTER;
        }
        if (reserved != nullptr) {
            *reserved = 0;
        }
        poll(0);
        *out = result;
        return S_OK;
    }

private:
    bool answers(REFIID wanted) const override { return wanted == __uuidof(IVssAsync); }

    void poll(DWORD ms) {
        if (ended) {
            return;
        }
        Message reply = link->call({"poll", std::to_string(ms)});
        HRESULT hr = hrOf(reply);
        result = SUCCEEDED(hr) ? hresultOf(reply.at(1)) : hr;
        ended = result != VSS_S_ASYNC_PENDING;
        if (ended) {
            trace.mark("requestor", name + " result", {{"hr", hresultText(result)}});
        }
    }

    std::shared_ptr<Link> link;
    Trace trace;
    std::string name;
    bool ended = false;
    HRESULT result = VSS_S_ASYNC_PENDING;
};

}  // namespace

IVssAsync *newAsync(std::shared_ptr<Link> link, const Trace &trace, const std::string &name) { return new Async(std::move(link), trace, name); }
