/* Included before widl's output. rpcproxy.h must not be: read too early it loses USE_STUBLESS_PROXY, and every call is then
   refused with 0x80004002. What it would have declared of IUnknown stands here. */
#include <windows.h>

#include <unknwn.h>

HRESULT __stdcall IUnknown_QueryInterface_Proxy(IUnknown *self, REFIID iid, void **out);
ULONG __stdcall IUnknown_AddRef_Proxy(IUnknown *self);
ULONG __stdcall IUnknown_Release_Proxy(IUnknown *self);
