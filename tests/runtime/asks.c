/* asks N: N threads, each with one mkdir(2) of a path of its own; prints the sum of what they returned, or of minus the
 * errno. asks bad: mkdir(2) of a bad address; prints the errno. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *ask(void *number)
{
    char path[32];
    snprintf(path, sizeof(path), "/asked/%ld", (long)(intptr_t)number);
    long ret = syscall(SYS_mkdirat, -100, path, 0700);
    return (void *)(intptr_t)(ret < 0 ? -errno : ret);
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    long sum = 0;
    if (argc != 2)
        return 2;
    if (!strcmp(argv[1], "bad")) {
        long ret = syscall(SYS_mkdirat, -100, (void *)8, 0700);
        printf("%d\n", ret < 0 ? errno : 0);
        return 0;
    }
    int n = atoi(argv[1]);
    for (long i = 0; i < n && i < 64; i++)
        if (pthread_create(&threads[i], 0, ask, (void *)(intptr_t)i))
            return 3;
    for (int i = 0; i < n && i < 64; i++) {
        void *answer;
        pthread_join(threads[i], &answer);
        sum += (long)(intptr_t)answer;
    }
    printf("%ld\n", sum);
    return 0;
}
