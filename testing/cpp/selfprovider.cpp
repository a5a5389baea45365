// selfprovider.exe is a trivial snapshot provider made from mingw-w64's headers: with it the fakes are proved without any of
// the product's code. It registers itself, serves as a COM local server and goes when it is told so.
//
//   selfprovider.exe install|uninstall     COM class, AppID and VSS registration
//   selfprovider.exe run                   serve until stdin ends
//   selfprovider.exe -Embedding            the same, as COM starts it; until OnUnload
//
// C:\lab\selfprovider.conf, "key = value" lines: hold_ms (in Commit), pre_commit_ms, answer (an HRESULT of Commit), exit
// (in Commit, without a word), supports (0 or 1).
#include <windows.h>

#include <initguid.h>
#include <vsadmin.h>
#include <vsprov.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>

#include "comobject.h"
#include "text.h"
#include "trace.h"

namespace {

const GUID providerId = {0xc0ffee00, 0x1ab5, 0x4d1e, {0x8a, 0x11, 0, 0, 0, 0, 0, 1}};
const GUID versionId = {0xc0ffee00, 0x1ab5, 0x4d1e, {0x8a, 0x11, 0, 0, 0, 0, 0, 2}};
const GUID classId = {0xc0ffee00, 0x1ab5, 0x4d1e, {0x8a, 0x11, 0, 0, 0, 0, 0, 3}};

HANDLE finished;       // set when the server should go
HANDLE released;       // set by AbortSnapshots, ends a hold
bool leaveOnUnload = false;

std::string setting(const std::string &name, const std::string &otherwise) {
    FILE *file = std::fopen("C:\\lab\\selfprovider.conf", "r");
    std::string value = otherwise;
    char line[256];
    while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr) {
        std::string whole = line;
        size_t equals = whole.find('=');
        if (equals != std::string::npos && trim(whole.substr(0, equals)) == name) {
            value = trim(whole.substr(equals + 1));
        }
    }
    if (file != nullptr) {
        std::fclose(file);
    }
    return value;
}

DWORD settingMs(const std::string &name) { return (DWORD)std::stoul(setting(name, "0")); }

// SelfProvider has one face for each of the three interfaces, all of one object that lives as long as the process.
class SelfProvider : public IVssSoftwareSnapshotProvider, public IVssProviderCreateSnapshotSet, public IVssProviderNotifications {
public:
    HRESULT STDMETHODCALLTYPE QueryInterface(REFIID iid, void **out) override {
        *out = nullptr;
        if (iid == IID_IUnknown || iid == IID_IVssSoftwareSnapshotProvider) {
            *out = static_cast<IVssSoftwareSnapshotProvider *>(this);
        } else if (iid == IID_IVssProviderCreateSnapshotSet) {
            *out = static_cast<IVssProviderCreateSnapshotSet *>(this);
        } else if (iid == IID_IVssProviderNotifications) {
            *out = static_cast<IVssProviderNotifications *>(this);
        }
        if (*out == nullptr) {
            return E_NOINTERFACE;
        }
        AddRef();
        return S_OK;
    }
    ULONG STDMETHODCALLTYPE AddRef() override { return (ULONG)++references; }
    ULONG STDMETHODCALLTYPE Release() override { return (ULONG)--references; }

    // letGo waits until nobody has a reference: one who lets go of his in a server that is not there any more may wait for ever.
    void letGo() const {
        for (int i = 0; i < 250 && references > 0; i++) {
            Sleep(20);
        }
    }

