/* A filter's listener on its way to the parent (seccomp_unotify(2)), where the filter does not let sendmsg(2) be.
 *
 * Whoever has loaded such a filter may have no system call left that is not refused, fatal, or waiting for an answer
 * that nobody can give before the listener is out. So another thread, made before, and which the filter does not hold,
 * sends and closes it; the two share descriptors and talk by memory alone. It is gone when the program begins: a
 * thread, and not a process, for it needs nobody to reap it. */
#include "machine.h"

#define MC_MESSENGER_STACK 8192

static char messenger_stack[MC_MESSENGER_STACK] __attribute__((aligned(16)));

static struct mc_messenger {
    int socket;
    int32_t listener; /* or -1: there is none, nothing is sent */
    uint32_t loaded, done;
    long result;
} messenger;

static void messenger_main(void *argument MC_UNUSED)
{
    static const int64_t pause[2] = {0, 50 * 1000}; /* struct timespec */
    while (!__atomic_load_n(&messenger.loaded, __ATOMIC_SEQ_CST))
        mc_raw(__NR_nanosleep, (long)pause, 0, 0, 0, 0, 0);
    if (messenger.listener >= 0) {
        messenger.result = mc_send_listener(messenger.socket, messenger.listener);
        mc_close(messenger.listener);
    }
    mc_close(messenger.socket);
    __atomic_store_n(&messenger.done, 1, __ATOMIC_SEQ_CST);
    for (;;)
        mc_raw(__NR_exit, 0, 0, 0, 0, 0, 0);
}

/* The thread that will send a listener to SOCKET. Right before the filter is loaded: it is as confined as its maker. */
long mc_messenger_start(int socket)
{
    struct clone_args args;
    mc_zero(&args, sizeof(args));
    mc_zero(&messenger, sizeof(messenger));
    messenger.socket = socket;
    args.flags = CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
    args.stack = (uint64_t)(uintptr_t)messenger_stack;
    args.stack_size = sizeof(messenger_stack);
    return mc_clone3(&args, messenger_main, &messenger);
}

/* LISTENER, or the -errno instead of one, is what loading answered: the same error, or that of sending; else 0. */
long mc_messenger_send(long listener)
{
    messenger.listener = listener < 0 ? -1 : (int32_t)listener;
    __atomic_store_n(&messenger.loaded, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&messenger.done, __ATOMIC_SEQ_CST))
        mc_pause(); /* no system call: the filter judges them already */
    return listener < 0 ? listener : messenger.result < 0 ? messenger.result : 0;
}
