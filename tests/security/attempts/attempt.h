/* What a hostile program tries, one function a class of escape; main.c runs them. An attempt says once how it went and
 * ends its process: a class is tried in a process of its own. What it tries is harmless where it succeeds: settings get
 * the value they have, other processes signal 0, and what eats resources stops at a number. */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>

/* SUBJECT could not be had: errno says why. */
_Noreturn void blocked(const char *subject);
/* It was not had, and no errno says so. */
_Noreturn void blocked_by(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void succeeded(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* This kernel, or this container, has nothing to try it on. */
_Noreturn void absent(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The VALUE of a word NAME=VALUE of the command line, or OTHERWISE. */
const char *fact(const char *name, const char *otherwise);
long number(const char *name, long otherwise);
/* The first SIZE-1 bytes of a file as text: their count, or -1 with errno. */
long read_text(const char *path, char *text, size_t size);

/* Each is a row of main.c's table. */
void try_io_uring(void), try_userfaultfd(void), try_bpf(void), try_perf(void), try_keyctl(void), try_af_alg(void);
void try_af_vsock(void), try_raw_socket(void), try_packet_socket(void), try_i386(void), try_socketcall(void);
void try_x32(void), try_user_namespace(void), try_setgroups(void), try_module(void), try_kernel_log(void);
void try_settings(void), try_secrets(void), try_interrupts(void), try_make_device(void), try_devices(void);
void try_handle(void), try_mount(void), try_proc_again(void), try_unmask(void), try_walk_out(void);
void try_cgroup_write(void), try_release_agent(void), run_release_agent(void);
void try_inheritable(void), try_keyring(void), try_abstract_socket(void), try_tiocsti(void), try_tioclinux(void);
void try_host_process(void), try_runtime_binary(void), try_descriptors(void), try_set_user_id(void);
void try_processes(void), try_terminals(void), try_shm(void), try_shm_inodes(void), try_dev_inodes(void);
void try_memory(void), try_open_files(void), bomb_fork(void);

#endif
