// Session is one backup as VSS sees it: the strict order of calls, the writers, the providers, the hold. vssapi.dll speaks to
// it through a Link; it runs in fakevssvc.exe, or in the requestor's own process where the config says so.
//
// Credible for: call order, VSS_E_BAD_STATE, one set at a time, which callbacks come when and how long they may take, what
// becomes of everybody when somebody dies. Never emulates: real flushing or held writes, COM security, XML documents, restores.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "config.h"
#include "coordinator.h"
#include "eventlog.h"
#include "message.h"
#include "provider.h"
#include "trace.h"
#include "writers.h"

class Beside;

class Session {
public:
    Session(Config config, Trace trace, EventLog events, DWORD requestorPid);
    // The requestor let go of its object, or died.
    ~Session();
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    Message handle(const Message &request);

private:
    enum class Stage { created, initialized, setStarted, prepared, snapshotted, failed, completed, aborted };

    struct Volume {
        std::string name;
        GUID snapshot;
        std::shared_ptr<Provider> provider;
    };
    struct Component {
        GUID instance, writer;
        int type;
        std::string logicalPath, name;
        bool succeeded = false;
        bool is(const Component &other) const;
    };
    using Work = std::function<HRESULT()>;

    // setup.cpp: what is said before the snapshot.
    Message initialize();
    Message setState(const Message &r);
    Message setContext(const Message &r);
    Message disableClasses(const Message &r, bool yes);
    Message gatherMetadata();
    Message metadata();
    Message freeMetadata();
    Message addComponent(const Message &r);
    Message startSet();
    Message addVolume(const Message &r);
    Message isVolumeSupported(const Message &r);
    HRESULT chooseProvider(const GUID &id, const std::string &volume, std::shared_ptr<Provider> &chosen);
    HRESULT loadProvider(const ProviderRecord &record, std::shared_ptr<Provider> &loaded);
    const ComponentPlan *findComponent(const Component &c) const;

    // snapshot.cpp: from PrepareForBackup to the thaw.
    Message prepare();
    Message snapshot();
    HRESULT makeSnapshot();
    HRESULT freezeAndCommit(Beside &beside);
    HRESULT flush();
    HRESULT commitUnderHold(Beside &beside);
    HRESULT finalCommit();
    HRESULT undo(HRESULT why);
    void abortProviders();
    HRESULT eachProvider(const std::function<HRESULT(Provider &)> &call);
    Message snapshotProperties(const Message &r);

    // finish.cpp: what comes afterwards.
    Message gatherStatus();
    Message status();
    Message freeStatus();
    Message setSucceeded(const Message &r);
    Message complete();
    Message abort();
    void closeSession();
    void truncate();

    // operation.cpp: asynchronous work and planned faults.
    Message run(const std::string &name, Work work);
    Message poll(const Message &r);
    Message cancel();
    bool busy();
    // step marks the entry into a step and lets its planned faults happen; false when the work was cancelled meanwhile.
    bool step(const std::string &name);
    void pause(int ms);

    Config config;
    Trace trace;
    EventLog events;
    DWORD requestorPid;
    Writers writers;
    Stage stage = Stage::created;
    bool stateSet = false, selectsComponents = false, contextSet = false;
    bool metadataGathered = false, metadataFreed = false, statusGathered = false;
    bool sessionOpen = false, completeSaid = false;
    std::atomic<bool> providersPrepared{false};
    int backupType = 0;
    LONG context = 0;
    GUID set{};
    std::vector<Volume> volumes;
    std::vector<std::shared_ptr<Provider>> providers;
    std::vector<Component> components;

    std::mutex operationLock;
    std::condition_variable operationEnd;
    std::thread operation;
    std::string operationName;
    bool operationRuns = false;
    HRESULT operationResult = 0;
    std::atomic<bool> stop{false};
};

Message answer(HRESULT hr, const Message &fields = {});

// serviceFrozen is set by the plan that lets the whole service answer no more.
extern std::atomic<bool> serviceFrozen;
