#include "admin.h"

#include "enumobject.h"
#include "link.h"
#include "text.h"
#include "comobject.h"

namespace {

class Admin : public ComObject<IVssAdmin> {
public:
    HRESULT STDMETHODCALLTYPE RegisterProvider(VSS_ID id, CLSID classId, VSS_PWSZ name, VSS_PROVIDER_TYPE type, VSS_PWSZ version,
                                               VSS_ID versionId) override {
        ProviderRecord r;
        r.id = id;
        r.classId = classId;
        r.name = narrow(name);
        r.type = type;
        r.version = narrow(version);
        r.versionId = versionId;
        trace.begin("admin", "RegisterProvider", {{"provider", guidText(id)}, {"class", guidText(classId)}, {"name", r.name}, {"version", r.version}});
        HRESULT hr = registerProvider(r);
        trace.end("admin", "RegisterProvider", hr);
        return hr;
    }
    HRESULT STDMETHODCALLTYPE UnregisterProvider(VSS_ID id) override {
        trace.begin("admin", "UnregisterProvider", {{"provider", guidText(id)}});
        HRESULT hr = serviceSetInProgress() ? VSS_E_PROVIDER_IN_USE : unregisterProvider(id);
        trace.end("admin", "UnregisterProvider", hr);
        return hr;
    }
    HRESULT STDMETHODCALLTYPE QueryProviders(IVssEnumObject **out) override {
        if (out == nullptr) {
            return E_POINTER;
        }
        *out = newEnumObject(registeredProviders());
        trace.end("admin", "QueryProviders", S_OK);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE AbortAllSnapshotsInProgress() override {
        trace.end("admin", "AbortAllSnapshotsInProgress", E_NOTIMPL);
        return E_NOTIMPL;
    }

private:
    bool answers(REFIID wanted) const override { return wanted == __uuidof(IVssAdmin); }

    Trace trace{Trace::place()};
};

}  // namespace

IVssAdmin *newAdmin() { return new Admin(); }
