/* iSCSI: one session. Numbers of PDU fields are offsets in the basic header segment, RFC 7143 section 11. */
#include "generator.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BHS = 48, NOP_OUT = 0x00, COMMAND = 0x01, LOGIN = 0x03, DATA_OUT = 0x05, LOGOUT = 0x06,
       NOP_IN = 0x20, RESPONSE = 0x21, LOGIN_RESPONSE = 0x23, DATA_IN = 0x25, R2T = 0x31 };
/* Unsolicited data as the usual initiators send it. */
enum { BURST = 256 << 10 };

static int lun;
static uint32_t cmd_sn = 1, exp_stat_sn = 0, max_cmd_sn = 0, immediate_bytes = 0;
static uint32_t target_segment = 8192, first_burst = 65536, immediate_ok = 1;

static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static void put32(uint8_t *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }
static void put24(uint8_t *p, uint32_t v) { p[0] = v >> 16; p[1] = v >> 8; p[2] = v; }
static uint32_t data_length(const uint8_t *bhs) { return bhs[5] << 16 | bhs[6] << 8 | bhs[7]; }

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

static void queue(struct run *run, int tag, uint64_t offset) {
    if (run->syncing) {
        add_command(tag, 0, 0, 0)[32] = 0x91; /* SYNCHRONIZE CACHE(16), all of it */
        return;
    }
    uint32_t immediate = run->writing ? immediate_bytes : 0;
    uint8_t *bhs = add_command(tag, run->writing ? 0x20 : 0x40, run->block, immediate);
    uint64_t lba = offset / 512;
    bhs[32] = run->writing ? 0x8a : 0x88; /* WRITE(16), READ(16) */
    put32(bhs + 34, lba >> 32);
    put32(bhs + 38, lba);
    put32(bhs + 42, run->block / 512);
    if (immediate) append(run->payload, immediate);
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

static void take(struct run *run) {
    uint8_t *pdu = next_pdu();
    int opcode = pdu[0] & 0x3f, ends = opcode == RESPONSE || (opcode == DATA_IN && (pdu[1] & 1));
    if (opcode == R2T) answer_r2t(run, pdu);
    else if (opcode == NOP_IN) answer_ping(pdu);
    else if (opcode != RESPONSE && opcode != DATA_IN) die("an unexpected PDU");
    max_cmd_sn = get32(pdu + 32);
    if (!ends) return;
    exp_stat_sn = get32(pdu + 24) + 1;
    finished(run, get32(pdu + 16), pdu[3]);
}

static int may_queue(void) { return (int32_t)(max_cmd_sn - cmd_sn) >= 0; }

static void open_session(char **words, struct run *run) {
    lun = atoi(words[3]);
    wire_open(words[0], words[1]);
    login(words[2]);
    get_ready();
    immediate_bytes = run->block < BURST ? run->block : BURST;
    if (immediate_bytes > target_segment) immediate_bytes = target_segment;
    if (immediate_bytes > first_burst) immediate_bytes = first_burst;
    if (!immediate_ok) immediate_bytes = 0;
}

static void close_session(void) {
    uint8_t *bhs = append(NULL, BHS);
    bhs[0] = 0x40 | LOGOUT;
    bhs[1] = 0x80;
    put32(bhs + 16, 0x20000);
    put32(bhs + 24, cmd_sn);
    put32(bhs + 28, exp_stat_sn);
    if (wire_linger()) die("no answer to the logout");
}

const struct protocol iscsi = {"iscsi", open_session, may_queue, queue, send_all, take, whole_pdu_waits, close_session};
