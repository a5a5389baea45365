#include <objbase.h>

#include <chrono>

#include "session.h"
#include "text.h"

using namespace std::chrono_literals;

bool Session::busy() {
    std::lock_guard<std::mutex> guard(operationLock);
    return operationRuns;
}

// run starts work on a thread of its own; its end is seen by poll.
Message Session::run(const std::string &name, Work work) {
    if (operation.joinable()) {
        operation.join();
    }
    operationName = name;
    operationRuns = true;
    stop = false;
    operation = std::thread([this, name, work = std::move(work)] {
        CoInitializeEx(nullptr, COINIT_MULTITHREADED);
        HRESULT hr = work();
        if (SUCCEEDED(hr)) {
            hr = stop ? VSS_S_ASYNC_CANCELLED : VSS_S_ASYNC_FINISHED;
        }
        trace.mark("async", name, {{"hr", hresultText(hr)}});
        CoUninitialize();
        std::lock_guard<std::mutex> guard(operationLock);
        operationResult = hr;
        operationRuns = false;
        operationEnd.notify_all();
    });
    return answer(S_OK);
}

// poll waits at most the milliseconds asked for and says how the work stands.
Message Session::poll(const Message &r) {
    std::unique_lock<std::mutex> guard(operationLock);
    operationEnd.wait_for(guard, std::chrono::milliseconds(std::stoul(r.at(1))), [this] { return !operationRuns; });
    return answer(S_OK, {hresultText(operationRuns ? VSS_S_ASYNC_PENDING : operationResult)});
}

// cancel is a wish: what is already inside a provider goes on to its end.
Message Session::cancel() {
    std::lock_guard<std::mutex> guard(operationLock);
    if (!operationRuns) {
        return answer(operationResult);
    }
    stop = true;
    return answer(S_OK);
}

void Session::pause(int ms) {
    std::unique_lock<std::mutex> guard(operationLock);
    auto stopped = [this] { return stop.load(); };
    while (ms < 0 && !stopped()) {
        operationEnd.wait_for(guard, 10ms, stopped);
    }
    double until = nowMs() + ms;
    while (ms >= 0 && nowMs() < until && !stopped()) {
        operationEnd.wait_for(guard, 5ms, stopped);
    }
}

namespace {

// after does what a plan says when its step has been entered, on a thread that nobody waits for: it ends a process.
void after(const StepPlan &plan, const std::string &step, const std::function<void()> &act) {
    if (plan.step == step) {
        std::thread([ms = plan.ms, act] {
            std::this_thread::sleep_for(std::chrono::milliseconds(ms));
            act();
        }).detach();
    }
}

void endProcess(DWORD pid) {
    HANDLE process = OpenProcess(PROCESS_TERMINATE, FALSE, pid);
    if (process != nullptr) {
        TerminateProcess(process, 1);
        CloseHandle(process);
    }
}

}  // namespace

std::atomic<bool> serviceFrozen{false};

bool Session::step(const std::string &name) {
    trace.mark("coordinator", name, {});
    after(config.exitAt, name, [trace = trace] {
        trace.mark("coordinator", "exit", {});
        TerminateProcess(GetCurrentProcess(), 1);
    });
    after(config.killRequestorAt, name, [pid = requestorPid] { endProcess(pid); });
    after(config.freezeServiceAt, name, [] { serviceFrozen = true; });
    auto delay = config.stepDelayMs.find(name);
    if (delay != config.stepDelayMs.end()) {
        pause(delay->second);
    }
    return !stop;
}
