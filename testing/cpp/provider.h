// Provider is one loaded snapshot provider as the coordinator drives it: every call is traced, and what it answers is turned
// into what VSS would make of it.
#pragma once

#include <windows.h>

#include <vsprov.h>

#include <memory>
#include <string>

#include "config.h"
#include "providers.h"
#include "trace.h"

class Provider {
public:
    // load activates the provider and calls OnLoad and SetContext. The system provider is none of COM.
    static HRESULT load(const ProviderRecord &record, const Config &config, const Trace &trace, LONG context, std::shared_ptr<Provider> &loaded);
    ~Provider();
    Provider(const Provider &) = delete;
    Provider &operator=(const Provider &) = delete;

    const ProviderRecord &record() const { return about; }

    HRESULT isVolumeSupported(const std::string &volume, bool &supported);
    HRESULT beginPrepare(const GUID &set, const GUID &snapshot, const std::string &volume, LONG context);
    HRESULT endPrepare(const GUID &set);
    HRESULT preCommit(const GUID &set);
    HRESULT commit(const GUID &set);
    HRESULT postCommit(const GUID &set, LONG count);
    HRESULT preFinalCommit(const GUID &set);
    HRESULT postFinalCommit(const GUID &set);
    // abort may come while another call is still inside the provider.
    HRESULT abort(const GUID &set);
    HRESULT snapshotProperties(const GUID &snapshot, VSS_SNAPSHOT_PROP &properties);

private:
    Provider(ProviderRecord record, const Config &config, const Trace &trace) : about(std::move(record)), config(config), trace(trace) {}

    HRESULT activate();
    // called traces what the named method answered and translates it.
    HRESULT called(const char *method, HRESULT raw) const;
    template <class Call>
    HRESULT drive(const char *method, const Fields &fields, Call call);

    ProviderRecord about;
    const Config &config;
    const Trace &trace;
    IVssSoftwareSnapshotProvider *software = nullptr;
    IVssProviderCreateSnapshotSet *sets = nullptr;
    IVssProviderNotifications *notifications = nullptr;
};
