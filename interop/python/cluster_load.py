"""librdkafka's part of the load on a cluster whose brokers are killed, cut off and moved meanwhile.

cluster_load.py BOOTSTRAP TOPIC PARTITIONS

Does what interop/java's ClusterLoad does: an idempotent producer numbers the records of each
partition, so record n must be at offset n; a reader runs along, another one reads everything at the
end. Says "acked N" as it goes, and at the end of its input "done" or "failed" and why.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

PACE = 0.004


def value(number):
    return f"{number} {'v' * (number % 300)}".encode()


class Load:
    def __init__(self, bootstrap, topic, partitions):
        self.topic, self.partitions = topic, partitions
        # No answer within this time: the connection is given up.
        self.client = {"bootstrap.servers": bootstrap, "socket.timeout.ms": 8000}
        self.client |= {"topic.metadata.refresh.interval.ms": 5000, "log_level": 0}
        self.client |= {"reconnect.backoff.max.ms": 1000, "socket.connection.setup.timeout.ms": 5000}
        self.stopped, self.failure = False, None
        self.acked, self.acked_of, self.read_of = 0, [0] * partitions, [0] * partitions
        self.last_ack, self.longest, self.told = time.monotonic(), 0.0, 0.0

    def fail(self, why):
        if self.failure is None:
            self.failure = why
            print("failed " + why.replace("\n", " "), flush=True)

    def over(self):
        return self.stopped or self.failure is not None

    def guarded(self, work):
        def run():
            try:
                work()
            except Exception as error:  # whatever it is, it is the verdict
                self.fail(f"{type(error).__name__}: {error}")

        return run

    def produce(self):
        producer = Producer(
            self.client
            | {
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "request.timeout.ms": 5000,
                "message.timeout.ms": 150000,
            }
        )
        following = [0] * self.partitions
        turn = 0
        while not self.over():
            partition = turn % self.partitions
            turn += 1
            number = following[partition]
            following[partition] += 1
            producer.produce(
                self.topic, value(number), partition=partition, on_delivery=self.answered(number)
            )
            producer.poll(PACE)
        if self.failure is None and producer.flush(160) > 0:
            self.fail("records were not sent")

    def answered(self, number):
        def delivered(error, message):
            if error is not None:
                return self.fail(f"record {number} of {message.partition()}: {error}")
            # One whose answer was lost is known to be there by the answer to a later one, which
            # does not tell its offset; the readers will see it.
            if message.offset() not in (number, None):
                self.fail(f"record {number} acknowledged at {message.offset()}")
            # Acknowledgements of one partition come in order.
            self.acked_of[message.partition()] = number + 1
            now = time.monotonic()
            self.longest, self.last_ack = max(self.longest, now - self.last_ack), now
            self.acked += 1
            if now - self.told > 0.1:
                self.told = now
                print(f"acked {self.acked}", flush=True)

        return delivered

    def reader(self):
        reader = Consumer(
            self.client
            | {
                "group.id": "none, it is assigned",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 200,
            }
        )
        reader.assign([TopicPartition(self.topic, p, 0) for p in range(self.partitions)])
        return reader

    def poll(self, reader, following):
        for message in reader.consume(500, 0.2):
            error = message.error()
            if error is not None:
                # What cannot be reached is tried again by the client itself.
                if error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self.fail(f"{self.topic}-{message.partition()}: {error}")
                continue
            partition, offset = message.partition(), message.offset()
            due = following[partition]
            following[partition] += 1
            if offset != due:
                self.fail(f"{self.topic}-{partition} at {offset}: offset {due} was due")
            elif message.value() != value(offset):
                self.fail(f"{self.topic}-{partition} at {offset}: holds another record")

    def read_along(self):
        reader = self.reader()
        while not self.over():
            self.poll(reader, self.read_of)
        reader.close()

    def read_all(self):
        """With fresh eyes, from the start to the end."""
        reader = self.reader()
        ends = []
        for p in range(self.partitions):
            ends.append(reader.get_watermark_offsets(TopicPartition(self.topic, p), timeout=60)[1])
        following = [0] * self.partitions
        deadline = time.monotonic() + 60
        while self.failure is None and any(n < e for n, e in zip(following, ends)):
            self.poll(reader, following)
            if time.monotonic() > deadline:
                self.fail(f"the end of the log is not reached: {following} of {ends}")
        for p, end in enumerate(ends):
            if end < self.acked_of[p] or end < self.read_of[p]:
                held = f"acknowledged {self.acked_of[p]}, read {self.read_of[p]}"
                self.fail(f"{self.topic}-{p} ends at {end}; {held}")
        reader.close()

    def run(self):
        work = [threading.Thread(target=self.guarded(w)) for w in (self.produce, self.read_along)]
        for thread in work:
            thread.start()
        sys.stdin.read()
        self.stopped = True
        for thread in work:
            thread.join()
        if self.failure is None:
            self.guarded(self.read_all)()
        if self.failure is None:
            longest = round(self.longest * 1000)
            print(f"done {self.acked} acknowledged, longest pause {longest} ms", flush=True)


Load(sys.argv[1], sys.argv[2], int(sys.argv[3])).run()
