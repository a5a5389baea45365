// Socket carries messages over TCP on 127.0.0.1, the one thing between processes that works well in Wine: a line a message,
// its fields parted by tabs.
#pragma once

#include <winsock2.h>

#include <string>

#include "message.h"

class Socket {
public:
    explicit Socket(SOCKET handle) : handle(handle) {}
    ~Socket();
    Socket(const Socket &) = delete;
    Socket &operator=(const Socket &) = delete;

    // startSockets must have succeeded once in this process before any other use.
    static bool startSockets();
    // listenLocal answers INVALID_SOCKET or a listening socket and its port.
    static SOCKET listenLocal(unsigned short &port);
    static SOCKET connectLocal(unsigned short port);

    // setPeer names the process at the other end. Its death ends a receive, too: Wine may leak a socket into a program that
    // the dead one had started, and then the connection stays open.
    void setPeer(DWORD pid);

    bool send(const Message &m);
    bool receive(Message &m);

private:
    // readable waits until there is something to read, an end included; false when the peer died.
    bool readable() const;

    SOCKET handle;
    HANDLE peer = nullptr;
    std::string buffered;
};
