/* micro [OPTION VALUE]... NAME...: what one operation of the kernel takes, in nanoseconds.
 * micro serve PORT: the server half of the network's operations, until it is killed.
 * micro list: the names.
 *
 * Options: --data DIR --scratch DIR --host ADDRESS --port N --bursts N --seed N --calls-percent N --landlock LAYERS
 *
 * One line for each NAME, in the order given, after all are measured:
 *   NAME BURSTS CALLS MINIMUM MEDIAN P95     nanoseconds for one operation, over the bursts
 *   NAME refused REASON                      what is forbidden or not there here; the others go on
 *
 * Theory of operation
 *   A burst is some calls of one operation between two readings of the clock. The bursts of all operations come in one
 * order, shuffled by the seed, so that what disturbs the machine for a moment does not fall on one of them alone. What
 * the loop and the clock take is measured by bursts of an operation that does nothing, among the others, and the least
 * of these is taken off. Static, and raw calls where a library could answer in the kernel's place: the same bytes run
 * under every runtime, whatever is in its root file system.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "micro.h"

enum { MOST_OPS = 64, MOST_BURSTS = 1000, EMPTY_CALLS = 1000 };

struct options options = {.data = "/data", .scratch = "/scratch", .self = "/micro", .host = "", .port = 0};

static struct measured {
    const struct op *op;
    unsigned bursts, calls, done;
    int error;
    double took[MOST_BURSTS];
} measured[MOST_OPS];
static int count;

static const struct op *const tables[] = {calls_ops, files_ops, memory_ops, process_ops, network_ops};

static int nothing(void)
{
    return 0;
}
static const struct op empty = {.name = "empty", .calls = EMPTY_CALLS, .once = nothing};

const char *below(const char *directory, const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static uint64_t state;

static uint32_t chance(uint32_t limit) /* xorshift64*, below LIMIT */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717ULL) >> 33) % limit;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int timed(struct measured *it)
{
    const struct op *op = it->op;
    int rc = op->before ? op->before(it->calls) : 0;
    double begin = now();

    for (unsigned i = 0; rc >= 0 && i < it->calls; i++)
        rc = op->once();
    if (rc >= 0 && op->last)
        rc = op->last();
    it->took[it->done] = (now() - begin) / it->calls;
    if (op->after)
        op->after();
    return rc;
}

static void burst(struct measured *it)
{
    int rc = it->error ? 0 : timed(it);

    if (rc < 0)
        it->error = -rc;
    else if (!it->error)
        it->done++;
}

static const struct op *find(const char *name)
{
    for (unsigned t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct op *op = tables[t]; op->name; op++)
            if (!strcmp(op->name, name))
                return op;
    return NULL;
}

static void add(const struct op *op, unsigned bursts, unsigned percent)
{
    struct measured *it = &measured[count++];

    it->op = op;
    it->bursts = op->bursts && op->bursts < bursts ? op->bursts : bursts;
    it->calls = op->calls * percent / 100;
    if (!it->calls)
        it->calls = 1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The SHARE quantile, linear between order statistics, as bench/stats.py has it. */
static double quantile(const double *ordered, unsigned n, double share)
{
    double place = share * (n - 1);
    unsigned under = (unsigned)place;
    unsigned over = under + 1 < n ? under + 1 : under;
    return ordered[under] + (ordered[over] - ordered[under]) * (place - under);
}

static void all_bursts(uint64_t seed)
{
    static int order[MOST_OPS * MOST_BURSTS];
    int n = 0;

    state = seed * 2654435761U + 88172645463325252ULL;
    for (int i = 0; i < count; i++)
        for (unsigned b = 0; b < measured[i].bursts; b++)
            order[n++] = i;
    for (int i = n - 1; i > 0; i--) {
        int other = (int)chance((uint32_t)i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (int i = 0; i < n; i++)
        burst(&measured[order[i]]);
}

static void tell(struct measured *it, double overhead)
{
    if (it->error) {
        printf("%s refused %s\n", it->op->name, strerror(it->error));
        return;
    }
    qsort(it->took, it->done, sizeof(double), compare);
    double found[3] = {it->took[0], quantile(it->took, it->done, 0.5), quantile(it->took, it->done, 0.95)};
    printf("%s %u %u", it->op->name, it->done, it->calls);
    for (int i = 0; i < 3; i++)
        printf(" %.2f", found[i] > overhead ? found[i] - overhead : 0.0);
    printf("\n");
}

static int list(void)
{
    for (unsigned t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct op *op = tables[t]; op->name; op++)
            printf("%s\n", op->name);
    return 0;
}

static int wrong(const char *what, const char *word)
{
    fprintf(stderr, "micro: %s %s\n", what, word);
    return 2;
}

struct numbers {
    unsigned long bursts, seed, percent, port, layers;
};

static int option(const char *name, const char *value, struct numbers *numbers)
{
    const char *words[] = {"--data", "--scratch", "--host"};
    const char **texts[] = {&options.data, &options.scratch, &options.host};
    const char *counts[] = {"--bursts", "--seed", "--calls-percent", "--port", "--landlock"};
    unsigned long *fields[] = {&numbers->bursts, &numbers->seed, &numbers->percent, &numbers->port, &numbers->layers};
    char *end;

    for (int i = 0; i < 3; i++)
        if (!strcmp(name, words[i])) {
            *texts[i] = value;
            return 0;
        }
    for (int i = 0; i < 5; i++)
        if (!strcmp(name, counts[i])) {
            *fields[i] = strtoul(value, &end, 10);
            return *value && !*end ? 0 : wrong("not a number:", value);
        }
    return wrong("no such option:", name);
}

int main(int argc, char **argv)
{
    struct numbers numbers = {.bursts = 20, .seed = 1, .percent = 100};
    int at = 1, rc;

    if (argc == 2 && !strcmp(argv[1], "exit"))
        return 0; /* what fork_exec executes */
    if (argc == 2 && !strcmp(argv[1], "list"))
        return list();
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return wrong("serve:", strerror(-serve((unsigned)strtoul(argv[2], NULL, 10))));
    options.self = argv[0];
    for (; at + 1 < argc && !strncmp(argv[at], "--", 2); at += 2)
        if (option(argv[at], argv[at + 1], &numbers))
            return 2;
    if (at == argc || !numbers.bursts || numbers.bursts > MOST_BURSTS || !numbers.percent)
        return wrong("usage: micro [OPTION VALUE]... NAME... | serve PORT | list", "");
    options.port = (unsigned)numbers.port;
    add(&empty, (unsigned)numbers.bursts, 100);
    for (; at < argc; at++) {
        const struct op *op = find(argv[at]);
        if (!op || count == MOST_OPS)
            return wrong("no such operation:", argv[at]);
        add(op, (unsigned)numbers.bursts, (unsigned)numbers.percent);
    }
    rc = landlock((unsigned)numbers.layers);
    if (rc < 0)
        return wrong("landlock:", strerror(-rc));
    all_bursts(numbers.seed);
    process_end();
    network_end();
    qsort(measured[0].took, measured[0].done, sizeof(double), compare);
    for (int i = 1; i < count; i++)
        tell(&measured[i], measured[0].took[0]);
    return 0;
}
