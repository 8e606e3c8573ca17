// What the two halves of the machine's first program share: vm_init.c, vm_requests.c.
#pragma once
#include <stddef.h>

#define BLOCK (1 << 20)

extern char block[BLOCK]; // of whoever reads something

// The answers: "ok N" and TEXT, "failed WHAT: " and errno's words; anything; bytes.
void ok(const char *text);
void failed(const char *what);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void put(const void *bytes, size_t size);

void do_mount(char **words);
void do_root(char **words);
void do_network(char **words, int count);
void do_warm(char **words, int count);
void do_cat(char **words, int is_link);
void do_hypervisor(void);
