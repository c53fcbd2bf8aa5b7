/* A writer whose every record is on the disk before it is told: the witness of crash, fence and migration tests.
 *
 *   seqwriter write FILE [INTERVAL_MS] [COUNT]   appends records of 64 bytes, fdatasync after each
 *   seqwriter raw DISK [INTERVAL_MS] [COUNT]     the same in blocks of 4096 with O_DIRECT, record n in block n-1
 *   seqwriter check FILE                         counts: records must follow each other from 1, with good checksums
 *   seqwriter rawcheck DISK
 *
 * A writer goes on after the last good record. It prints "SEQ n MICROSECONDS" only after record n is durable, "ERR n
 * ERRNO text" if the disk refused it (and tries again a second later). A check prints "LAST n". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 64, BLOCK = 4096, SUMMED = 54 };

static uint32_t crc32_of(const char *bytes, size_t length) {
    uint32_t crc = ~0u;
    while (length--) {
        crc ^= (uint8_t)*bytes++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}

/* "000000000007 001771234567     ...    a1b2c3d4\n": number, time, checksum of what is before it */
static void make_record(char *record, unsigned long number) {
    char text[RECORD];
    memset(record, ' ', RECORD);
    int length = snprintf(text, sizeof text, "%012lu %012lld", number, (long long)time(NULL));
    memcpy(record, text, length);
    snprintf(text, sizeof text, "%08x", crc32_of(record, SUMMED));
    memcpy(record + SUMMED + 1, text, 8);
    record[RECORD - 1] = '\n';
}

static int is_record(const char *record, unsigned long number) {
    char text[9];
    snprintf(text, sizeof text, "%08x", crc32_of(record, SUMMED));
    return !memcmp(text, record + SUMMED + 1, 8) && record[RECORD - 1] == '\n' && strtoul(record, NULL, 10) == number;
}

static unsigned long last_record(int fd, size_t step, char *block) {
    unsigned long last = 0;
    while (pread(fd, block, step, (off_t)(last * step)) >= RECORD && is_record(block, last + 1)) last++;
    return last;
}

static long long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void write_on(int fd, size_t step, char *block, int interval_ms, long count) {
    unsigned long number = last_record(fd, step, block);
    memset(block, 0, step);
    while (count-- != 0) {
        long long began = now_us();
        make_record(block, ++number);
        if (pwrite(fd, block, step, (off_t)((number - 1) * step)) != (ssize_t)step || fdatasync(fd)) {
            printf("ERR %lu %d %s\n", number--, errno, strerror(errno));
            sleep(1);
            continue;
        }
        printf("SEQ %lu %lld\n", number, now_us() - began);
        if (interval_ms) usleep(interval_ms * 1000u);
    }
}

int main(int count, char **words) {
    if (count < 3) return fprintf(stderr, "usage: seqwriter write|raw|check|rawcheck PATH [INTERVAL_MS] [COUNT]\n"), 2;
    int raw = !strncmp(words[1], "raw", 3), check = strstr(words[1], "check") != NULL;
    size_t step = raw ? BLOCK : RECORD;
    char *block;
    int fd = open(words[2], (check ? O_RDONLY : O_RDWR) | (raw ? O_DIRECT : check ? 0 : O_CREAT), 0644);
    if (fd < 0 || posix_memalign((void **)&block, BLOCK, BLOCK)) return perror(words[2]), 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (check)
        printf("LAST %lu\n", last_record(fd, step, block));
    else
        write_on(fd, step, block, count > 3 ? atoi(words[3]) : 100, count > 4 ? atol(words[4]) : -1);
    return 0;
}
