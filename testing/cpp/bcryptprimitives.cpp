// bcryptprimitives.dll gives Go 1.26 the one function it cannot start without on Wine 8.0.
//
// Credible for: random bytes. Never emulates: anything else of the real library.
#include <windows.h>

#include <ntsecapi.h>

extern "C" BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) {
    return size <= MAXDWORD && RtlGenRandom(data, (ULONG)size);
}
