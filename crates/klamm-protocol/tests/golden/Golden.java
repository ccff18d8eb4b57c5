import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.lang.reflect.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.jar.*;
import java.util.zip.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.InvalidMetadataException;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.metadata.MetadataRecordSerde;
import org.apache.kafka.server.common.ApiMessageAndVersion;

/**
 * Writes bytes of every message in every version with Kafka's own codec, for the tests of
 * klamm-protocol to compare with. Run by `cargo xtask golden --jars DIR`.
 *
 * Values are drawn from the schemas inside the jars with a seed taken from the name, so two runs
 * over the same jars write the same file. The format, all numbers big-endian:
 *
 *   entry  = name version bytes count cross*
 *   name   = u8 length, ASCII
 *   bytes  = i32 length, then so many
 *   cross  = i16 version, i32 length, u32 CRC-32: what comes out when Kafka reads the bytes and
 *            writes the message in that version; the length is -1 if it refuses to.
 *
 * An entry whose name begins with "framed:" is a metadata record with Kafka's frame around it, one
 * with "prefixed:" a key or value of a coordinator record with its type or version in front.
 */
public class Golden {
    /** Jar, folder of the schemas in it, package of the classes made from them. */
    static final String[][] SOURCES = {
        {"kafka-clients", "common/message/", "org.apache.kafka.common.message."},
        {"kafka-metadata", "common/metadata/", "org.apache.kafka.common.metadata."},
        {"kafka-group-coordinator", "common/message/", "org.apache.kafka.coordinator.group.generated."},
        {"kafka-transaction-coordinator", "common/message/", "org.apache.kafka.coordinator.transaction.generated."},
        {"kafka-share-coordinator", "common/message/", "org.apache.kafka.coordinator.share.generated."},
        {"kafka-storage", "message/", "org.apache.kafka.server.log.remote.metadata.storage.generated."},
    };

    enum Shape { DEFAULT, EMPTY, SMALL, LARGE, MIXED, TAGS }

    /** How many messages are made of each shape that draws values. */
    static final int ROUNDS = 2;

    static final ObjectMapper JSON = new ObjectMapper().enable(JsonParser.Feature.ALLOW_COMMENTS);

    public static void main(String[] args) throws Exception {
        Path jars = Path.of(args[0]);
        Path out = Path.of(args[1]);
        try (DataOutputStream file = new DataOutputStream(
                new GZIPOutputStream(Files.newOutputStream(out.resolve("messages.bin.gz"))) {
                    { def.setLevel(Deflater.BEST_COMPRESSION); }
                })) {
            for (String[] source : SOURCES) {
                for (JsonNode schema : schemas(jars, source[0], source[1])) {
                    new Golden(schema, source[2]).write(file);
                }
            }
        }
        Files.writeString(out.resolve("api_keys.tsv"), apiKeys());
        Files.writeString(out.resolve("errors.tsv"), errors());
    }

    static List<JsonNode> schemas(Path jars, String name, String folder) throws IOException {
        TreeMap<String, JsonNode> found = new TreeMap<>();
        try (DirectoryStream<Path> files = Files.newDirectoryStream(jars, name + "-[0-9]*.jar")) {
            for (Path path : files) {
                try (JarFile jar = new JarFile(path.toFile())) {
                    for (JarEntry entry : Collections.list(jar.entries())) {
                        String file = entry.getName();
                        if (file.startsWith(folder) && file.endsWith(".json")) {
                            found.put(file, JSON.readTree(jar.getInputStream(entry)));
                        }
                    }
                }
            }
        }
        if (found.isEmpty()) throw new IOException("no schemas of " + name);
        found.values().removeIf(schema -> schema.get("validVersions").asText().equals("none"));
        // Kept by the storage layer in files of its own format.
        found.values().removeIf(schema -> schema.get("name").asText().equals("ProducerSnapshot"));
        return new ArrayList<>(found.values());
    }

