//go:build !failpoint || !unix

// Package failpoint ends this process at a chosen point of its code, in builds tagged failpoint alone.
//
// In every other build its functions are empty and nothing of them is left in the program. In one that is tagged,
// STILLFRAME_FAILPOINT=name[#n]=kill|stop says where: at the n-th passing of the point, the first one when n is not given, the
// process sends itself SIGKILL, so that not even a deferred call runs, or SIGSTOP. STILLFRAME_FAILPOINT_TRACE names a file to
// which each point's name is appended when it is passed.
package failpoint

// Before is the point right before a step of the given kind is made, After the one right after it. Their names are the kind, a
// dash between the words of what, and "before" or "after", with dots between them; what is a text or a request of vSphere.
func Before(kind string, what any) {}

// After is the point right after what Before announced, whether it went well or not.
func After(kind string, what any) {}
