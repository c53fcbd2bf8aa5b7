/* One TCP connection. */
#define _GNU_SOURCE
#include "generator.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { INBOX = 8 << 20 };
static int sock;
static uint8_t *outbox;
static size_t out_end;
uint8_t *inbox;
size_t in_start, in_end;

void wire_open(const char *host, const char *port) {
    inbox = malloc(INBOX);
    outbox = malloc(OUTBOX);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die("address");
    sock = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(sock, (void *)&address, sizeof address)) die("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

void send_all(void) {
    for (size_t done = 0; done < out_end;) {
        ssize_t n = send(sock, outbox + done, out_end - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die("send");
        done += n;
    }
    out_end = 0;
}

int nothing_to_send(void) { return !out_end; }

void append_exactly(const void *bytes, size_t n) {
    if (out_end + n > OUTBOX) die("too much in flight");
    memcpy(outbox + out_end, bytes, n);
    out_end += n;
}

uint8_t *append(const void *bytes, size_t n) {
    uint8_t *at = outbox + out_end;
    if (out_end + padded(n) > OUTBOX) die("too much in flight");
    if (bytes) memcpy(at, bytes, n); else memset(at, 0, n);
    memset(at + n, 0, padded(n) - n);
    out_end += padded(n);
    return at;
}

void want(size_t n) {
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

int wire_linger(void) {
    send_all();
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 1}, sizeof(struct timeval));
    return recv(sock, inbox, 48, 0) < 0;
}
