/* A local file through io_uring: what the disk below could do if there were no target. The address is its path. */
#define _GNU_SOURCE
#include "generator.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring, disk;
static unsigned queued, *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static uint8_t **buffers;

static void *map(size_t bytes, uint64_t offset) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    if (at == MAP_FAILED) die("mmap of the ring");
    return at;
}

static void open_file(char **words, struct run *run) {
    disk = open(words[0], O_RDWR);
    if (disk < 0) die(words[0]);
    struct io_uring_params p = {0};
    ring = syscall(SYS_io_uring_setup, run->depth, &p);
    if (ring < 0) die("io_uring_setup");
    uint8_t *sq = map(p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    uint8_t *cq = map(p.cq_off.cqes + p.cq_entries * sizeof *cqes, IORING_OFF_CQ_RING);
    sqes = map(p.sq_entries * sizeof *sqes, IORING_OFF_SQES);
    sq_tail = (void *)(sq + p.sq_off.tail);
    sq_mask = (void *)(sq + p.sq_off.ring_mask);
    sq_array = (void *)(sq + p.sq_off.array);
    cq_head = (void *)(cq + p.cq_off.head);
    cq_tail = (void *)(cq + p.cq_off.tail);
    cq_mask = (void *)(cq + p.cq_off.ring_mask);
    cqes = (void *)(cq + p.cq_off.cqes);
    buffers = malloc(run->depth * sizeof *buffers);
    for (int i = 0; i < run->depth; i++) buffers[i] = malloc(run->block);
}

static void queue(struct run *run, int tag, uint64_t offset) {
    unsigned tail = *sq_tail, index = tail & *sq_mask;
    sqes[index] = (struct io_uring_sqe){
        .opcode = run->writing ? IORING_OP_WRITE : IORING_OP_READ, .fd = disk, .off = offset,
        .addr = (uintptr_t)(run->writing ? run->payload : buffers[tag]), .len = run->block, .user_data = tag};
    if (run->syncing)
        sqes[index] = (struct io_uring_sqe){
            .opcode = IORING_OP_FSYNC, .fd = disk, .fsync_flags = IORING_FSYNC_DATASYNC, .user_data = tag};
    sq_array[index] = index;
    atomic_store_explicit((_Atomic unsigned *)sq_tail, tail + 1, memory_order_release);
    queued++;
}

static void enter(unsigned wait_for) {
    int taken = syscall(SYS_io_uring_enter, ring, queued, wait_for, wait_for ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
    if (taken < 0 && errno != EINTR) die("io_uring_enter");
    if (taken > 0) queued -= taken;
}

static int waits(void) {
    return *cq_head != atomic_load_explicit((_Atomic unsigned *)cq_tail, memory_order_acquire);
}

static void submit(void) {
    while (queued) enter(0);
}

static void take(struct run *run) {
    while (!waits()) enter(1);
    struct io_uring_cqe *done = &cqes[*cq_head & *cq_mask];
    uint32_t tag = done->user_data;
    int failed = done->res != (run->syncing ? 0 : (int)run->block);
    atomic_store_explicit((_Atomic unsigned *)cq_head, *cq_head + 1, memory_order_release);
    finished(run, tag, failed);
}

static int always(void) { return 1; }
static void leave(void) {}

const struct protocol file = {"file", open_file, always, queue, submit, take, waits, leave};
