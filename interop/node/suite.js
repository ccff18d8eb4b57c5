// kafkajs.   node suite.js BOOTSTRAP RECORDS [ONLY]
'use strict';

const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs');
const SnappyCodec = require('kafkajs-snappy');
const lz4 = require('lz4-napi');
const zstd = require('@bokuweb/zstd-wasm');

const CLIENT = 'kafkajs';
const PARTITIONS = 3;
const FIRST_TIMESTAMP = 1700000000000;
const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' };
const LIMIT_MS = 120000;

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: async (buffer) => lz4.decompressFrame(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});

// The records every client writes and every client can check; the rule is in interop/README.md.
class Workload {
  constructor(codec, count) {
    this.codec = codec;
    this.count = count;
    this.topic = `clients-${CLIENT}-${codec}`;
    this.seen = new Set();
  }

  message(index) {
    const headers = { index: `${index}`, codec: this.codec };
    if (index % 5 === 0) headers.empty = '';
    return {
      partition: index % PARTITIONS,
      timestamp: `${FIRST_TIMESTAMP + index}`,
      key: index % 10 === 7 ? null : `key-${index}`,
      value: index % 1000 === 999 ? null : `${CLIENT} ${this.codec} ${index} ${'v'.repeat(index % 97)}`,
      headers,
    };
  }

  check(partition, found) {
    const index = Number(found.headers.index);
    const text = (buffer) => (buffer === null ? null : buffer.toString());
    const headers = {};
    for (const [name, value] of Object.entries(found.headers)) headers[name] = text(value);
    const read = {
      partition,
      timestamp: found.timestamp,
      key: text(found.key),
      value: text(found.value),
      headers,
    };
    const expected = JSON.stringify(this.message(index));
    if (JSON.stringify(read) !== expected || Number(found.offset) !== Math.floor(index / PARTITIONS)) {
      throw new Error(`read ${JSON.stringify(read)} at ${found.offset} instead of ${expected}`);
    }
    if (this.seen.has(index)) throw new Error(`record ${index} came twice`);
    this.seen.add(index);
  }
}

async function produce(kafka, work) {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({
    topics: [
      {
        topic: work.topic,
        numPartitions: PARTITIONS,
        configEntries: [{ name: 'retention.ms', value: '-1' }],
      },
    ],
  });
  await admin.disconnect();
  // The client allows an idempotent producer one request at a time.
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const STEP = 2000;
  for (let from = 0; from < work.count; from += STEP) {
    const messages = [];
    for (let i = from; i < Math.min(from + STEP, work.count); i++) messages.push(work.message(i));
    await producer.send({
      topic: work.topic,
      acks: -1,
      compression: CompressionTypes[CODECS[work.codec]],
      messages,
    });
  }
  await producer.disconnect();
}

// Reads with a new member of the group until `until` records were seen, commits and leaves.
async function read(kafka, groupId, work, until, waitMs = LIMIT_MS) {
  const consumer = kafka.consumer({ groupId, maxBytesPerPartition: 64 * 1024 });
  await consumer.connect();
  await consumer.subscribe({ topic: work.topic, fromBeginning: true });
  let failed = null;
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, waitMs);
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    consumer
      .run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        eachBatch: async ({ batch, resolveOffset, commitOffsetsIfNecessary, uncommittedOffsets }) => {
          if (failed || work.seen.size >= until) return;
          try {
            for (const message of batch.messages) {
              work.check(batch.partition, message);
              resolveOffset(message.offset);
            }
            await commitOffsetsIfNecessary(uncommittedOffsets());
          } catch (error) {
            failed = error;
          }
          if (failed || work.seen.size >= until) done();
        },
      })
      .catch((error) => {
        failed = error;
        done();
      });
  });
  await consumer.disconnect();
  if (failed) throw failed;
}

async function produceAndRead(kafka, work) {
  await produce(kafka, work);
  await read(kafka, `read-${CLIENT}-${work.codec}`, work, work.count);
  if (work.seen.size !== work.count) throw new Error(`only ${work.seen.size} of ${work.count}`);
}

