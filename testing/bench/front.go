package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/vpx"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// front is a vCenter that knows nothing but snapshot tasks and the property collectors that watch them. The simulator looks at
// every collector every 20 ms, so that hundreds of them at once take both processors for themselves; this one looks at nothing
// until a task ends.
type front struct {
	mu         sync.Mutex
	last       int // number of the last object made
	tasks      map[string]types.TaskInfo
	collectors map[string]*collector
}

// collector is one property collector.
type collector struct {
	// news are tasks whose state is to be told; wake has an element when there are some, or when a wait is cancelled.
	news []string
	wake chan struct{}
	// watched are the tasks that a filter is on.
	watched map[string]bool
}

// newFront starts one.
func newFront() *httptest.Server {
	return httptest.NewTLSServer(&front{tasks: map[string]types.TaskInfo{}, collectors: map[string]*collector{}})
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	call, err := simulator.UnmarshalBody(types.TypeFunc(), body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := f.answer(r, call.This.Value, call.Body)
	if answer == nil {
		http.Error(w, fmt.Sprintf("the bench's vCenter does not know %T", call.Body), http.StatusNotImplemented)
		return
	}
	if err := xml.NewEncoder(w).Encode(soap.Envelope{Body: answer}); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// answer is nil for a method that it does not know.
func (f *front) answer(r *http.Request, this string, call any) any {
	switch call := call.(type) {
	case *types.RetrieveServiceContent:
		return &methods.RetrieveServiceContentBody{Res: &types.RetrieveServiceContentResponse{Returnval: vpx.ServiceContent}}
	case *types.Login:
		return &methods.LoginBody{Res: &types.LoginResponse{Returnval: types.UserSession{Key: "bench", UserName: call.UserName}}}
	case *types.Logout:
		return &methods.LogoutBody{Res: &types.LogoutResponse{}}
	case *types.CurrentTime:
		return &methods.CurrentTimeBody{Res: &types.CurrentTimeResponse{Returnval: time.Now()}}
	case *types.CreatePropertyCollector:
		return &methods.CreatePropertyCollectorBody{Res: &types.CreatePropertyCollectorResponse{Returnval: f.newCollector()}}
	case *types.DestroyPropertyCollector:
		return &methods.DestroyPropertyCollectorBody{Res: &types.DestroyPropertyCollectorResponse{}}
	case *types.CreateFilter:
		f.watch(this, call.Spec.ObjectSet[0].Obj)
		return &methods.CreateFilterBody{Res: &types.CreateFilterResponse{Returnval: types.ManagedObjectReference{Type: "PropertyFilter", Value: "filter"}}}
	case *types.CancelWaitForUpdates:
		f.of(this).stir()
		return &methods.CancelWaitForUpdatesBody{Res: &types.CancelWaitForUpdatesResponse{}}
	case *types.WaitForUpdatesEx:
		return &methods.WaitForUpdatesExBody{Res: &types.WaitForUpdatesExResponse{Returnval: f.wait(r, this, call)}}
	case *types.CreateSnapshotEx_Task:
		return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: f.newTask()}}
	case *types.RetrievePropertiesEx:
		return &methods.RetrievePropertiesExBody{Res: &types.RetrievePropertiesExResponse{Returnval: f.read(call.SpecSet[0].ObjectSet[0].Obj)}}
	}
	return nil
}

// number is that of a new object. The caller holds mu.
func (f *front) number() string {
	f.last++
	return strconv.Itoa(f.last)
}

func (f *front) newCollector() types.ManagedObjectReference {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := "collector-" + f.number()
	f.collectors[name] = &collector{wake: make(chan struct{}, 1), watched: map[string]bool{}}
	return types.ManagedObjectReference{Type: "PropertyCollector", Value: name}
}

func (f *front) of(name string) *collector {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.collectors[name]
}

// stir ends a wait, the present or the next one.
func (c *collector) stir() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// watch has a collector tell of an object, at once and when it changes.
func (f *front) watch(name string, of types.ManagedObjectReference) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.collectors[name]
	c.watched[of.Value] = true
	c.news = append(c.news, of.Value)
	c.stir()
}

// newTask begins a snapshot, which is there after peersTask.
func (f *front) newTask() types.ManagedObjectReference {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, name := time.Now(), "task-"+f.number()
	f.tasks[name] = types.TaskInfo{State: types.TaskInfoStateRunning, QueueTime: now, StartTime: &now}
	time.AfterFunc(peersTask, func() { f.end(name) })
	return types.ManagedObjectReference{Type: "Task", Value: name}
}

func (f *front) end(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, info := time.Now(), f.tasks[name]
	info.State, info.CompleteTime = types.TaskInfoStateSuccess, &now
	info.Result = types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: "snapshot-" + f.number()}
	f.tasks[name] = info
	for _, c := range f.collectors {
		if c.watched[name] {
			c.news = append(c.news, name)
			c.stir()
		}
	}
}

// wait is a long poll; nil when there was no news, which an empty answer says.
func (f *front) wait(r *http.Request, name string, call *types.WaitForUpdatesEx) *types.UpdateSet {
	c, limit := f.of(name), waitLimit
	if o := call.Options; o != nil && o.MaxWaitSeconds != nil {
		limit = time.Duration(*o.MaxWaitSeconds) * time.Second
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.wake:
	case <-timer.C:
	case <-r.Context().Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(c.news) == 0 {
		return nil
	}
	set := types.UpdateSet{Version: f.number()}
	for _, object := range c.news {
		set.FilterSet = append(set.FilterSet, types.PropertyFilterUpdate{ObjectSet: []types.ObjectUpdate{f.update(object)}})
	}
	c.news = nil
	return &set
}

// update tells how a task stands; of anything else only that it is there. The caller holds mu.
func (f *front) update(object string) types.ObjectUpdate {
	u := types.ObjectUpdate{Kind: types.ObjectUpdateKindModify, Obj: types.ManagedObjectReference{Type: "ServiceInstance", Value: object}}
	if !strings.HasPrefix(object, "task-") {
		return u
	}
	u.Obj.Type = "Task"
	info := f.tasks[object]
	add := func(name string, v any) {
		u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: "info." + name, Op: types.PropertyChangeOpAssign, Val: v})
	}
	add("state", info.State)
	add("queueTime", info.QueueTime)
	add("startTime", *info.StartTime)
	if info.CompleteTime != nil {
		add("completeTime", *info.CompleteTime)
		add("result", info.Result)
	}
	return u
}

// read answers for a task's info.
func (f *front) read(of types.ManagedObjectReference) *types.RetrieveResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &types.RetrieveResult{Objects: []types.ObjectContent{{Obj: of, PropSet: []types.DynamicProperty{{Name: "info", Val: f.tasks[of.Value]}}}}}
}
