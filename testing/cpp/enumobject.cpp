#include "enumobject.h"

#include <algorithm>

#include "text.h"
#include "comobject.h"

namespace {

class EnumObject : public ComObject<IVssEnumObject> {
public:
    explicit EnumObject(std::vector<ProviderRecord> all) : all(std::move(all)) {}

    HRESULT STDMETHODCALLTYPE Next(ULONG count, VSS_OBJECT_PROP *out, ULONG *fetched) override {
        if (out == nullptr || fetched == nullptr) {
            return E_POINTER;
        }
        *fetched = 0;
        for (; *fetched < count && next < all.size(); next++, (*fetched)++) {
            fill(all[next], out[*fetched]);
        }
        return *fetched == count ? S_OK : S_FALSE;
    }
    HRESULT STDMETHODCALLTYPE Skip(ULONG count) override {
        size_t skipped = std::min<size_t>(count, all.size() - next);
        next += skipped;
        return skipped == count ? S_OK : S_FALSE;
    }
    HRESULT STDMETHODCALLTYPE Reset() override { return next = 0, S_OK; }
    HRESULT STDMETHODCALLTYPE Clone(IVssEnumObject **out) override {
        auto *copy = new EnumObject(all);
        copy->next = next;
        *out = copy;
        return S_OK;
    }

private:
    bool answers(REFIID wanted) const override { return wanted == __uuidof(IVssEnumObject); }

    static void fill(const ProviderRecord &r, VSS_OBJECT_PROP &out) {
        out = {};
        out.Type = VSS_OBJECT_PROVIDER;
        VSS_PROVIDER_PROP &p = out.Obj.Prov;
        p.m_ProviderId = r.id;
        p.m_pwszProviderName = copyOf(r.name);
        p.m_eProviderType = (VSS_PROVIDER_TYPE)r.type;
        p.m_pwszProviderVersion = copyOf(r.version);
        p.m_ProviderVersionId = r.versionId;
        p.m_ClassId = r.classId;
    }

    std::vector<ProviderRecord> all;
    size_t next = 0;
};

}  // namespace

IVssEnumObject *newEnumObject(std::vector<ProviderRecord> providers) { return new EnumObject(std::move(providers)); }
