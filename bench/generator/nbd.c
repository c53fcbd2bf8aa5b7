/* NBD: one connection, fixed newstyle with NBD_OPT_GO, simple replies (the NBD protocol as its project describes it). */
#include "generator.h"
#include <endian.h>
#include <string.h>

enum { OPTION_GO = 7, REPLY_ACK = 1, REPLY_INFO = 3, READ = 0, WRITE = 1, DISCONNECT = 2, REQUEST = 28, REPLY = 16 };
static const uint64_t IHAVEOPT = 0x49484156454F5054ull, OPTION_REPLY = 0x3e889045565a9ull;
static const uint32_t REQUEST_MAGIC = 0x25609513, REPLY_MAGIC = 0x67446698;
static uint32_t reading; /* bytes that follow each good reply */

static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return be64toh(v); }
static void put16(uint8_t *p, uint16_t v) { v = htobe16(v); memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { v = htobe64(v); memcpy(p, &v, 8); }

static const uint8_t *next(size_t n) {
    want(n);
    in_start += n;
    return inbox + in_start - n;
}

static void open_export(char **words, struct run *run) {
    wire_open(words[0], words[1]);
    const uint8_t *greeting = next(18); /* NBDMAGIC, IHAVEOPT, flags */
    if (memcmp(greeting, "NBDMAGIC", 8) || get64(greeting + 8) != IHAVEOPT) die("no NBD server");
    uint8_t hello[4 + 16 + 6] = {0, 0, 0, 3}; /* fixed newstyle, no zeroes; then the option: no name, no information */
    put64(hello + 4, IHAVEOPT);
    put32(hello + 12, OPTION_GO);
    put32(hello + 16, 6);
    append_exactly(hello, sizeof hello);
    send_all();
    for (;;) {
        const uint8_t *reply = next(20);
        if (get64(reply) != OPTION_REPLY) die("no reply to the option");
        uint32_t kind = get32(reply + 12);
        next(get32(reply + 16));
        if (kind == REPLY_ACK) break;
        if (kind != REPLY_INFO) die("the export was refused");
    }
    reading = run->writing ? 0 : run->block;
}

static void request(int type, uint64_t cookie, uint64_t offset, uint32_t length) {
    uint8_t bytes[REQUEST] = {0};
    put32(bytes, REQUEST_MAGIC);
    put16(bytes + 6, type);
    put64(bytes + 8, cookie);
    put64(bytes + 16, offset);
    put32(bytes + 24, length);
    append_exactly(bytes, REQUEST);
}

static void queue(struct run *run, int tag, uint64_t offset) {
    request(run->writing ? WRITE : READ, tag, offset, run->block);
    if (run->writing) append_exactly(run->payload, run->block);
}

static void take(struct run *run) {
    const uint8_t *reply = next(REPLY);
    if (get32(reply) != REPLY_MAGIC) die("no simple reply");
    uint64_t tag = get64(reply + 8);
    int failed = get32(reply + 4) != 0;
    if (!failed) next(reading);
    finished(run, tag, failed);
}

static int always(void) { return 1; }
static int waits(void) { return in_end - in_start >= REPLY + reading; }

static void leave(void) {
    request(DISCONNECT, 0, 0, 0);
    send_all();
}

const struct protocol nbd = {"nbd", open_export, always, queue, send_all, take, waits, leave};
