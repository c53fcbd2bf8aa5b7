/* load: one iSCSI session that keeps a number of commands in flight, for measuring a target.
 *
 *   load ADDRESS PORT TARGET LUN MODE BLOCK_BYTES DEPTH SECONDS SPAN_MIB [single]
 *
 * MODE is read, write, randread or randwrite. Normally commands that can go out together leave in one system call and
 * responses that arrived together are taken together ("batched"); with `single` each command is sent by itself and one
 * response is taken at a time, as an initiator with one thread a command does.
 *
 * Prints one JSON line: iops, mb_s, latency in microseconds (p50_us, p99_us, max_us), ios, errors, and what the
 * generator itself spent (own_cpu_us_per_io). Exit status 0 unless the session broke. Numbers of PDU fields are
 * offsets in the basic header segment, RFC 7143 section 11.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BHS = 48, NOP_OUT = 0x00, COMMAND = 0x01, LOGIN = 0x03, DATA_OUT = 0x05, LOGOUT = 0x06,
       NOP_IN = 0x20, RESPONSE = 0x21, LOGIN_RESPONSE = 0x23, DATA_IN = 0x25, R2T = 0x31 };
enum { INBOX = 8 << 20, OUTBOX = 64 << 20, BURST = 256 << 10, LATENCIES = 1 << 22 };

static int sock, lun;
static uint32_t cmd_sn = 1, exp_stat_sn = 0, max_cmd_sn = 0;
static uint32_t target_segment = 8192, first_burst = 65536, immediate_ok = 1;
static uint8_t *inbox, *outbox;
static size_t in_start, in_end, out_end;

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "protocol");
    exit(2);
}

static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static void put32(uint8_t *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }
static void put24(uint8_t *p, uint32_t v) { p[0] = v >> 16; p[1] = v >> 8; p[2] = v; }
static uint32_t data_length(const uint8_t *bhs) { return bhs[5] << 16 | bhs[6] << 8 | bhs[7]; }
static size_t padded(size_t n) { return (n + 3) & ~(size_t)3; }

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* xorshift64: the same places for both targets */
static uint64_t random64(void) {
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state;
}

/* --- bytes in and out */

