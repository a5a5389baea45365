package provider

import (
	"unsafe"

	"github.com/stillframe/stillframe/pkg/agent/com"
	"github.com/stillframe/stillframe/pkg/agent/vsscode"
)

// createSetMethods are those of IVssProviderCreateSnapshotSet, in the order of vsprov.h, after IUnknown's.
func createSetMethods() [createSetSlots - 3]any {
	return [...]any{
		endPrepareSnapshots, preCommitSnapshots, commitSnapshots, postCommitSnapshots, preFinalCommitSnapshots,
		postFinalCommitSnapshots, abortSnapshots,
	}
}

func endPrepareSnapshots(_ *face, set *com.GUID) uintptr {
	return answer("EndPrepareSnapshots", func(p *Provider) vsscode.HRESULT {
		return p.inSet(*set, "EndPrepareSnapshots", (*Set).endPrepare)
	})
}

// preCommitSnapshots does not return while the guest is held, in mode Writer.
func preCommitSnapshots(_ *face, set *com.GUID) uintptr {
	return answer("PreCommitSnapshots", func(p *Provider) vsscode.HRESULT {
		return p.inSet(*set, "PreCommitSnapshots", (*Set).preCommit)
	})
}

// commitSnapshots does not return while the guest is held, in mode IO.
func commitSnapshots(_ *face, set *com.GUID) uintptr {
	return answer("CommitSnapshots", func(p *Provider) vsscode.HRESULT {
		return p.inSet(*set, "CommitSnapshots", (*Set).commit)
	})
}

func postCommitSnapshots(_ *face, set *com.GUID, count int32) uintptr {
	return answer("PostCommitSnapshots", func(p *Provider) vsscode.HRESULT {
		return p.inSet(*set, "PostCommitSnapshots", func(s *Set) vsscode.HRESULT { return s.postCommit(int(count)) })
	})
}

// preFinalCommitSnapshots and postFinalCommitSnapshots come with auto-recovery only, which our contexts exclude.
func preFinalCommitSnapshots(*face, *com.GUID) uintptr { return uintptr(vsscode.S_OK) }

func postFinalCommitSnapshots(*face, *com.GUID) uintptr { return uintptr(vsscode.S_OK) }

// abortSnapshots is never refused: a set that is gone already has nothing left to abort.
func abortSnapshots(_ *face, set *com.GUID) uintptr {
	return answer("AbortSnapshots", func(p *Provider) vsscode.HRESULT {
		if s := p.armed(*set); s != nil {
			return p.answer("AbortSnapshots", s.abort())
		}
		return p.answer("AbortSnapshots of another set", vsscode.S_OK)
	})
}

func onLoad(_ *face, _ unsafe.Pointer) uintptr {
	return answer("OnLoad", func(p *Provider) vsscode.HRESULT { return p.answer("OnLoad", vsscode.S_OK) })
}

func onUnload(_ *face, _ int32) uintptr {
	return answer("OnUnload", func(p *Provider) vsscode.HRESULT { return p.answer("OnUnload", vsscode.S_OK) })
}

func enumNext(_ *face, _ uint32, _ unsafe.Pointer, fetched *uint32) uintptr {
	if fetched != nil {
		*fetched = 0
	}
	return uintptr(vsscode.S_FALSE)
}

func enumSkip(*face, uint32) uintptr { return uintptr(vsscode.S_FALSE) }

func enumReset(*face) uintptr { return uintptr(vsscode.S_OK) }

func enumClone(_ *face, out **face) uintptr { return give(&enum, out) }
