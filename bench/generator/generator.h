/* What the parts of the load generator share. A protocol turns places on a disk into requests and answers into tags. */
#ifndef GENERATOR_H
#define GENERATOR_H
#include <stddef.h>
#include <stdint.h>

struct run {
    int writing, random, syncing, single, depth, free_count;
    uint32_t block;
    uint64_t span, place, ios, errors;
    double *started;
    int *free_tags;
    uint8_t *payload;
    float *latency_us;
    double *ended_s; /* of each latency; none without a trace */
    size_t latencies;
};

struct protocol {
    const char *name;
    /* words: ADDRESS PORT NAME LUN of the command line */
    void (*open)(char **words, struct run *run);
    int (*may_queue)(void);
    void (*queue)(struct run *run, int tag, uint64_t offset);
    void (*submit)(void);
    /* waits for one answer, or whatever else comes; calls finished() for an answer to a request */
    void (*take)(struct run *run);
    /* is a whole answer there already? */
    int (*waits)(void);
    void (*close)(void);
};

extern const struct protocol iscsi, nbd, file;

void die(const char *what);
double now_s(void);
void finished(struct run *run, uint32_t tag, int failed);

/* wire.c: one TCP connection, with all that is read and to be sent in two buffers */
enum { OUTBOX = 64 << 20 };
extern uint8_t *inbox;
extern size_t in_start, in_end;
void wire_open(const char *address, const char *port);
void send_all(void);
uint8_t *append(const void *bytes, size_t n); /* zeroes if bytes is NULL; padded to four bytes */
void append_exactly(const void *bytes, size_t n);
int nothing_to_send(void);
void want(size_t n);
int wire_linger(void); /* waits a second at most for the other side's farewell; 0 if it came, or the end */

static inline size_t padded(size_t n) { return (n + 3) & ~(size_t)3; }
#endif
