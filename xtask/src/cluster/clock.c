/*
 * A wall clock that can be set: loaded in front of a process's C library (LD_PRELOAD), it adds to
 * what the machine's clock says the milliseconds in the first 8 bytes of the file that
 * KLAMM_CLOCK_OFFSET names. Whoever writes there makes the clock jump. The monotonic clocks stay as
 * they are, and so does the time that the kernel puts on files.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t *offset_ms;
static int (*libc_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_offset(void) {
    libc_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("KLAMM_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return;
    }
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) {
        offset_ms = page;
    }
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    if (!libc_clock_gettime) {
        /* Another library's constructor was first. */
        libc_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int done = libc_clock_gettime(clock, out);
    if (done != 0 || !offset_ms || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) {
        return done;
    }
    int64_t offset = __atomic_load_n(offset_ms, __ATOMIC_RELAXED);
    int64_t nanos = out->tv_nsec + offset % 1000 * 1000000;
    out->tv_sec += offset / 1000;
    if (nanos < 0) {
        nanos += 1000000000;
        out->tv_sec -= 1;
    } else if (nanos >= 1000000000) {
        nanos -= 1000000000;
        out->tv_sec += 1;
    }
    out->tv_nsec = nanos;
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}