async function commitAndResume(kafka, work) {
  const group = `resume-${CLIENT}`;
  await read(kafka, group, work, work.count / 2);
  const first = work.seen.size;
  if (first < work.count / 2 || first >= work.count) {
    throw new Error(`the first consumer has read ${first} of ${work.count}`);
  }
  await read(kafka, group, work, work.count);
  if (work.seen.size !== work.count) throw new Error(`only ${work.seen.size} of ${work.count}`);
  // Anything it reads now came twice, and fails.
  await read(kafka, group, work, work.count + 1, 4000);
}

// Consumes, transforms and produces in transactions, some of which are aborted.
async function transactions(kafka, work) {
  const out = `txn-${CLIENT}`;
  const groupId = `txn-${CLIENT}`;
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: out, numPartitions: PARTITIONS }] });
  const producer = kafka.producer({
    transactionalId: `txn-${CLIENT}`,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  const total = Math.min(work.count, 5000);
  // Half of the topic at the most goes into a transaction.
  const consumer = kafka.consumer({ groupId, maxBytesPerPartition: 16 * 1024 });
  await consumer.connect();
  await consumer.subscribe({ topic: work.topic, fromBeginning: true });
  let turn = 0;
  let done = 0;
  await until(total, (resolve, reject) =>
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset }) => {
        if (done >= total) return;
        const { topic, partition } = batch;
        try {
          const transaction = await producer.transaction();
          const messages = batch.messages.map(({ key, value }) => ({ key, value, partition }));
          await transaction.send({ topic: out, messages });
          const offset = `${Number(batch.lastOffset()) + 1}`;
          const topics = [{ topic, partitions: [{ partition, offset }] }];
          await transaction.sendOffsets({ consumerGroupId: groupId, topics });
          turn++;
          if (turn % 3 === 2) {
            await transaction.abort();
            consumer.seek({ topic, partition, offset: batch.messages[0].offset });
          } else {
            await transaction.commit();
            resolveOffset(batch.lastOffset());
            done += messages.length;
          }
          if (done >= total) resolve();
        } catch (error) {
          reject(error);
        }
      },
    }),
  );
  await consumer.disconnect();
  await producer.disconnect();
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [work.topic] });
  await admin.disconnect();
  const committed = partitions.reduce((sum, { offset }) => sum + Math.max(Number(offset), 0), 0);
  if (committed !== done) throw new Error(`committed ${committed} instead of ${done}`);
  // Read committed unless told otherwise.
  const reader = kafka.consumer({ groupId: `${groupId}-read` });
  await reader.connect();
  await reader.subscribe({ topic: out, fromBeginning: true });
  let seen = 0;
  await until(done, (resolve, reject) =>
    reader.run({
      eachMessage: async () => {
        seen++;
        // What is too much comes soon after.
        if (seen === done) setTimeout(resolve, 1000);
        if (seen > done) reject(new Error(`more than ${done} records are committed`));
      },
    }),
  );
  await reader.disconnect();
}

// Runs a consumer until it resolves; it has a limited time for that.
async function until(wanted, run) {
  let timer;
  await new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not ${wanted} records in time`)), LIMIT_MS);
    run(resolve, reject).catch(reject);
  }).finally(() => clearTimeout(timer));
}

async function main() {
  const [bootstrap, records, only] = process.argv.slice(2);
  await zstd.init();
  const each = Number(records) / Object.keys(CODECS).length;
  const kafka = new Kafka({
    clientId: 'klamm-interop',
    brokers: [bootstrap],
    logLevel: logLevel.NOTHING,
    retry: { initialRetryTime: 50 },
  });
  const tests = Object.keys(CODECS).map((codec) => [
    `produce-and-read.${codec}`,
    () => produceAndRead(kafka, new Workload(codec, each)),
  ]);
  tests.push(['commit-and-resume', () => commitAndResume(kafka, new Workload('gzip', each))]);
  tests.push(['transactions', () => transactions(kafka, new Workload('none', each))]);
  for (const [test, body] of tests) {
    const name = `${CLIENT}.${test}`;
    if (only && !name.includes(only)) continue;
    const begun = Date.now();
    try {
      await body();
      console.log(`pass\t${name}\t${Date.now() - begun} ms`);
    } catch (error) {
      console.error(error);
      const text = `${error}`.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/\t/g, '\\t');
      console.log(`fail\t${name}\t${text}`);
    }
  }
  process.exit(0);
}

main();
