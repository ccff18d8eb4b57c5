"""The records every client writes and every client can check; the rule is in interop/README.md."""

import sys
import time
import traceback

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PARTITIONS = 3
FIRST_TIMESTAMP = 1_700_000_000_000


class Workload:
    def __init__(self, client, codec, count):
        self.client, self.codec, self.count = client, codec, count
        self.topic = f"clients-{client}-{codec}"
        self.seen = set()

    def key(self, index):
        return None if index % 10 == 7 else b"key-%d" % index

    def value(self, index):
        if index % 1000 == 999:
            return None
        return f"{self.client} {self.codec} {index} {'v' * (index % 97)}".encode()

    def headers(self, index):
        headers = [("index", b"%d" % index), ("codec", self.codec.encode())]
        if index % 5 == 0:
            headers.append(("empty", b""))
        return headers

    def check(self, partition, offset, timestamp, key, value, headers):
        """Checks one record that was read, and that it did not come before."""
        index = int(headers[0][1])
        expected = (
            index % PARTITIONS,
            index // PARTITIONS,
            FIRST_TIMESTAMP + index,
            self.key(index),
            self.value(index),
            self.headers(index),
        )
        found = (partition, offset, timestamp, key, value, headers)
        assert found == expected, f"read {found} instead of {expected}"
        assert index not in self.seen, f"record {index} came twice"
        self.seen.add(index)


def run(suite, only, tests):
    """Runs (name, function) pairs; prints a line for each that `cargo xtask interop` reads."""
    for name, body in tests:
        name = f"{suite}.{name}"
        if only and only not in name:
            continue
        begun = time.monotonic()
        try:
            body()
            print(f"pass\t{name}\t{(time.monotonic() - begun) * 1000:.0f} ms", flush=True)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            text = f"{type(error).__name__}: {error}"
            text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
            print(f"fail\t{name}\t{text}", flush=True)
