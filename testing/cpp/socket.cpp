#include "socket.h"

#include "text.h"

namespace {

std::string escaped(const std::string &s) {
    std::string out;
    for (char c : s) {
        switch (c) {
        case '\\': out += "\\\\"; break;
        case '\n': out += "\\n"; break;
        case '\t': out += "\\t"; break;
        default: out += c;
        }
    }
    return out;
}

std::string unescaped(const std::string &s) {
    std::string out;
    for (size_t i = 0; i < s.size(); i++) {
        if (s[i] != '\\' || i + 1 == s.size()) {
            out += s[i];
            continue;
        }
        char c = s[++i];
        out += c == 'n' ? '\n' : c == 't' ? '\t' : c;
    }
    return out;
}

sockaddr_in localAddress(unsigned short port) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

}  // namespace

Socket::~Socket() {
    closesocket(handle);
    if (peer != nullptr) {
        CloseHandle(peer);
    }
}

void Socket::setPeer(DWORD pid) { peer = OpenProcess(SYNCHRONIZE, FALSE, pid); }

bool Socket::readable() const {
    for (;;) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(handle, &ready);
        timeval look{0, 200000};
        if (select(0, &ready, nullptr, nullptr, &look) != 0) {
            return true;
        }
        if (peer != nullptr && WaitForSingleObject(peer, 0) == WAIT_OBJECT_0) {
            return false;
        }
    }
}

bool Socket::startSockets() {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
}

SOCKET Socket::listenLocal(unsigned short &port) {
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in a = localAddress(0);
    int size = sizeof a;
    auto *address = reinterpret_cast<sockaddr *>(&a);
    if (s == INVALID_SOCKET || bind(s, address, size) != 0 || listen(s, 16) != 0 || getsockname(s, address, &size) != 0) {
        return INVALID_SOCKET;
    }
    port = ntohs(a.sin_port);
    return s;
}

SOCKET Socket::connectLocal(unsigned short port) {
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in a = localAddress(port);
    if (s != INVALID_SOCKET && connect(s, reinterpret_cast<sockaddr *>(&a), sizeof a) != 0) {
        closesocket(s);
        return INVALID_SOCKET;
    }
    BOOL yes = TRUE;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<const char *>(&yes), sizeof yes);
    return s;
}

bool Socket::send(const Message &m) {
    std::string line;
    for (const std::string &field : m) {
        line += (line.empty() ? "" : "\t") + escaped(field);
    }
    line += '\n';
    for (size_t at = 0; at < line.size();) {
        int n = ::send(handle, line.data() + at, (int)(line.size() - at), 0);
        if (n <= 0) {
            return false;
        }
        at += (size_t)n;
    }
    return true;
}

bool Socket::receive(Message &m) {
    size_t end;
    while ((end = buffered.find('\n')) == std::string::npos) {
        char block[4096];
        int n = readable() ? recv(handle, block, sizeof block, 0) : 0;
        if (n <= 0) {
            return false;
        }
        buffered.append(block, (size_t)n);
    }
    m.clear();
    for (const std::string &field : split(buffered.substr(0, end), '\t')) {
        m.push_back(unescaped(field));
    }
    buffered.erase(0, end + 1);
    return true;
}
