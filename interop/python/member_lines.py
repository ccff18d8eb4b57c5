"""What a member of a group tells: see "The members' lines" in interop/README.md."""

import sys
import threading
import time

SESSION_TIMEOUT_MS = 6000
HEARTBEAT_INTERVAL_MS = 500
COMMIT_INTERVAL = 0.5
FETCH_WAIT_MS = 200
FETCH_MIN_BYTES = 100_000


class Teller:
    """Writes the lines. Records of a partition that follow each other become one line."""

    def __init__(self):
        self.spans = {}
        # What is to be read next of what was read.
        self.following = {}
        self.stopped = False

    def stop_at_end_of_input(self):
        def wait():
            sys.stdin.read()
            self.stopped = True

        threading.Thread(target=wait, daemon=True).start()

    def line(self, kind, rest=""):
        print(f"{time.time_ns() // 1_000_000} {kind} {rest}".rstrip(), flush=True)

    def flush(self):
        for partition, (first, last) in self.spans.items():
            self.line("read", f"{partition} {first} {last}")
        self.spans.clear()

    def tell(self, kind, rest=""):
        self.flush()
        self.line(kind, rest)

    def partitions(self, kind, partitions):
        """Partitions that are assigned, revoked or lost."""
        if not partitions:
            return
        self.tell(kind, ",".join(map(str, sorted(partitions))))
        for partition in partitions:
            self.following.pop(partition, None)

    def read(self, partition, offset, value):
        """Takes a record; its value is its offset."""
        if value != b"%d" % offset:
            self.line("wrong", f"{partition} {offset} {value!r}")
        span = self.spans.get(partition)
        if span is not None and span[1] + 1 == offset:
            self.spans[partition] = (span[0], offset)
        else:
            if span is not None:
                self.line("read", f"{partition} {span[0]} {span[1]}")
            self.spans[partition] = (offset, offset)
        self.following[partition] = offset + 1

    def committed(self, offsets):
        if offsets:
            self.tell("committed", ",".join(f"{p}:{o}" for p, o in sorted(offsets.items())))

    def refused(self, why):
        self.tell("refused", str(why).replace("\n", " "))