    final JsonNode schema;
    final String name;
    final int[] valid;
    final int[] flexible;
    final Class<?> type;
    final Method fromJson;
    final Map<String, JsonNode> common = new HashMap<>();
    long state;
    Shape shape;

    Golden(JsonNode schema, String pkg) throws Exception {
        this.schema = schema;
        name = schema.get("name").asText();
        valid = range(schema.get("validVersions").asText());
        flexible = range(schema.get("flexibleVersions").asText());
        String kind = schema.get("type").asText();
        boolean wire = kind.equals("request") || kind.equals("response") || kind.equals("header");
        String className = pkg + name + (wire ? "Data" : "");
        type = Class.forName(className);
        fromJson = Class.forName(className + "JsonConverter").getMethod("read", JsonNode.class, short.class);
        for (JsonNode struct : schema.path("commonStructs")) {
            common.put(struct.get("name").asText(), struct.get("fields"));
        }
    }

    static int[] range(String text) {
        if (text.equals("none")) return new int[] {0, -1};
        if (text.endsWith("+")) return new int[] {Integer.parseInt(text.replace("+", "")), Short.MAX_VALUE};
        String[] ends = text.split("-");
        return new int[] {Integer.parseInt(ends[0]), Integer.parseInt(ends[ends.length - 1])};
    }

    static boolean in(JsonNode field, String key, int version) {
        if (!field.has(key)) return false;
        int[] range = range(field.get(key).asText());
        return range[0] <= version && version <= range[1];
    }

    void write(DataOutputStream out) throws Exception {
        for (int version = valid[0]; version <= valid[1]; version++) {
            boolean tags = flexible[0] <= version && version <= flexible[1];
            Set<ByteBuffer> seen = new HashSet<>();
            for (int i = 0; i < ROUNDS * Shape.values().length; i++) {
                shape = Shape.values()[i / ROUNDS];
                if (shape == Shape.TAGS && !tags) continue;
                state = (name + "/" + version + "/" + i).hashCode();
                Message message = message((short) version);
                byte[] bytes = encode(message, (short) version);
                // The default of some structs cannot be written in every version.
                if (bytes == null || !seen.add(ByteBuffer.wrap(bytes))) continue;
                entry(out, name, version, bytes);
                out.writeByte(valid[1] - valid[0] + 1);
                for (int other = valid[0]; other <= valid[1]; other++) {
                    Message read = (Message) type.getConstructor().newInstance();
                    read.read(new ByteBufferAccessor(ByteBuffer.wrap(bytes)), (short) version);
                    byte[] cross = encode(read, (short) other);
                    if (other == version && !Arrays.equals(bytes, cross)) throw new Exception(name);
                    CRC32 crc = new CRC32();
                    if (cross != null) crc.update(cross);
                    out.writeShort(other);
                    out.writeInt(cross == null ? -1 : cross.length);
                    out.writeInt((int) crc.getValue());
                }
                if (type.getPackageName().equals("org.apache.kafka.common.metadata")) {
                    framed(out, (ApiMessage) message, version);
                }
                if (schema.get("type").asText().startsWith("coordinator-")) {
                    prefixed(out, (ApiMessage) message, version);
                }
            }
        }
    }

