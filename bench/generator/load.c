/* load: keeps a number of requests in flight at one disk, for measuring what serves it.
 *
 *   load PROTOCOL ADDRESS PORT NAME LUN MODE BLOCK_BYTES DEPTH SECONDS SPAN_MIB [single | trace=FILE]
 *
 * PROTOCOL is iscsi, nbd or file (then ADDRESS is a path and the three words after it say nothing). MODE is read, write,
 * randread, randwrite or sync: then the disk is asked to make everything durable, twice a second. Normally requests that can go out together leave in one system call and answers that arrived
 * together are taken together ("batched"); with `single` each request is sent by itself and one answer is taken at a
 * time, as a client with one thread a request does. A trace is written at the end: for each request, in the order in which
 * they ended, the moment of that on the machine's clock in seconds (a double), and then all latencies in microseconds
 * (floats), in the same order.
 *
 * Prints one JSON line: iops, mb_s, latency in microseconds (p50_us, p99_us, p999_us, max_us), ios, errors, and what the
 * generator itself spent (own_cpu_us_per_io; for a file that is all there is). Exit status 0 unless the session broke.
 */
#define _GNU_SOURCE
#include "generator.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { LATENCIES = 1 << 22 };

void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "protocol");
    exit(2);
}

double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* a disk that is asked to make everything durable is left alone for so long in between */
static const struct timespec sync_pause = {.tv_nsec = 500000000};

/* xorshift64: the same places for all */
static uint64_t random64(void) {
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state;
}

void finished(struct run *run, uint32_t tag, int failed) {
    if (tag >= (uint32_t)run->depth) die("an answer to no request");
    if (failed) run->errors++;
    if (run->latencies < LATENCIES) {
        double now = now_s();
        if (run->ended_s) run->ended_s[run->latencies] = now;
        run->latency_us[run->latencies++] = (now - run->started[tag]) * 1e6;
    }
    run->ios++;
    run->free_tags[run->free_count++] = tag;
}

static void add_io(const struct protocol *protocol, struct run *run) {
    int tag = run->free_tags[--run->free_count];
    if (run->syncing) nanosleep(&sync_pause, NULL);
    uint64_t offset = run->random ? random64() % (run->span / run->block) * run->block : run->place;
    if (!run->random) run->place = run->place + 2 * run->block > run->span ? 0 : run->place + run->block;
    protocol->queue(run, tag, offset);
    run->started[tag] = now_s();
}

static void drive(const struct protocol *protocol, struct run *run, double seconds) {
    double end = now_s() + seconds;
    for (;;) {
        while (run->free_count && now_s() < end && protocol->may_queue()) {
            add_io(protocol, run);
            if (run->single) protocol->submit();
        }
        protocol->submit();
        if (run->free_count == run->depth) return;
        do protocol->take(run); while (!run->single && protocol->waits());
    }
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* The first touch of a page is not to count as the target's time. */
static void *touched(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) die("memory");
    return memset(memory, 1, bytes);
}

static void prepare(struct run *run, char **words, const char *option) {
    run->writing = strstr(words[0], "write") != NULL;
    run->random = strstr(words[0], "rand") != NULL;
    run->syncing = !strcmp(words[0], "sync");
    run->single = !strcmp(option, "single");
    run->block = atoi(words[1]);
    run->depth = run->free_count = atoi(words[2]);
    run->span = (uint64_t)atol(words[4]) << 20;
    run->payload = malloc(run->block + 8);
    for (uint32_t i = 0; i < run->block; i++) run->payload[i] = random64();
    run->started = calloc(run->depth, sizeof *run->started);
    run->free_tags = malloc(run->depth * sizeof *run->free_tags);
    for (int i = 0; i < run->depth; i++) run->free_tags[i] = i;
    run->latency_us = malloc(LATENCIES * sizeof *run->latency_us);
    if (strncmp(option, "trace=", 6)) return;
    run->latency_us = touched(LATENCIES * sizeof *run->latency_us);
    run->ended_s = touched(LATENCIES * sizeof *run->ended_s);
}

static void keep_trace(const struct run *run, const char *path) {
    FILE *trace = fopen(path, "w");
    if (!trace) die(path);
    fwrite(run->ended_s, sizeof *run->ended_s, run->latencies, trace);
    fwrite(run->latency_us, sizeof *run->latency_us, run->latencies, trace);
    if (fclose(trace)) die(path);
}

static void report(struct run *run, double took_s, double spent_s) {
    size_t n = run->latencies;
    if (!n) die("nothing was done");
    qsort(run->latency_us, n, sizeof(float), by_size);
    printf("{\"iops\":%.1f,\"mb_s\":%.2f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f,\"ios\":%lu,\"errors\":%lu,\"own_cpu_us_per_io\":%.2f}\n",
           run->ios / took_s, run->ios * (double)run->block / took_s / 1e6, run->latency_us[n / 2],
           run->latency_us[(size_t)(n * .99)], run->latency_us[(size_t)(n * .999)], run->latency_us[n - 1], run->ios, run->errors,
           spent_s / run->ios * 1e6);
}

int main(int count, char **words) {
    const struct protocol *all[] = {&iscsi, &nbd, &file}, *protocol = NULL;
    for (size_t i = 0; count >= 11 && i < sizeof all / sizeof *all; i++)
        if (!strcmp(words[1], all[i]->name)) protocol = all[i];
    if (!protocol) {
        fprintf(stderr, "load PROTOCOL ADDRESS PORT NAME LUN MODE BLOCK_BYTES DEPTH SECONDS SPAN_MIB [single | trace=FILE]\n");
        return 1;
    }
    struct run run = {0};
    const char *option = count > 11 ? words[11] : "";
    prepare(&run, words + 6, option);
    protocol->open(words + 2, &run);
    double began = now_s(), cpu_began = cpu_s();
    drive(protocol, &run, atof(words[9]));
    double took_s = now_s() - began, spent_s = cpu_s() - cpu_began;
    if (run.ended_s) keep_trace(&run, option + strlen("trace="));
    report(&run, took_s, spent_s);
    fflush(stdout);
    protocol->close();
    return 0;
}
