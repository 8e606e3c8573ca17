/* What one kernel operation takes: the table of operations, and what they share.
 *
 * An operation is a function that does it once and answers 0, or -errno. A burst is: before (not timed), `once` as
 * many times as asked and then `last` (timed), after (not timed). Each keeps its own static state, for bursts of all
 * operations come in one shuffled order.
 */
#ifndef MICRO_H
#define MICRO_H

struct op {
    const char *name;
    unsigned calls;  /* in a burst */
    unsigned bursts; /* at most: 0 is as many as asked for */
    int (*before)(unsigned calls);
    int (*once)(void);
    int (*last)(void);
    void (*after)(void);
};

/* Where files are looked for and made, the program itself, and the other half of the network: from the options. */
struct options {
    const char *data;    /* read-only files made for the run: deep/, hundred/, page, lower/ */
    const char *scratch; /* a directory that may be written to */
    const char *self;    /* this program, to be executed again */
    const char *host;    /* a server, "" for one of our own on 127.0.0.1 */
    unsigned port;
};
extern struct options options;

enum { DEPTH = 8, BLOCK = 65536 };

extern const struct op calls_ops[], files_ops[], memory_ops[], process_ops[], network_ops[];

/* A path below DIRECTORY, in a buffer of its own until the next call. */
const char *below(const char *directory, const char *name);

/* The server half: answers until it is killed. Comes back only when it cannot listen, with -errno. */
int serve(unsigned port);

/* Put on so many layers that allow everything, and are looked through at each access. 0, or -errno. */
int landlock(unsigned layers);

/* End what operations have started: partners that wait on the other end of a pipe. */
void process_end(void);
void network_end(void);

#endif
