// ComObject is the IUnknown of an object with one COM interface: its own references, and QueryInterface for a list of ids that
// all answer the same face.
#pragma once

#include <unknwn.h>

#include <atomic>
#include <initializer_list>

template <class Interface>
class ComObject : public Interface {
public:
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID wanted, void **out) override {
        if (out == nullptr) {
            return E_POINTER;
        }
        *out = nullptr;
        if (wanted != __uuidof(IUnknown) && !answers(wanted)) {
            return E_NOINTERFACE;
        }
        this->AddRef();
        *out = static_cast<Interface *>(this);
        return S_OK;
    }
    ULONG STDMETHODCALLTYPE AddRef() override { return ++references; }
    ULONG STDMETHODCALLTYPE Release() override {
        ULONG left = --references;
        if (left == 0) {
            delete this;
        }
        return left;
    }

protected:
    virtual ~ComObject() = default;
    virtual bool answers(REFIID wanted) const = 0;

private:
    std::atomic<ULONG> references{1};
};
