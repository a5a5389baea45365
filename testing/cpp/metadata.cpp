#include "metadata.h"

#include "text.h"
#include "comobject.h"

namespace {

BSTR bstr(const std::string &s) {
    std::wstring w = wide(s);
    return SysAllocStringLen(w.data(), (UINT)w.size());
}

// optional is NULL for an empty text, as VSS has it.
BSTR optional(const std::string &s) { return s.empty() ? nullptr : bstr(s); }

class FileDescription : public ComObject<IVssWMFiledesc> {
public:
    explicit FileDescription(FilePlan plan) : plan(std::move(plan)) {}

    HRESULT STDMETHODCALLTYPE GetPath(BSTR *out) override { return *out = bstr(plan.path), S_OK; }
    HRESULT STDMETHODCALLTYPE GetFilespec(BSTR *out) override { return *out = bstr(plan.spec), S_OK; }
    HRESULT STDMETHODCALLTYPE GetRecursive(boolean *out) override { return *out = plan.recursive, S_OK; }
    HRESULT STDMETHODCALLTYPE GetAlternateLocation(BSTR *out) override { return *out = nullptr, S_FALSE; }
    HRESULT STDMETHODCALLTYPE GetBackupTypeMask(DWORD *out) override { return *out = 0xf0f, S_OK; }

private:
    bool answers(REFIID) const override { return false; }

    FilePlan plan;
};

class Component : public ComObject<IVssWMComponent> {
public:
    Component(std::shared_ptr<const Config> config, const ComponentPlan &plan) : config(std::move(config)), plan(plan) {}

    HRESULT STDMETHODCALLTYPE GetComponentInfo(PVSSCOMPONENTINFO *out) override {
        auto *info = static_cast<VSS_COMPONENTINFO *>(CoTaskMemAlloc(sizeof(VSS_COMPONENTINFO)));
        if (info == nullptr) {
            return E_OUTOFMEMORY;
        }
        *info = {};
        info->type = (VSS_COMPONENT_TYPE)plan.type;
        info->bstrLogicalPath = optional(plan.logicalPath);
        info->bstrComponentName = bstr(plan.name);
        info->bstrCaption = optional(plan.name);
        info->bNotifyOnBackupComplete = TRUE;
        info->bSelectable = plan.selectable;
        info->bSelectableForRestore = TRUE;
        (plan.type == VSS_CT_DATABASE ? info->cDatabases : info->cFileCount) = (UINT)plan.files.size();
        *out = info;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE FreeComponentInfo(PVSSCOMPONENTINFO info) override {
        SysFreeString(info->bstrLogicalPath);
        SysFreeString(info->bstrComponentName);
        SysFreeString(info->bstrCaption);
        CoTaskMemFree(const_cast<VSS_COMPONENTINFO *>(info));
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetFile(UINT i, IVssWMFiledesc **out) override { return file(VSS_CT_FILEGROUP, i, out); }
    HRESULT STDMETHODCALLTYPE GetDatabaseFile(UINT i, IVssWMFiledesc **out) override { return file(VSS_CT_DATABASE, i, out); }
    HRESULT STDMETHODCALLTYPE GetDatabaseLogFile(UINT, IVssWMFiledesc **out) override { return *out = nullptr, VSS_E_OBJECT_NOT_FOUND; }
    HRESULT STDMETHODCALLTYPE GetDependency(UINT, IVssWMDependency **out) override { return *out = nullptr, VSS_E_OBJECT_NOT_FOUND; }

private:
    bool answers(REFIID) const override { return false; }

    HRESULT file(int type, UINT i, IVssWMFiledesc **out) {
        *out = nullptr;
        if (plan.type != type || i >= plan.files.size()) {
            return VSS_E_OBJECT_NOT_FOUND;
        }
        *out = new FileDescription(plan.files[i]);
        return S_OK;
    }

    std::shared_ptr<const Config> config;
    const ComponentPlan &plan;
};

class Writer : public ComObject<IVssExamineWriterMetadataEx> {
public:
    Writer(std::shared_ptr<const Config> config, const WriterPlan &plan) : config(std::move(config)), plan(plan) {}

    HRESULT STDMETHODCALLTYPE GetIdentity(VSS_ID *instance, VSS_ID *writer, BSTR *name, VSS_USAGE_TYPE *usage, VSS_SOURCE_TYPE *source) override {
        *instance = plan.instanceId;
        *writer = plan.classId;
        *name = bstr(plan.name);
        *usage = (VSS_USAGE_TYPE)plan.usage;
        *source = (VSS_SOURCE_TYPE)plan.source;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetIdentityEx(VSS_ID *instance, VSS_ID *writer, BSTR *name, BSTR *instanceName, VSS_USAGE_TYPE *usage,
                                            VSS_SOURCE_TYPE *source) override {
        *instanceName = optional(plan.instanceName);
        return GetIdentity(instance, writer, name, usage, source);
    }
    HRESULT STDMETHODCALLTYPE GetFileCounts(UINT *includes, UINT *excludes, UINT *components) override {
        *includes = *excludes = 0;
        *components = (UINT)plan.components.size();
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetIncludeFile(UINT, IVssWMFiledesc **out) override { return *out = nullptr, VSS_E_OBJECT_NOT_FOUND; }
    HRESULT STDMETHODCALLTYPE GetExcludeFile(UINT, IVssWMFiledesc **out) override { return *out = nullptr, VSS_E_OBJECT_NOT_FOUND; }
    HRESULT STDMETHODCALLTYPE GetComponent(UINT i, IVssWMComponent **out) override {
        *out = nullptr;
        if (i >= plan.components.size()) {
            return VSS_E_OBJECT_NOT_FOUND;
        }
        *out = new Component(config, plan.components[i]);
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetRestoreMethod(VSS_RESTOREMETHOD_ENUM *method, BSTR *service, BSTR *procedure, VSS_WRITERRESTORE_ENUM *restore,
                                               boolean *reboot, UINT *mappings) override {
        *method = VSS_RME_RESTORE_IF_NOT_THERE;
        *service = *procedure = nullptr;
        *restore = VSS_WRE_NEVER;
        *reboot = FALSE;
        *mappings = 0;
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE GetAlternateLocationMapping(UINT, IVssWMFiledesc **out) override { return *out = nullptr, VSS_E_OBJECT_NOT_FOUND; }
    HRESULT STDMETHODCALLTYPE GetBackupSchema(DWORD *out) override { return *out = VSS_BS_COPY, S_OK; }
    HRESULT STDMETHODCALLTYPE GetDocument(IXMLDOMDocument **out) override { return *out = nullptr, E_NOTIMPL; }
    HRESULT STDMETHODCALLTYPE SaveAsXML(BSTR *out) override {
        *out = bstr("<WRITER_METADATA><IDENTIFICATION writerId=\"" + guidText(plan.classId) + "\"/></WRITER_METADATA>");
        return S_OK;
    }
    HRESULT STDMETHODCALLTYPE LoadFromXML(BSTR) override { return E_NOTIMPL; }

private:
    bool answers(REFIID wanted) const override {
        return wanted == __uuidof(IVssExamineWriterMetadata) || wanted == __uuidof(IVssExamineWriterMetadataEx);
    }

    std::shared_ptr<const Config> config;
    const WriterPlan &plan;
};

}  // namespace

IVssExamineWriterMetadataEx *newWriterMetadata(std::shared_ptr<const Config> config, const WriterPlan &writer) {
    return new Writer(std::move(config), writer);
}
