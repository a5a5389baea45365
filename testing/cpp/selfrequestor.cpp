// selfrequestor.exe is a plain requestor made from mingw-w64's headers. It plays two parts: with it the fakes are proved
// without any of the product's code, and as otherbackup it is "the other product", which asks for a shadow copy without naming
// a provider and says which one it got.
//
//   selfrequestor.exe VERB...    the steps in that order, one line of output each: word, HRESULT
//   otherbackup.exe              the usual steps without a provider id (LAB_OTHER_VOLUME, else C:\)
//
// Steps: init state full context clientcontext metadata components set volume anyvolume prepare status do cancel:MS succeeded
// failed complete freemetadata abort release sleep:MS. They are taken in whatever order they come, so that wrong ones can be tried.
#include <windows.h>

#include <initguid.h>
#include <vsbackup.h>

#include <cstdio>
#include <string>
#include <vector>

#include "text.h"
#include "trace.h"

namespace {

const GUID selfProviderId = {0xc0ffee00, 0x1ab5, 0x4d1e, {0x8a, 0x11, 0, 0, 0, 0, 0, 1}};
constexpr LONG ourContext = 0x0200002B;

struct Added {
    GUID instance, writer;
    VSS_COMPONENT_TYPE type;
    std::wstring path, name;
};

IVssBackupComponents *vss;
std::vector<Added> added;
GUID snapshotId;

// finish waits for the work's end; cancelMs cancels it after that time, -1 never.
HRESULT finish(IVssAsync *work, int cancelMs = -1) {
    if (work == nullptr) {
        return E_POINTER;
    }
    if (cancelMs >= 0) {
        work->Wait((DWORD)cancelMs);
        work->Cancel();
    }
    HRESULT result = VSS_S_ASYNC_PENDING;
    while (result == VSS_S_ASYNC_PENDING) {
        work->Wait(10);
        work->QueryStatus(&result, nullptr);
    }
    work->Release();
    return result;
}

using Begin = HRESULT (STDMETHODCALLTYPE IVssBackupComponents::*)(IVssAsync **);

HRESULT work(Begin begin, int cancelMs = -1) {
    IVssAsync *async = nullptr;
    HRESULT hr = (vss->*begin)(&async);
    return FAILED(hr) ? hr : finish(async, cancelMs);
}

// addWriter adds what may be added of one writer: selectable components, and a writer's only one.
void addWriter(IVssExamineWriterMetadata *writer) {
    GUID instance, id;
    BSTR name = nullptr;
    VSS_USAGE_TYPE usage;
    VSS_SOURCE_TYPE source;
    UINT includes = 0, excludes = 0, components = 0;
    writer->GetIdentity(&instance, &id, &name, &usage, &source);
    SysFreeString(name);
    writer->GetFileCounts(&includes, &excludes, &components);
    for (UINT i = 0; i < components; i++) {
        IVssWMComponent *component = nullptr;
        PVSSCOMPONENTINFO info = nullptr;
        if (FAILED(writer->GetComponent(i, &component))) {
            continue;
        }
        if (SUCCEEDED(component->GetComponentInfo(&info))) {
            Added a{instance, id, info->type, info->bstrLogicalPath ? info->bstrLogicalPath : L"", info->bstrComponentName};
            bool wanted = info->bSelectable || components == 1;
            component->FreeComponentInfo(info);
            if (wanted && SUCCEEDED(vss->AddComponent(a.instance, a.writer, a.type, a.path.c_str(), a.name.c_str()))) {
                added.push_back(a);
            }
        }
        component->Release();
    }
}

HRESULT addComponents() {
    UINT count = 0;
    HRESULT hr = vss->GetWriterMetadataCount(&count);
    for (UINT i = 0; i < count; i++) {
        GUID instance;
        IVssExamineWriterMetadata *writer = nullptr;
        if (SUCCEEDED(vss->GetWriterMetadata(i, &instance, &writer))) {
            addWriter(writer);
            writer->Release();
        }
    }
    std::printf("components-added %u\n", (unsigned)added.size());
    return hr;
}

HRESULT addVolume(const GUID &provider) {
    std::wstring mount = wide(environment("LAB_OTHER_VOLUME", "C:\\"));
    wchar_t volume[64] = {};
    if (!GetVolumeNameForVolumeMountPointW(mount.c_str(), volume, 64)) {
        return HRESULT_FROM_WIN32(GetLastError());
    }
    return vss->AddToSnapshotSet(volume, provider, &snapshotId);
}

HRESULT printStatus() {
    HRESULT hr = work(&IVssBackupComponents::GatherWriterStatus);
    UINT count = 0;
    vss->GetWriterStatusCount(&count);
    for (UINT i = 0; i < count; i++) {
        GUID instance, id;
        BSTR name = nullptr;
        VSS_WRITER_STATE state;
        HRESULT failure = 0;
        if (SUCCEEDED(vss->GetWriterStatus(i, &instance, &id, &name, &state, &failure))) {
            std::printf("writer %s state %d %s\n", narrow(name).c_str(), state, hresultText(failure).c_str());
            SysFreeString(name);
        }
    }
    vss->FreeWriterStatus();
    return hr;
}

HRESULT setSucceeded(bool good) {
    HRESULT hr = S_OK;
    for (const Added &a : added) {
        HRESULT one = vss->SetBackupSucceeded(a.instance, a.writer, a.type, a.path.c_str(), a.name.c_str(), good);
        hr = FAILED(one) ? one : hr;
    }
    return hr;
}

HRESULT startSet() {
    GUID set;
    return vss->StartSnapshotSet(&set);
}

HRESULT setContext(LONG context) { return vss->SetContext(context); }

HRESULT release() {
    vss->Release();
    vss = nullptr;
    added.clear();
    return CreateVssBackupComponentsInternal(&vss);
}

HRESULT step(const std::string &word, int ms) {
    using B = IVssBackupComponents;
    if (word == "init") return vss->InitializeForBackup(nullptr);
    if (word == "state") return vss->SetBackupState(TRUE, FALSE, VSS_BT_COPY, FALSE);
    if (word == "full") return vss->SetBackupState(TRUE, FALSE, VSS_BT_FULL, FALSE);
    if (word == "context") return setContext(ourContext);
    if (word == "clientcontext") return setContext(ourContext & ~VSS_VOLSNAP_ATTR_TRANSPORTABLE);
    if (word == "metadata") return work(&B::GatherWriterMetadata);
    if (word == "components") return addComponents();
    if (word == "set") return startSet();
    if (word == "volume") return addVolume(selfProviderId);
    if (word == "anyvolume") return addVolume(GUID{});
    if (word == "prepare") return work(&B::PrepareForBackup);
    if (word == "status") return printStatus();
    if (word == "do") return work(&B::DoSnapshotSet);
    if (word == "cancel") return work(&B::DoSnapshotSet, ms);
    if (word == "succeeded") return setSucceeded(true);
    if (word == "failed") return setSucceeded(false);
    if (word == "complete") return work(&B::BackupComplete);
    if (word == "freemetadata") return vss->FreeWriterMetadata();
    if (word == "abort") return vss->AbortBackup();
    if (word == "release") return release();
    if (word == "sleep") return Sleep((DWORD)ms), S_OK;
    return E_INVALIDARG;
}

bool isOtherBackup(const std::string &program) {
    size_t slash = program.find_last_of("\\/");
    return lower(program.substr(slash + 1)).rfind("otherbackup", 0) == 0;
}

int run(const std::vector<std::string> &words) {
    HRESULT hr = CreateVssBackupComponentsInternal(&vss);
    std::printf("create %s\n", hresultText(hr).c_str());
    if (FAILED(hr)) {
        return 1;
    }
    for (const std::string &whole : words) {
        size_t colon = whole.find(':');
        hr = step(whole.substr(0, colon), colon == std::string::npos ? 0 : std::stoi(whole.substr(colon + 1)));
        std::printf("%s %s\n", whole.c_str(), hresultText(hr).c_str());
        std::fflush(stdout);
    }
    vss->Release();
    return 0;
}

}  // namespace

int main(int count, char **words) {
    CoInitializeEx(nullptr, COINIT_MULTITHREADED);
    std::vector<std::string> steps(words + 1, words + count);
    if (isOtherBackup(words[0])) {
        steps = {"init", "state", "metadata", "components", "set", "anyvolume", "abort"};
    }
    int exit = run(steps);
    CoUninitialize();
    return exit;
}