static void send_all(void) {
    for (size_t done = 0; done < out_end;) {
        ssize_t n = send(sock, outbox + done, out_end - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("send");
        done += n;
    }
    out_end = 0;
}

static uint8_t *append(const void *bytes, size_t n) {
    uint8_t *at = outbox + out_end;
    if (out_end + padded(n) > OUTBOX) die("too much in flight");
    if (bytes) memcpy(at, bytes, n); else memset(at, 0, n);
    memset(at + n, 0, padded(n) - n);
    out_end += padded(n);
    return at;
}

static void want(size_t n) {
    while (in_end - in_start < n) {
        if (in_start == in_end) in_start = in_end = 0;
        if (in_start + n > INBOX || INBOX - in_end < 65536) {
            memmove(inbox, inbox + in_start, in_end - in_start);
            in_end -= in_start;
            in_start = 0;
        }
        ssize_t got = recv(sock, inbox + in_end, INBOX - in_end, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) die("the target closed the connection");
        in_end += got;
    }
}

static size_t pdu_length(const uint8_t *bhs) { return BHS + bhs[4] * 4 + padded(data_length(bhs)); }

static uint8_t *next_pdu(void) {
    want(BHS);
    want(pdu_length(inbox + in_start));
    uint8_t *pdu = inbox + in_start;
    in_start += pdu_length(pdu);
    return pdu;
}

static int whole_pdu_waits(void) {
    return in_end - in_start >= BHS && in_end - in_start >= pdu_length(inbox + in_start);
}

/* --- login */

static size_t add_key(char *text, size_t at, const char *key, const char *value) {
    return at + sprintf(text + at, "%s=%s", key, value) + 1;
}

static size_t login_text(char *text, const char *target) {
    size_t n = 0;
    char initiator[64];
    sprintf(initiator, "iqn.2026-01.org.example:load-%d", getpid());
    n = add_key(text, n, "InitiatorName", initiator);
    n = add_key(text, n, "TargetName", target);
    n = add_key(text, n, "SessionType", "Normal");
    n = add_key(text, n, "HeaderDigest", "None");
    n = add_key(text, n, "DataDigest", "None");
    n = add_key(text, n, "InitialR2T", "No");
    n = add_key(text, n, "ImmediateData", "Yes");
    n = add_key(text, n, "MaxRecvDataSegmentLength", "1048576");
    n = add_key(text, n, "MaxBurstLength", "1048576");
    n = add_key(text, n, "FirstBurstLength", "262144");
    n = add_key(text, n, "MaxOutstandingR2T", "1");
    n = add_key(text, n, "MaxConnections", "1");
    n = add_key(text, n, "ErrorRecoveryLevel", "0");
    n = add_key(text, n, "DefaultTime2Wait", "0");
    return add_key(text, n, "DefaultTime2Retain", "0");
}

static void read_login_keys(const uint8_t *pdu) {
    const char *text = (const char *)pdu + BHS;
    for (uint32_t at = 0; at < data_length(pdu); at += strlen(text + at) + 1) {
        if (!strncmp(text + at, "MaxRecvDataSegmentLength=", 25)) target_segment = atoi(text + at + 25);
        if (!strncmp(text + at, "FirstBurstLength=", 17)) first_burst = atoi(text + at + 17);
        if (!strcmp(text + at, "ImmediateData=No")) immediate_ok = 0;
    }
}

static void login(const char *target) {
    char text[2048];
    size_t length = login_text(text, target);
    uint8_t tsih[2] = {0, 0};
    for (int round = 0; round < 8; round++) {
        uint8_t *bhs = append(NULL, BHS);
        bhs[0] = 0x40 | LOGIN;
        bhs[1] = 0x87; /* transit, operational stage to full feature */
        put24(bhs + 5, length);
        bhs[8] = 0x80; /* a random ISID */
        put32(bhs + 9, getpid() * 65537u);
        memcpy(bhs + 14, tsih, 2);
        put32(bhs + 16, 1);
        put32(bhs + 24, cmd_sn);
        put32(bhs + 28, exp_stat_sn);
        append(text, length);
        send_all();
        uint8_t *answer = next_pdu();
        if ((answer[0] & 0x3f) != LOGIN_RESPONSE) die("no login response");
        if (answer[36]) {
            fprintf(stderr, "load: login refused, status %02x%02x\n", answer[36], answer[37]);
            exit(3);
        }
        memcpy(tsih, answer + 14, 2);
        exp_stat_sn = get32(answer + 24) + 1;
        cmd_sn = get32(answer + 28);
        max_cmd_sn = get32(answer + 32);
        read_login_keys(answer);
        if ((answer[1] & 0x83) == 0x83) return;
        length = 0;
    }
    die("login did not end");
}

/* --- commands */

static uint8_t *add_command(uint32_t tag, int direction, uint32_t expected, uint32_t immediate) {
    uint8_t *bhs = append(NULL, BHS);
    bhs[0] = COMMAND;
    bhs[1] = 0x80 | direction | 1; /* final, simple task */
    put24(bhs + 5, immediate);
    bhs[9] = lun;
    put32(bhs + 16, tag);
    put32(bhs + 20, expected);
    put32(bhs + 24, cmd_sn++);
    put32(bhs + 28, exp_stat_sn);
    return bhs;
}

/* One command to its end: TEST UNIT READY until the unit attentions of a new session are gone. */
static void get_ready(void) {
    for (int tries = 0; tries < 8; tries++) {
        add_command(0x10000 + tries, 0, 0, 0);
        send_all();
        uint8_t *pdu;
        while (((pdu = next_pdu())[0] & 0x3f) != RESPONSE) {}
        exp_stat_sn = get32(pdu + 24) + 1;
        max_cmd_sn = get32(pdu + 32);
        if (pdu[3] == 0) return;
    }
    die("the disk does not get ready");
}

struct run {
    int writing, random, single, depth, free_count;
    uint32_t block, immediate;
    uint64_t span, place, ios, errors;
    double *started;
    int *free_tags;
    uint8_t *payload;
    float *latency_us;
    size_t latencies;
};

static void add_io(struct run *run) {
    int tag = run->free_tags[--run->free_count];
    uint64_t offset = run->random ? random64() % (run->span / run->block) * run->block : run->place;
    if (!run->random) run->place = run->place + 2 * run->block > run->span ? 0 : run->place + run->block;
    uint32_t immediate = run->writing ? run->immediate : 0;
    uint8_t *bhs = add_command(tag, run->writing ? 0x20 : 0x40, run->block, immediate);
    uint64_t lba = offset / 512;
    bhs[32] = run->writing ? 0x8a : 0x88; /* WRITE(16), READ(16) */
    put32(bhs + 34, lba >> 32);
    put32(bhs + 38, lba);
    put32(bhs + 42, run->block / 512);
    if (immediate) append(run->payload, immediate);
    run->started[tag] = now_s();
}

static void answer_r2t(struct run *run, const uint8_t *pdu) {
    uint32_t segment = target_segment < BURST ? target_segment : BURST;
    uint32_t offset = get32(pdu + 40), left = get32(pdu + 44);
    for (uint32_t sn = 0; left; sn++) {
        uint32_t n = left > segment ? segment : left;
        uint8_t *bhs = append(NULL, BHS);
        bhs[0] = DATA_OUT;
        bhs[1] = n == left ? 0x80 : 0;
        put24(bhs + 5, n);
        bhs[9] = lun;
        memcpy(bhs + 16, pdu + 16, 8); /* both tags */
        put32(bhs + 28, exp_stat_sn);
        put32(bhs + 36, sn);
        put32(bhs + 40, offset);
        append(run->payload + offset, n);
        offset += n;
        left -= n;
    }
}

static void answer_ping(const uint8_t *pdu) {
    if (get32(pdu + 20) == 0xffffffff) return;
    uint8_t *bhs = append(NULL, BHS);
    bhs[0] = 0x40 | NOP_OUT;
    bhs[1] = 0x80;
    memcpy(bhs + 8, pdu + 8, 8);
    put32(bhs + 16, 0xffffffff);
    memcpy(bhs + 20, pdu + 20, 4);
    put32(bhs + 24, cmd_sn);
    put32(bhs + 28, exp_stat_sn);
}

static void take_pdu(struct run *run) {
    uint8_t *pdu = next_pdu();
    int opcode = pdu[0] & 0x3f, ends = opcode == RESPONSE || (opcode == DATA_IN && (pdu[1] & 1));
    if (opcode == R2T) answer_r2t(run, pdu);
    else if (opcode == NOP_IN) answer_ping(pdu);
    else if (opcode != RESPONSE && opcode != DATA_IN) die("an unexpected PDU");
    max_cmd_sn = get32(pdu + 32);
    if (!ends) return;
    uint32_t tag = get32(pdu + 16);
    if (tag >= (uint32_t)run->depth) die("an answer to no command");
    exp_stat_sn = get32(pdu + 24) + 1;
    if (pdu[3]) run->errors++;
    if (run->latencies < LATENCIES) run->latency_us[run->latencies++] = (now_s() - run->started[tag]) * 1e6;
    run->ios++;
    run->free_tags[run->free_count++] = tag;
}

static void drive(struct run *run, double seconds) {
    double end = now_s() + seconds;
    for (;;) {
        while (run->free_count && now_s() < end && (int32_t)(max_cmd_sn - cmd_sn) >= 0) {
            add_io(run);
            if (run->single) send_all();
        }
        if (out_end) send_all();
        if (run->free_count == run->depth) return;
        do take_pdu(run); while (!run->single && whole_pdu_waits());
    }
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void prepare(struct run *run, char **words, int single) {
    run->writing = strstr(words[5], "write") != NULL;
    run->random = strstr(words[5], "rand") != NULL;
    run->single = single;
    run->block = atoi(words[6]);
    run->depth = run->free_count = atoi(words[7]);
    run->span = (uint64_t)atol(words[9]) << 20;
    run->payload = malloc(run->block + 8);
    for (uint32_t i = 0; i < run->block; i++) run->payload[i] = random64();
    run->started = calloc(run->depth, sizeof *run->started);
    run->free_tags = malloc(run->depth * sizeof *run->free_tags);
    for (int i = 0; i < run->depth; i++) run->free_tags[i] = i;
    run->latency_us = malloc(LATENCIES * sizeof *run->latency_us);
    uint32_t most = run->block < BURST ? run->block : BURST;
    if (most > target_segment) most = target_segment;
    if (most > first_burst) most = first_burst;
    run->immediate = immediate_ok ? most : 0;
}

static void report(struct run *run, double took_s, double spent_s) {
    size_t n = run->latencies;
    if (!n) die("nothing was done");
    qsort(run->latency_us, n, sizeof(float), by_size);
    printf("{\"iops\":%.1f,\"mb_s\":%.2f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"ios\":%lu,\"errors\":%lu,"
           "\"own_cpu_us_per_io\":%.2f}\n",
           run->ios / took_s, run->ios * (double)run->block / took_s / 1e6, run->latency_us[n / 2],
           run->latency_us[(size_t)(n * .99)], run->latency_us[n - 1], run->ios, run->errors,
           spent_s / run->ios * 1e6);
}

int main(int count, char **words) {
    if (count < 10) {
        fprintf(stderr, "load ADDRESS PORT TARGET LUN MODE BLOCK_BYTES DEPTH SECONDS SPAN_MIB [single]\n");
        return 1;
    }
    lun = atoi(words[4]);
    inbox = malloc(INBOX);
    outbox = malloc(OUTBOX);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    if (inet_pton(AF_INET, words[1], &address.sin_addr) != 1) die("address");
    sock = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(sock, (void *)&address, sizeof address)) die("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    login(words[3]);
    get_ready();
    struct run run = {0};
    prepare(&run, words, count > 10 && !strcmp(words[10], "single"));
    double began = now_s(), cpu_began = cpu_s();
    drive(&run, atof(words[8]));
    report(&run, now_s() - began, cpu_s() - cpu_began);
    uint8_t *bhs = append(NULL, BHS);
    bhs[0] = 0x40 | LOGOUT;
    bhs[1] = 0x80;
    put32(bhs + 16, 0x20000);
    put32(bhs + 24, cmd_sn);
    put32(bhs + 28, exp_stat_sn);
    send_all();
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 1}, sizeof(struct timeval));
    return recv(sock, inbox, BHS, 0) < 0 ? 2 : 0;
}
