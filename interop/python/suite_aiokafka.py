"""aiokafka.  suite_aiokafka.py BOOTSTRAP RECORDS [ONLY]"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from workload import CODECS, FIRST_TIMESTAMP, PARTITIONS, Workload, run

CLIENT = "aiokafka"


async def create(bootstrap, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, PARTITIONS, 1, topic_configs={"retention.ms": "-1"})]
        )
    except TopicAlreadyExistsError:
        pass
    finally:
        await admin.close()


async def produce(bootstrap, work):
    await create(bootstrap, work.topic)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        compression_type=None if work.codec == "none" else work.codec,
        linger_ms=5,
        max_batch_size=65536,
    )
    await producer.start()
    try:
        sent = []
        for index in range(work.count):
            sent.append(
                await producer.send(
                    work.topic,
                    key=work.key(index),
                    value=work.value(index),
                    partition=index % PARTITIONS,
                    headers=work.headers(index),
                    timestamp_ms=FIRST_TIMESTAMP + index,
                )
            )
        await producer.flush()
        for future in sent:
            await future
    finally:
        await producer.stop()


async def started(consumer):
    await consumer.start()
    return consumer


def consumer(bootstrap, group, *topics):
    return started(
        AIOKafkaConsumer(
            *topics,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
    )


async def read(reader, work, until):
    end = time.monotonic() + 120
    while len(work.seen) < until:
        assert time.monotonic() < end, f"only {len(work.seen)} of {until} records"
        for records in (await reader.getmany(timeout_ms=500, max_records=500)).values():
            for r in records:
                work.check(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers))


async def produce_and_read(bootstrap, codec, each):
    work = Workload(CLIENT, codec, each)
    await produce(bootstrap, work)
    reader = await consumer(bootstrap, None)
    try:
        partitions = [TopicPartition(work.topic, p) for p in range(PARTITIONS)]
        reader.assign(partitions)
        await reader.seek_to_beginning()
        await read(reader, work, each)
        ends = await reader.end_offsets(partitions)
        assert sum(ends.values()) == each, f"the topic ends at {ends}"
    finally:
        await reader.stop()


async def commit_and_resume(bootstrap, each):
    work = Workload(CLIENT, "gzip", each)
    group = f"resume-{CLIENT}"
    first = await consumer(bootstrap, group, work.topic)
    await read(first, work, each // 2)
    await first.commit()
    await first.stop()
    assert len(work.seen) < each, "the first consumer has read everything"
    second = await consumer(bootstrap, group, work.topic)
    await read(second, work, each)
    await second.commit()
    await second.stop()
    third = await consumer(bootstrap, group, work.topic)
    more = await third.getmany(timeout_ms=2000)
    committed = [await third.committed(TopicPartition(work.topic, p)) for p in range(PARTITIONS)]
    await third.stop()
    assert not more, f"read again from {list(more)}"
    assert sum(committed) == each, f"committed {committed}"


def main():
    bootstrap, records = sys.argv[1], int(sys.argv[2])
    each = records // len(CODECS)
    tests = [
        (
            f"produce-and-read.{c}",
            lambda c=c: asyncio.run(produce_and_read(bootstrap, c, each)),
        )
        for c in CODECS
    ]
    tests.append(("commit-and-resume", lambda: asyncio.run(commit_and_resume(bootstrap, each))))
    run(CLIENT, sys.argv[3] if len(sys.argv) > 3 else None, tests)


main()