    void framed(DataOutputStream out, ApiMessage message, int version) throws IOException {
        ApiMessageAndVersion record = new ApiMessageAndVersion(message, (short) version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(MetadataRecordSerde.INSTANCE.recordSize(record, cache));
        MetadataRecordSerde.INSTANCE.write(record, cache, new ByteBufferAccessor(buffer));
        entry(out, "framed:" + name, version, buffer.array());
        out.writeByte(0);
    }

    void prefixed(DataOutputStream out, ApiMessage message, int version) throws IOException {
        byte[] bytes = name.endsWith("Key")
            ? MessageUtil.toCoordinatorTypePrefixedBytes(message)
            : MessageUtil.toVersionPrefixedBytes((short) version, message);
        entry(out, "prefixed:" + name, version, bytes);
        out.writeByte(0);
    }

    static void entry(DataOutputStream out, String name, int version, byte[] bytes) throws IOException {
        out.writeByte(name.length());
        out.writeBytes(name);
        out.writeShort(version);
        out.writeInt(bytes.length);
        out.write(bytes);
    }

    Message message(short version) throws Exception {
        if (shape == Shape.DEFAULT) return (Message) type.getConstructor().newInstance();
        Message message;
        try {
            message = (Message) fromJson.invoke(null, struct(schema.get("fields"), version), version);
        } catch (InvocationTargetException e) {
            throw new Exception(name + " version " + version + " shape " + shape, e);
        }
        if (shape == Shape.TAGS) addTags(message);
        return message;
    }

    /** Kafka's bytes, or null if Kafka does not write the message in this version. */
    static byte[] encode(Message message, short version) {
        try {
            ObjectSerializationCache cache = new ObjectSerializationCache();
            ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
            message.write(new ByteBufferAccessor(buffer), cache, version);
            if (buffer.hasRemaining()) throw new IllegalStateException("wrong size");
            return buffer.array();
        } catch (org.apache.kafka.common.errors.UnsupportedVersionException | NullPointerException e) {
            return null;
        }
    }

    /** Unknown tagged fields on the message and on all structs inside it. */
    void addTags(Object value) throws Exception {
        if (value instanceof Collection) {
            for (Object element : (Collection<?>) value) addTags(element);
        }
        if (!(value instanceof Message)) return;
        for (Field field : value.getClass().getDeclaredFields()) {
            if (Modifier.isStatic(field.getModifiers()) || field.getType().isPrimitive()) continue;
            if (field.getName().startsWith("_")) continue;
            field.setAccessible(true);
            addTags(field.get(value));
        }
        List<RawTaggedField> tags = ((Message) value).unknownTaggedFields();
        for (int tag : new int[] {40, 127, 128, 20_000}) {
            if (draw(2) == 0) tags.add(new RawTaggedField(tag, bytes(draw(8) == 0 ? 150 : draw(4))));
        }
    }

    ObjectNode struct(JsonNode fields, int version) {
        ObjectNode node = JsonNodeFactory.instance.objectNode();
        for (JsonNode field : fields) {
            String versions = field.has("versions") ? "versions" : "taggedVersions";
            if (!in(field, versions, version)) continue;
            boolean tagged = in(field, "taggedVersions", version);
            if (tagged && (shape == Shape.EMPTY || shape == Shape.MIXED && draw(2) == 0)) continue;
            String name = field.get("name").asText();
            node.set(Character.toLowerCase(name.charAt(0)) + name.substring(1), value(field, version));
        }
        return node;
    }

    JsonNode value(JsonNode field, int version) {
        String type = field.get("type").asText();
        boolean nullable = in(field, "nullableVersions", version);
        if (nullable && (shape == Shape.EMPTY || shape.ordinal() >= Shape.MIXED.ordinal() && draw(3) == 0)) {
            return NullNode.instance;
        }
        if (!type.startsWith("[]")) return element(type, field, version);
        ArrayNode array = JsonNodeFactory.instance.arrayNode();
        int length = switch (shape) {
            case EMPTY -> 0;
            case LARGE -> type.equals("[]int32") && draw(6) == 0 ? 130 : 2;
            default -> draw(3);
        };
        for (int i = 0; i < length; i++) array.add(element(type.substring(2), field, version));
        return array;
    }

    JsonNode element(String type, JsonNode field, int version) {
        JsonNodeFactory json = JsonNodeFactory.instance;
        return switch (type) {
            case "bool" -> json.booleanNode(draw(2) == 1);
            case "int8" -> json.numberNode((byte) number());
            case "int16" -> json.numberNode((short) number());
            case "uint16" -> json.numberNode((int) (number() & 0xffff));
            case "int32" -> json.numberNode((int) number());
            case "uint32" -> json.numberNode(number() & 0xffff_ffffL);
            case "int64" -> json.numberNode(number());
            case "float64" -> json.numberNode(shape == Shape.EMPTY ? 0.0 : draw(1000) / 8.0 - 7);
            case "uuid" -> json.textNode(
                (shape == Shape.EMPTY ? Uuid.ZERO_UUID : new Uuid(next(), next())).toString());
            case "string" -> json.textNode(text());
            case "bytes", "records" -> json.binaryNode(bytes(shape == Shape.EMPTY ? 0 : draw(12)));
            default -> {
                JsonNode fields = field.has("fields") ? field.get("fields") : common.get(type);
                if (fields == null) throw new IllegalStateException("no struct " + type);
                yield struct(fields, version);
            }
        };
    }

    long number() {
        if (shape == Shape.EMPTY) return 0;
        if (shape == Shape.LARGE) {
            long[] ends = {Long.MAX_VALUE, Long.MIN_VALUE, -1, Integer.MAX_VALUE, Integer.MIN_VALUE,
                Short.MAX_VALUE, Short.MIN_VALUE, Byte.MAX_VALUE, Byte.MIN_VALUE};
            return ends[draw(ends.length)];
        }
        return draw(3) == 0 ? draw(100) : next() >> 8 * draw(8);
    }

    String text() {
        if (shape == Shape.EMPTY) return "";
        String[] words = {"", "a", "topic-1", "__consumer_offsets", "gr\u00fc\u00df", "\u6f22\u5b57", "\ud83d\ude80"};
        String word = words[draw(words.length)];
        return shape == Shape.LARGE && draw(4) == 0 ? "long-name.".repeat(13) : word;
    }

    byte[] bytes(int length) {
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i++) bytes[i] = (byte) next();
        return bytes;
    }

