// vssapi.dll is the requestor's side of VSS as a program sees it: the exports, and the class object of the coordinator.
//
// Credible for: vtables and layouts as mingw-w64's headers have them, the strict order of calls, asynchronous results, BSTRs
// that leak when they are not freed. Never emulates: real writers and their documents, restores, what only Microsoft's
// vssapi.dll knows. session.h says what lies behind it.
#include <windows.h>

#include <olectl.h>
#include <vsadmin.h>

#include "admin.h"
#include "backupcomponents.h"
#include "comobject.h"
#include "text.h"

namespace {

class CoordinatorClass : public ComObject<IClassFactory> {
public:
    HRESULT STDMETHODCALLTYPE CreateInstance(IUnknown *outer, REFIID iid, void **out) override {
        if (outer != nullptr) {
            return CLASS_E_NOAGGREGATION;
        }
        IVssAdmin *admin = newAdmin();
        HRESULT hr = admin->QueryInterface(iid, out);
        admin->Release();
        return hr;
    }
    HRESULT STDMETHODCALLTYPE LockServer(WINBOOL) override { return S_OK; }

private:
    bool answers(REFIID wanted) const override { return wanted == __uuidof(IClassFactory); }
};

HRESULT setText(const std::wstring &key, const wchar_t *name, const std::wstring &value) {
    DWORD size = (DWORD)((value.size() + 1) * sizeof(wchar_t));
    return HRESULT_FROM_WIN32(RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.c_str(), name, REG_SZ, value.c_str(), size));
}

}  // namespace

extern "C" HRESULT WINAPI F_Create(IVssBackupComponents **out) {
    if (out == nullptr) {
        return E_POINTER;
    }
    *out = newBackupComponents();
    return S_OK;
}

extern "C" void WINAPI F_FreeSnapshotProperties(VSS_SNAPSHOT_PROP *p) {
    wchar_t *texts[] = {p->m_pwszSnapshotDeviceObject, p->m_pwszOriginalVolumeName, p->m_pwszOriginatingMachine,
                        p->m_pwszServiceMachine, p->m_pwszExposedName, p->m_pwszExposedPath};
    for (wchar_t *text : texts) {
        CoTaskMemFree(text);
    }
}

extern "C" HRESULT WINAPI F_GetClassObject(REFCLSID classId, REFIID iid, void **out) {
    if (classId != __uuidof(VSSCoordinator)) {
        return CLASS_E_CLASSNOTAVAILABLE;
    }
    auto *factory = new CoordinatorClass();
    HRESULT hr = factory->QueryInterface(iid, out);
    factory->Release();
    return hr;
}

extern "C" HRESULT WINAPI F_CanUnloadNow() { return S_FALSE; }

// F_Register makes the coordinator's class known; on Windows it is a local server, here it is this library. Its whole path
// stands there, because a process that searches System32 only finds no bare name by Wine's altered search.
extern "C" HRESULT WINAPI F_Register() {
    std::wstring key = L"SOFTWARE\\Classes\\CLSID\\{" + wide(guidText(__uuidof(VSSCoordinator))) + L"}";
    HRESULT hr = setText(key, nullptr, L"VSS Coordinator");
    if (SUCCEEDED(hr)) {
        wchar_t folder[MAX_PATH] = L"";
        GetSystemDirectoryW(folder, MAX_PATH);
        hr = setText(key + L"\\InprocServer32", nullptr, (std::wstring(folder) + L"\\vssapi.dll").c_str());
    }
    if (SUCCEEDED(hr)) {
        hr = setText(key + L"\\InprocServer32", L"ThreadingModel", L"Both");
    }
    return FAILED(hr) ? SELFREG_E_CLASS : S_OK;
}
