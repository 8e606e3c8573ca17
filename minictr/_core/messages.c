/* sendmsg(2) and recvmsg(2) of one packet, with descriptors (unix(7) SCM_RIGHTS). */
#include "machine.h"

#define MC_MAX_RIGHTS 4
#define MC_MSG_CMSG_CLOEXEC 0x40000000

struct mc_rights {
    size_t length;
    int level, type;
    int32_t fd[MC_MAX_RIGHTS];
};

long mc_send(int socket, const void *data, size_t length, const int32_t *fds, uint32_t n_fds, int flags)
{
    struct mc_rights rights;
    struct {
        void *base;
        size_t length;
    } part = {(void *)(uintptr_t)data, length};
    struct mc_message message;
    mc_zero(&message, sizeof(message));
    mc_zero(&rights, sizeof(rights));
    message.data = (void *)&part;
    message.data_count = 1;
    if (n_fds) {
        rights.length = offsetof(struct mc_rights, fd) + n_fds * sizeof(int32_t);
        rights.level = 1; /* SOL_SOCKET */
        rights.type = 1;  /* SCM_RIGHTS */
        mc_copy(rights.fd, fds, n_fds * sizeof(int32_t));
        message.control = &rights;
        message.control_length = (rights.length + 7) & ~7UL;
    }
    return MC_CALL3(__NR_sendmsg, socket, &message, flags);
}

/* A seccomp filter's listener, to the parent. */
long mc_send_listener(int socket, int32_t listener)
{
    long ret = mc_send(socket, "l", 1, &listener, 1, 0x4000 /* MSG_NOSIGNAL */);
    return ret < 0 ? ret : 0;
}

/* FDS get what came along, or -1. Of a packet whose descriptors did not all fit nothing is kept: -EMFILE. */
long mc_receive(int socket, void *data, size_t length, int32_t *fds, uint32_t n_fds, int flags)
{
    struct mc_rights rights;
    struct {
        void *base;
        size_t length;
    } part = {data, length};
    struct mc_message message;
    mc_zero(&message, sizeof(message));
    mc_zero(&rights, sizeof(rights));
    message.data = (void *)&part;
    message.data_count = 1;
    message.control = &rights;
    message.control_length = sizeof(rights);
    for (uint32_t i = 0; i < n_fds; i++)
        fds[i] = -1;
    long n = MC_CALL3(__NR_recvmsg, socket, &message, flags | MC_MSG_CMSG_CLOEXEC);
    if (n < 0 || rights.length <= offsetof(struct mc_rights, fd))
        return n;
    uint32_t count = (uint32_t)((rights.length - offsetof(struct mc_rights, fd)) / sizeof(int32_t));
    int whole = count <= n_fds && !(message.flags & 8 /* MSG_CTRUNC */);
    for (uint32_t i = 0; i < count && i < MC_MAX_RIGHTS; i++)
        if (whole)
            fds[i] = rights.fd[i];
        else
            mc_close(rights.fd[i]);
    return whole ? n : -MC_EMFILE;
}
