// A member of a classic group: kafkajs.   node member.js BOOTSTRAP TOPIC GROUP
//
// Ends with its input. What the lines mean stands in interop/README.md.
'use strict';

const { Kafka, PartitionAssigners, logLevel } = require('kafkajs');

// What kafkajs calls RoundRobinAssigner, under the name that all others have for it.
const roundRobin = (config) => ({ ...PartitionAssigners.roundRobin(config), name: 'roundrobin' });

const tell = (kind, rest = '') => console.log(`${Date.now()} ${kind} ${rest}`.trim());

async function main(bootstrap, topic, groupId) {
  const kafka = new Kafka({
    clientId: 'klamm-interop',
    brokers: bootstrap.split(','),
    logLevel: logLevel.ERROR,
    logCreator: () => (entry) => console.error(JSON.stringify(entry.log)),
    retry: { initialRetryTime: 50 },
  });
  const consumer = kafka.consumer({
    groupId,
    partitionAssigners: [roundRobin],
    sessionTimeout: 6000,
    rebalanceTimeout: 20000,
    heartbeatInterval: 500,
    maxWaitTimeInMs: 200,
    minBytes: 100000,
  });
  let owned = [];
  const partitions = (kind, next) => {
    if (owned.length > 0) tell(kind, owned.join(','));
    owned = next;
    if (owned.length > 0) tell('assigned', owned.join(','));
  };
  // There is no callback before partitions go: what was read is committed with each batch.
  consumer.on(consumer.events.REBALANCING, () => partitions('revoked', []));
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
    partitions('lost', (payload.memberAssignment[topic] || []).slice().sort((a, b) => a - b)),
  );
  consumer.on(consumer.events.CRASH, ({ payload }) => console.error(payload.error));
  let stopping = false;
  let busy = Promise.resolve();
  const each = async ({ batch, resolveOffset, commitOffsetsIfNecessary }) => {
    const { partition, messages } = batch;
    for (const { offset, value } of messages) {
      if (value.toString() !== offset) tell('wrong', `${partition} ${offset} ${value}`);
    }
    tell('read', `${partition} ${messages[0].offset} ${messages[messages.length - 1].offset}`);
    const offset = `${Number(batch.lastOffset()) + 1}`;
    try {
      await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset }] }] });
    } catch (error) {
      tell('refused', `${error}`.replace(/\n/g, ' '));
      throw error;
    }
    resolveOffset(batch.lastOffset());
    tell('committed', `${partition}:${offset}`);
  };
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async (payload) => {
      if (stopping) return;
      busy = each(payload);
      await busy;
    },
  });
  await new Promise((resolve) => process.stdin.on('end', resolve).resume());
  stopping = true;
  await busy.catch(() => {});
  partitions('revoked', []);
  await consumer.disconnect();
  tell('ended');
  process.exit(0);
}

main(...process.argv.slice(2));
