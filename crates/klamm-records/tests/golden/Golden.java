import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.zip.GZIPOutputStream;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.server.common.RequestLocal;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.log.*;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Writes what Kafka 4.3.1 makes of record batches: batches of its own, and its verdict over good
 * and bad ones, as text for tests/golden.rs. See README.md in this folder.
 */
public class Golden {
    static final long NOW = 1_700_000_000_000L;
    static final CompressionType[] CODECS = CompressionType.values();

    public static void main(String[] args) throws Exception {
        Path out = Path.of(args[0]);
        try (PrintStream to = open(out.resolve("batches.txt.gz"))) {
            batches(to);
        }
        try (PrintStream to = open(out.resolve("verdicts.txt.gz"))) {
            verdicts(to, Path.of(args[1]));
        }
        System.exit(0);
    }

    static PrintStream open(Path path) throws Exception {
        return new PrintStream(new GZIPOutputStream(Files.newOutputStream(path)), false, "UTF-8");
    }

    // ---- batches that Kafka built ----

    static void batches(PrintStream to) {
        for (CompressionType codec : CODECS) {
            for (int level : levels(codec)) {
                for (byte magic = 0; magic <= 2; magic++) {
                    if (magic < 2 && (codec == CompressionType.ZSTD || level != levels(codec)[0])) continue;
                    MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20), magic,
                        compression(codec, level), TimestampType.CREATE_TIME, 100L, NOW);
                    fill(builder, magic, 300);
                    print(to, "built magic=" + magic + " codec=" + codec.name + " level=" + level, builder.build());
                }
            }
        }
        MemoryRecordsBuilder idempotent = MemoryRecords.builder(ByteBuffer.allocate(1 << 16), (byte) 2,
            Compression.NONE, TimestampType.LOG_APPEND_TIME, 7L, NOW, 4000L, (short) 3, Integer.MAX_VALUE - 1, true, 9);
        fill(idempotent, (byte) 2, 5);
        print(to, "transactional", idempotent.build());
        print(to, "commit", MemoryRecords.withEndTransactionMarker(12L, NOW, 5, 4000L, (short) 3,
            new EndTransactionMarker(ControlRecordType.COMMIT, 77)));
        print(to, "abort", MemoryRecords.withEndTransactionMarker(0L, NOW, -1, 4000L, (short) 3,
            new EndTransactionMarker(ControlRecordType.ABORT, 0)));
        print(to, "leader change", MemoryRecords.withLeaderChangeMessage(3L, NOW, 2, ByteBuffer.allocate(256),
            new LeaderChangeMessage().setLeaderId(1)));
        ByteBuffer empty = ByteBuffer.allocate(61);
        DefaultRecordBatch.writeEmptyHeader(empty, (byte) 2, 5L, (short) 1, 10, 20L, 24L, 3,
            TimestampType.CREATE_TIME, NOW, false, false);
        empty.flip();
        print(to, "empty", MemoryRecords.readableRecords(empty));
    }

    static void fill(MemoryRecordsBuilder builder, byte magic, int count) {
        for (int i = 0; i < count; i++) {
            byte[] key = i % 4 == 1 ? null : ("key-" + i).getBytes();
            byte[] value = i % 7 == 3 ? null : ("value-" + i + "-").repeat(1 + i % 50).getBytes();
            long timestamp = magic == 0 ? RecordBatch.NO_TIMESTAMP : NOW + (i * 37L) % 1000 - 500;
            Header[] headers = new Header[magic < 2 ? 0 : i % 3];
            for (int h = 0; h < headers.length; h++)
                headers[h] = new RecordHeader("h" + h, h == 1 ? null : new byte[] {(byte) i, 2});
            builder.append(timestamp, key, value, headers);
        }
    }

    static int[] levels(CompressionType codec) {
        return switch (codec) {
            case GZIP -> new int[] {-1, 1, 9};
            case LZ4 -> new int[] {9, 1, 17};
            case ZSTD -> new int[] {3, -5, 1, 19};
            default -> new int[] {0};
        };
    }

    static Compression compression(CompressionType codec, int level) {
        return switch (codec) {
            case GZIP -> Compression.gzip().level(level).build();
            case LZ4 -> Compression.lz4().level(level).build();
            case ZSTD -> Compression.zstd().level(level).build();
            default -> Compression.of(codec).build();
        };
    }

    static void print(PrintStream to, String name, MemoryRecords records) {
        to.println("batch " + name);
        to.println("bytes " + hex(records.buffer()));
        for (RecordBatch batch : records.batches())
            for (org.apache.kafka.common.record.internal.Record record : batch) print(to, record);
        to.println("end");
    }

    static void print(PrintStream to, org.apache.kafka.common.record.internal.Record record) {
        StringBuilder line = new StringBuilder("record " + record.offset() + " " + record.timestamp() + " "
            + record.sequence() + " " + hexOrNull(record.key()) + " " + hexOrNull(record.value()));
        for (Header header : record.headers())
            line.append(" ").append(header.key()).append("=")
                .append(hexOrNull(header.value() == null ? null : ByteBuffer.wrap(header.value())));
        to.println(line);
    }

    static String hex(ByteBuffer bytes) {
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return HexFormat.of().formatHex(copy);
    }

    static String hexOrNull(ByteBuffer bytes) {
        return bytes == null ? "null" : "x" + hex(bytes);
    }

    // ---- verdicts over batches ----

    /** A batch put together by hand so that every part of it can be wrong. */
    static class Draft {
        CompressionType codec;
        byte[] body;
        byte[] compressed; // if set, taken instead of the body
        long baseOffset = 0;
        int lastOffsetDelta = 2;
        int count = 3;
        long baseTimestamp = NOW;
        long maxTimestamp = NOW + 2;
        long producerId = -1;
        short producerEpoch = -1;
        int baseSequence = -1;
        int attributes = 0;
        byte magic = 2;
        int crcXor = 0;
        int lengthAdd = 0;
        int cut = 0;
        byte[] tail = {};

        byte[] build() {
            byte[] payload = compressed != null ? compressed : compress(codec, body);
            ByteBuffer b = ByteBuffer.allocate(61 + payload.length + tail.length);
            b.putLong(baseOffset).putInt(49 + payload.length + lengthAdd).putInt(-1).put(magic).putInt(0)
                .putShort((short) (attributes | codec.id)).putInt(lastOffsetDelta).putLong(baseTimestamp)
                .putLong(maxTimestamp).putLong(producerId).putShort(producerEpoch).putInt(baseSequence)
                .putInt(count).put(payload);
            b.putInt(17, (int) Crc32C.compute(b.array(), 21, 40 + payload.length) ^ crcXor);
            b.put(tail);
            byte[] whole = new byte[b.capacity() - cut];
            b.get(0, whole);
            return whole;
        }
    }

    static byte[] compress(CompressionType codec, byte[] body) {
        ByteBufferOutputStream to = new ByteBufferOutputStream(body.length + 512);
        try (OutputStream out = Compression.of(codec).build().wrapForOutput(to, (byte) 2)) {
            out.write(body);
        } catch (Exception e) {
            throw new RuntimeException(e);
        }
        ByteBuffer done = to.buffer();
        done.flip();
        byte[] bytes = new byte[done.remaining()];
        done.get(bytes);
        return bytes;
    }

    static byte[] record(int lengthAdd, int attributes, long timestampDelta, int offsetDelta, byte[] key, byte[] value,
                         int headerCount, byte[] headers) {
        ByteBuffer b = ByteBuffer.allocate(1 << 17);
        b.put((byte) attributes);
        ByteUtils.writeVarlong(timestampDelta, b);
        ByteUtils.writeVarint(offsetDelta, b);
        for (byte[] field : new byte[][] {key, value}) {
            ByteUtils.writeVarint(field == null ? -1 : field.length, b);
            if (field != null) b.put(field);
        }
        ByteUtils.writeVarint(headerCount, b);
        b.put(headers);
        int length = b.position();
        ByteBuffer whole = ByteBuffer.allocate(length + 5);
        ByteUtils.writeVarint(length + lengthAdd, whole);
        whole.put(b.array(), 0, length);
        byte[] bytes = new byte[whole.position()];
        whole.get(0, bytes);
        return bytes;
    }

    static byte[] simple(long timestampDelta, int offsetDelta) {
        return record(0, 0, timestampDelta, offsetDelta, "k".getBytes(), ("value" + offsetDelta).getBytes(), 0, new byte[0]);
    }

    static byte[] join(byte[]... parts) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (byte[] part : parts) out.writeBytes(part);
        return out.toByteArray();
    }

    static Map<String, Consumer<Draft>> cases() {
        Map<String, Consumer<Draft>> cases = new LinkedHashMap<>();
        byte[] key = "k".getBytes();
        byte[] value = "v".getBytes();
        byte[] none = {};
        cases.put("plain", d -> { });
        cases.put("max timestamp too small", d -> d.maxTimestamp = NOW);
        cases.put("max timestamp too large", d -> d.maxTimestamp = NOW + 50);
        cases.put("null key", d -> d.body = join(simple(0, 0), record(0, 0, 1, 1, null, value, 0, none), simple(2, 2)));
        cases.put("null keys", d -> d.body = join(record(0, 0, 0, 0, null, value, 0, none),
            record(0, 0, 1, 1, null, value, 0, none), record(0, 0, 2, 2, null, null, 0, none)));
        cases.put("four null keys", d -> {
            d.count = 4; d.lastOffsetDelta = 3;
            byte[][] r = new byte[4][];
            for (int i = 0; i < 4; i++) r[i] = record(0, 0, i, i, null, value, 0, none);
            d.body = join(r);
            d.maxTimestamp = NOW + 3;
        });
        cases.put("null value", d -> d.body = join(simple(0, 0), record(0, 0, 1, 1, key, null, 0, none), simple(2, 2)));
        cases.put("key length -2", d -> d.body = join(simple(0, 0), simple(1, 1), new byte[] {14, 0, 4, 4, 3, 2, 'v', 0}));
        cases.put("headers", d -> d.body = join(simple(0, 0), simple(1, 1),
            record(0, 0, 2, 2, key, value, 2, new byte[] {2, 'a', 2, 'b', 0, 1})));
        cases.put("record attributes set", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0x7f, 2, 2, key, value, 0, none)));
        cases.put("large values", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0, 2, 2, key, new byte[100_000], 0, none)));
        cases.put("timestamps old", d -> { d.baseTimestamp = NOW - 5000; d.maxTimestamp = NOW - 4998; });
        cases.put("timestamp at before bound", d -> { d.baseTimestamp = NOW - 1000; d.maxTimestamp = NOW - 998; });
        cases.put("timestamps future", d -> { d.baseTimestamp = NOW + 3_600_000; d.maxTimestamp = NOW + 3_600_002; });
        cases.put("timestamp none", d -> { d.baseTimestamp = -1; d.body = join(simple(0, 0), simple(0, 1), simple(0, 2)); d.maxTimestamp = -1; });
        cases.put("timestamp negative", d -> { d.baseTimestamp = -5; d.maxTimestamp = -3; });
        cases.put("timestamp smallest", d -> { d.baseTimestamp = Long.MIN_VALUE; d.maxTimestamp = Long.MIN_VALUE + 2; });
        cases.put("timestamp wraps", d -> { d.baseTimestamp = Long.MAX_VALUE; d.maxTimestamp = Long.MAX_VALUE; });
        cases.put("future and null key", d -> { d.baseTimestamp = NOW + 3_600_001; d.maxTimestamp = d.baseTimestamp + 2;
            d.body = join(simple(0, 0), record(0, 0, 1, 1, null, value, 0, none), simple(2, 2)); });
        cases.put("log append time flag", d -> d.attributes = 8);
        cases.put("log append time flag, max none", d -> { d.attributes = 8; d.maxTimestamp = -1; });
        cases.put("log append time flag, max future", d -> { d.attributes = 8; d.maxTimestamp = NOW + 3_600_001; });
        cases.put("high attribute byte", d -> d.attributes = 0x7700);
        cases.put("high attribute byte, max wrong", d -> { d.attributes = 0x7780; d.maxTimestamp = 5; });
        cases.put("delete horizon flag", d -> d.attributes = 0x40);
        cases.put("delete horizon flag, max wrong", d -> { d.attributes = 0x40; d.maxTimestamp = 5; });
        cases.put("control", d -> d.attributes = 0x20);
        cases.put("idempotent", d -> { d.producerId = 9; d.producerEpoch = 1; d.baseSequence = 0; });
        cases.put("transactional", d -> { d.producerId = 9; d.producerEpoch = 1; d.baseSequence = 0; d.attributes = 0x10; });
        cases.put("idempotent without sequence", d -> { d.producerId = 9; d.producerEpoch = 1; });
        cases.put("base offset 5", d -> d.baseOffset = 5);
        cases.put("base offset -1", d -> d.baseOffset = -1);
        cases.put("offset delta 1 less", d -> d.lastOffsetDelta = 1);
        cases.put("offset delta 1 more", d -> d.lastOffsetDelta = 3);
        cases.put("offset delta -1", d -> d.lastOffsetDelta = -1);
        cases.put("offset delta smallest", d -> d.lastOffsetDelta = Integer.MIN_VALUE);
        cases.put("count 0", d -> d.count = 0);
        cases.put("count 0, no body", d -> { d.count = 0; d.lastOffsetDelta = 0; d.body = none; });
        cases.put("count -1", d -> d.count = -1);
        cases.put("count largest", d -> { d.count = Integer.MAX_VALUE; d.lastOffsetDelta = Integer.MAX_VALUE - 1; });
        cases.put("one record fewer than declared", d -> d.body = join(simple(0, 0), simple(1, 1)));
        cases.put("one record more than declared", d -> d.body = join(simple(0, 0), simple(1, 1), simple(2, 2), simple(3, 3)));
        cases.put("byte after the records", d -> d.body = join(simple(0, 0), simple(1, 1), simple(2, 2), new byte[] {0}));
        cases.put("body cut inside a record", d -> { byte[] b = join(simple(0, 0), simple(1, 1), simple(2, 2));
            d.body = java.util.Arrays.copyOf(b, b.length - 3); });
        cases.put("no body", d -> d.body = none);
        cases.put("offset deltas repeat", d -> d.body = join(simple(0, 0), simple(1, 0), simple(2, 2)));
        cases.put("offset deltas from 1", d -> d.body = join(simple(0, 1), simple(1, 2), simple(2, 3)));
        cases.put("offset deltas negative", d -> d.body = join(simple(0, -1), simple(1, -2), simple(2, -3)));
        cases.put("offset deltas wrong and null key", d -> d.body = join(simple(0, 0), record(0, 0, 1, 1, null, value, 0, none), simple(2, 7)));
        cases.put("record length 1 less", d -> d.body = join(simple(0, 0), simple(1, 1), record(-1, 0, 2, 2, key, value, 0, none)));
        cases.put("record length 1 more", d -> d.body = join(simple(0, 0), simple(1, 1), record(1, 0, 2, 2, key, value, 0, none)));
        cases.put("inner record length 1 more", d -> d.body = join(simple(0, 0), record(1, 0, 1, 1, key, value, 0, none), simple(2, 2)));
        cases.put("inner record length 1 less", d -> d.body = join(simple(0, 0), record(-1, 0, 1, 1, key, value, 0, none), simple(2, 2)));
        cases.put("record length negative", d -> d.body = join(simple(0, 0), simple(1, 1), record(-100, 0, 2, 2, key, value, 0, none)));
        cases.put("header count negative", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0, 2, 2, key, value, -1, none)));
        cases.put("header count too large", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0, 2, 2, key, value, 9, none)));
        cases.put("header count huge", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0, 2, 2, key, value, Integer.MAX_VALUE, none)));
        cases.put("header key null", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0, 2, 2, key, value, 1, new byte[] {1, 0})));
        cases.put("header key not UTF-8", d -> d.body = join(simple(0, 0), simple(1, 1), record(0, 0, 2, 2, key, value, 1, new byte[] {2, -1, 0})));
        cases.put("value too long", d -> d.body = join(simple(0, 0), simple(1, 1), new byte[] {14, 0, 4, 4, 2, 'k', 100, 0}));
        cases.put("varint too long", d -> d.body = join(simple(0, 0), simple(1, 1), new byte[] {-128, -128, -128, -128, -128, 0}));
        cases.put("varint in record too long", d -> d.body = join(simple(0, 0), simple(1, 1), new byte[] {20, 0, 4, -1, -1, -1, -1, -1, 1, 1, 0}));
        cases.put("wrong checksum", d -> d.crcXor = 1);
        cases.put("codec 5", d -> d.attributes = 5);
        cases.put("codec 7", d -> d.attributes = 7);
        cases.put("magic 1", d -> d.magic = 1);
        cases.put("magic 0", d -> d.magic = 0);
        cases.put("magic 3", d -> d.magic = 3);
        cases.put("magic -1", d -> d.magic = -1);
        cases.put("truncated by 1", d -> d.cut = 1);
        cases.put("only 17 bytes", d -> { d.body = none; d.compressed = none; d.cut = 44; });
        cases.put("only 12 bytes", d -> { d.body = none; d.compressed = none; d.cut = 49; });
        cases.put("length 13", d -> { d.compressed = none; d.lengthAdd = -36; });
        cases.put("length 48", d -> { d.compressed = none; d.lengthAdd = -1; });
        cases.put("length negative", d -> d.lengthAdd = -1_000_000);
        cases.put("trailing bytes", d -> d.tail = new byte[] {1, 2, 3});
        cases.put("trailing 12 zeros", d -> d.tail = new byte[12]);
        cases.put("trailing partial batch", d -> d.tail = java.util.Arrays.copyOf(draft(CompressionType.NONE, "plain").build(), 70));
        cases.put("two batches", d -> d.tail = draft(CompressionType.NONE, "plain").build());
        cases.put("two batches, second of magic 3", d -> { Draft t = draft(CompressionType.NONE, "plain"); t.magic = 3; d.tail = t.build(); });
        cases.put("compressed flipped", d -> { byte[] c = compress(d.codec, d.body); c[c.length / 2] ^= 0x55; d.compressed = c; });
        cases.put("compressed first byte flipped", d -> { byte[] c = compress(d.codec, d.body); c[0] ^= 0x55; d.compressed = c; });
        cases.put("compressed cut by half", d -> { byte[] c = compress(d.codec, d.body); d.compressed = java.util.Arrays.copyOf(c, c.length / 2); });
        cases.put("compressed cut by 1", d -> { byte[] c = compress(d.codec, d.body); d.compressed = java.util.Arrays.copyOf(c, c.length - 1); });
        cases.put("compressed cut by 9", d -> { byte[] c = compress(d.codec, d.body); d.compressed = java.util.Arrays.copyOf(c, c.length - 9); });
        cases.put("compressed with a tail", d -> d.compressed = join(compress(d.codec, d.body), new byte[] {9, 9, 9, 9, 9}));
        cases.put("compressed twice in a row", d -> d.compressed = join(compress(d.codec, join(simple(0, 0), simple(1, 1))), compress(d.codec, simple(2, 2))));
        cases.put("snappy raw", d -> { if (d.codec == CompressionType.SNAPPY) try { d.compressed = org.xerial.snappy.Snappy.compress(d.body); } catch (Exception e) { throw new RuntimeException(e); } });
        return cases;
    }

    static Draft draft(CompressionType codec, String name) {
        Draft draft = new Draft();
        draft.codec = codec;
        draft.body = join(simple(0, 0), simple(1, 1), simple(2, 2));
        cases().get(name).accept(draft);
        return draft;
    }

    record Rules(String name, short version, AppendOrigin origin, Map<String, String> config) { }

    static List<Rules> rules() {
        List<Rules> rules = new ArrayList<>();
        short v = 13;
        rules.add(new Rules("default", v, AppendOrigin.CLIENT, Map.of()));
        rules.add(new Rules("compacted", v, AppendOrigin.CLIENT, Map.of("cleanup.policy", "compact")));
        rules.add(new Rules("append-time", v, AppendOrigin.CLIENT, Map.of("message.timestamp.type", "LogAppendTime")));
        for (String codec : new String[] {"uncompressed", "gzip", "snappy", "lz4", "zstd"})
            rules.add(new Rules("to-" + codec, v, AppendOrigin.CLIENT, Map.of("compression.type", codec)));
        rules.add(new Rules("to-lz4-append-time-compacted", v, AppendOrigin.CLIENT, Map.of("compression.type", "lz4",
            "message.timestamp.type", "LogAppendTime", "cleanup.policy", "compact")));
        rules.add(new Rules("before-1000", v, AppendOrigin.CLIENT, Map.of("message.timestamp.before.max.ms", "1000")));
        rules.add(new Rules("max-110", v, AppendOrigin.CLIENT, Map.of("max.message.bytes", "110")));
        rules.add(new Rules("to-uncompressed-max-110", v, AppendOrigin.CLIENT, Map.of("max.message.bytes", "110", "compression.type", "uncompressed")));
        rules.add(new Rules("version-6", (short) 6, AppendOrigin.CLIENT, Map.of()));
        rules.add(new Rules("coordinator", v, AppendOrigin.COORDINATOR, Map.of()));
        rules.add(new Rules("coordinator-to-gzip", v, AppendOrigin.COORDINATOR, Map.of("compression.type", "gzip")));
        return rules;
    }

    static void verdicts(PrintStream to, Path dir) throws Exception {
        int number = 0;
        for (String name : cases().keySet()) {
            for (CompressionType codec : CODECS) {
                byte[] input = draft(codec, name).build();
                to.println("case " + codec.name + " " + name);
                to.println("input " + HexFormat.of().formatHex(input));
                for (Rules rules : rules()) {
                    Path home = dir.resolve("t" + number++ + "-0");
                    Files.createDirectories(home);
                    to.println("rules " + rules.name + " " + verdict(home.toFile(), rules, input));
                }
            }
        }
    }

    static String verdict(File dir, Rules rules, byte[] input) throws Exception {
        KafkaScheduler scheduler = SCHEDULER;
        UnifiedLog log = UnifiedLog.create(dir, new LogConfig(rules.config), 0L, 0L, scheduler, STATS, CLOCK,
            60_000, new ProducerStateManagerConfig(86_400_000, false), 600_000, new LogDirFailureChannel(5), true,
            Optional.empty());
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(input.clone()));
            ProduceRequest.validateRecords(rules.version, records);
            LogAppendInfo info = log.appendAsLeader(records, 5, rules.origin, RequestLocal.noCaching(),
                VerificationGuard.SENTINEL, (short) 0);
            File segment = new File(dir, "00000000000000000000.log");
            byte[] stored = Files.readAllBytes(segment.toPath());
            StringBuilder line = new StringBuilder("ok " + info.maxTimestamp() + " " + HexFormat.of().formatHex(stored));
            return line.toString();
        } catch (RecordValidationException e) {
            StringBuilder line = new StringBuilder("rejected " + Errors.forException(e.invalidException()).code()
                + "|" + e.invalidException().getMessage());
            for (ProduceResponse.RecordError error : e.recordErrors())
                line.append("|").append(error.batchIndex).append(" ").append(error.message);
            return line.toString().replace(dir.getName(), "TP");
        } catch (Throwable t) {
            return "error " + Errors.forException(t).code() + " " + t.toString().replace('\n', ' ').replace(dir.getName(), "TP");
        } finally {
            log.close();
            for (File file : dir.listFiles()) file.delete();
            dir.delete();
        }
    }

    static final KafkaScheduler SCHEDULER = new KafkaScheduler(1);
    static final BrokerTopicStats STATS = new BrokerTopicStats();

    static {
        SCHEDULER.startup();
    }

    static final Time CLOCK = new Time() {
        public long milliseconds() { return NOW; }
        public long nanoseconds() { return NOW * 1_000_000; }
        public void sleep(long ms) { }
        public void waitObject(Object o, Supplier<Boolean> done, long deadline) { }
    };
}