    HRESULT STDMETHODCALLTYPE SetContext(LONG) override { return S_OK; }
    HRESULT STDMETHODCALLTYPE GetSnapshotProperties(VSS_ID snapshot, VSS_SNAPSHOT_PROP *out) override {
        *out = {};
        out->m_SnapshotId = snapshot;
        out->m_lSnapshotsCount = 1;
        out->m_ProviderId = providerId;
        out->m_pwszSnapshotDeviceObject = copyOf("\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy1");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE Query(VSS_ID, VSS_OBJECT_TYPE, VSS_OBJECT_TYPE, IVssEnumObject **) override { return E_NOTIMPL; }
    HRESULT STDMETHODCALLTYPE DeleteSnapshots(VSS_ID, VSS_OBJECT_TYPE, WINBOOL, LONG *, VSS_ID *) override { return E_NOTIMPL; }
    HRESULT STDMETHODCALLTYPE BeginPrepareSnapshot(VSS_ID set, VSS_ID snapshot, VSS_PWSZ volume, LONG) override {
        trace.mark("selfprovider", "BeginPrepareSnapshot", {{"set", guidText(set)}, {"snapshot", guidText(snapshot)}, {"volume", narrow(volume)}});
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE IsVolumeSupported(VSS_PWSZ, WINBOOL *yes) override { return *yes = setting("supports", "1") == "1", S_OK; }
    HRESULT STDMETHODCALLTYPE IsVolumeSnapshotted(VSS_PWSZ, WINBOOL *present, LONG *) override { return *present = FALSE, S_OK; }
    HRESULT STDMETHODCALLTYPE SetSnapshotProperty(VSS_ID, VSS_SNAPSHOT_PROPERTY_ID, VARIANT) override { return E_NOTIMPL; }
    HRESULT STDMETHODCALLTYPE RevertToSnapshot(VSS_ID) override { return E_NOTIMPL; }
    HRESULT STDMETHODCALLTYPE QueryRevertStatus(VSS_PWSZ, IVssAsync **) override { return E_NOTIMPL; }

    HRESULT STDMETHODCALLTYPE EndPrepareSnapshots(VSS_ID) override { return ResetEvent(released), S_OK; }
    HRESULT STDMETHODCALLTYPE PreCommitSnapshots(VSS_ID) override { return hold("pre_commit_ms"); }
    HRESULT STDMETHODCALLTYPE CommitSnapshots(VSS_ID set) override {
        trace.mark("selfprovider", "CommitSnapshots", {{"set", guidText(set)}});
        if (setting("exit", "0") == "1") {
            TerminateProcess(GetCurrentProcess(), 3);
        }
        hold("hold_ms");
        return hresultOf(setting("answer", "0"));
    }
    HRESULT STDMETHODCALLTYPE PostCommitSnapshots(VSS_ID, LONG) override { return S_OK; }
    HRESULT STDMETHODCALLTYPE PreFinalCommitSnapshots(VSS_ID) override { return S_OK; }
    HRESULT STDMETHODCALLTYPE PostFinalCommitSnapshots(VSS_ID) override { return S_OK; }
    HRESULT STDMETHODCALLTYPE AbortSnapshots(VSS_ID) override { return SetEvent(released), S_OK; }

    HRESULT STDMETHODCALLTYPE OnLoad(IUnknown *) override { return S_OK; }
    HRESULT STDMETHODCALLTYPE OnUnload(WINBOOL) override {
        if (leaveOnUnload) {
            SetEvent(finished);
        }
        return S_OK;
    }

private:
    HRESULT hold(const char *name) {
        WaitForSingleObject(released, settingMs(name));
        return S_OK;
    }

    Trace trace{Trace::place()};
    std::atomic<long> references{0};
};

class SelfProviderClass : public ComObject<IClassFactory> {
public:
    explicit SelfProviderClass(SelfProvider &provider) : provider(provider) {}

    HRESULT STDMETHODCALLTYPE CreateInstance(IUnknown *, REFIID iid, void **out) override { return provider.QueryInterface(iid, out); }
    HRESULT STDMETHODCALLTYPE LockServer(WINBOOL) override { return S_OK; }

private:
    bool answers(REFIID wanted) const override { return wanted == IID_IClassFactory; }

    SelfProvider &provider;
};

HRESULT setText(const std::wstring &key, const wchar_t *name, const std::wstring &value) {
    DWORD size = (DWORD)((value.size() + 1) * sizeof(wchar_t));
    return HRESULT_FROM_WIN32(RegSetKeyValueW(HKEY_LOCAL_MACHINE, key.c_str(), name, REG_SZ, value.c_str(), size));
}

std::wstring classKey() { return L"SOFTWARE\\Classes\\CLSID\\{" + wide(guidText(classId)) + L"}"; }

HRESULT admin(IVssAdmin **out) {
    return CoCreateInstance(CLSID_VSSCoordinator, nullptr, CLSCTX_ALL, IID_IVssAdmin, reinterpret_cast<void **>(out));
}

HRESULT install() {
    wchar_t own[MAX_PATH];
    GetModuleFileNameW(nullptr, own, MAX_PATH);
    HRESULT hr = setText(classKey() + L"\\LocalServer32", nullptr, std::wstring(L"\"") + own + L"\"");
    IVssAdmin *vss = nullptr;
    if (SUCCEEDED(hr)) {
        hr = admin(&vss);
    }
    if (SUCCEEDED(hr)) {
        wchar_t name[] = L"Lab's own provider", version[] = L"1.0";
        hr = vss->RegisterProvider(providerId, classId, name, VSS_PROV_SOFTWARE, version, versionId);
        vss->Release();
    }
    return hr;
}

HRESULT uninstall() {
    IVssAdmin *vss = nullptr;
    HRESULT hr = admin(&vss);
    if (SUCCEEDED(hr)) {
        hr = vss->UnregisterProvider(providerId);
        vss->Release();
    }
    if (SUCCEEDED(hr)) {
        hr = HRESULT_FROM_WIN32(RegDeleteTreeW(HKEY_LOCAL_MACHINE, classKey().c_str()));
    }
    return hr;
}

HRESULT serve() {
    SelfProvider provider;
    auto *factory = new SelfProviderClass(provider);
    DWORD cookie = 0;
    HRESULT hr = CoRegisterClassObject(classId, factory, CLSCTX_LOCAL_SERVER, REGCLS_MULTIPLEUSE, &cookie);
    if (SUCCEEDED(hr)) {
        std::puts("serving");
        std::fflush(stdout);
        WaitForSingleObject(finished, INFINITE);
        CoRevokeClassObject(cookie);
        if (leaveOnUnload) {
            provider.letGo();
        }
    }
    factory->Release();
    return hr;
}

DWORD WINAPI leaveAtEnd(void *) {
    while (std::getchar() != EOF) {
    }
    SetEvent(finished);
    return 0;
}

int report(const char *what, HRESULT hr) {
    std::printf("%s %s\n", what, hresultText(hr).c_str());
    return FAILED(hr);
}

}  // namespace

int main(int count, char **words) {
    std::string word = count > 1 ? words[count - 1] : "";
    CoInitializeEx(nullptr, COINIT_MULTITHREADED);
    finished = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    released = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    if (word == "install") {
        return report("install", install());
    }
    if (word == "uninstall") {
        return report("uninstall", uninstall());
    }
    leaveOnUnload = word == "-Embedding";
    if (word == "run") {
        CloseHandle(CreateThread(nullptr, 0, leaveAtEnd, nullptr, 0, nullptr));
    } else if (!leaveOnUnload) {
        return 2;
    }
    HRESULT hr = serve();
    CoUninitialize();
    return report("served", hr);
}