    int draw(int bound) {
        return (int) Long.remainderUnsigned(next(), bound);
    }

    /** SplitMix64. */
    long next() {
        state += 0x9e3779b97f4a7c15L;
        long z = state;
        z = (z ^ z >>> 30) * 0xbf58476d1ce4e5b9L;
        z = (z ^ z >>> 27) * 0x94d049bb133111ebL;
        return z ^ z >>> 31;
    }

    /** Key, name, oldest, latest, latest stable; then header versions of each, and the listeners. */
    static String apiKeys() {
        StringBuilder out = new StringBuilder();
        for (ApiKeys key : ApiKeys.values()) {
            StringJoiner headers = new StringJoiner(",");
            if (key.hasValidVersion()) {
                for (short v = key.oldestVersion(); v <= key.latestVersion(); v++) {
                    headers.add(key.requestHeaderVersion(v) + "/" + key.responseHeaderVersion(v));
                }
            }
            StringJoiner listeners = new StringJoiner(",");
            for (ApiMessageType.ListenerType listener : ApiMessageType.ListenerType.values()) {
                if (!key.inScope(listener)) continue;
                for (boolean unstable : new boolean[] {false, true}) {
                    key.toApiVersionForApiResponse(unstable, listener).ifPresent(
                        range -> listeners.add(listener + " " + range.minVersion() + "-" + range.maxVersion()));
                }
            }
            out.append(String.join("\t", "" + key.id, key.name, "" + key.oldestVersion(),
                "" + key.latestVersion(), "" + key.latestVersion(false), headers.toString(),
                listeners.toString())).append('\n');
        }
        return out.toString();
    }

    /** Code, name, whether retriable, whether it asks for new metadata. */
    static String errors() {
        StringBuilder out = new StringBuilder();
        for (Errors error : Errors.values()) {
            out.append(String.join("\t", "" + error.code(), error.name(),
                "" + (error.exception() instanceof RetriableException),
                "" + (error.exception() instanceof InvalidMetadataException))).append('\n');
        }
        return out.toString();
    }
}
