package klamm.interop;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.DataInputStream;
import java.io.EOFException;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiVersionsRequestData;
import org.apache.kafka.common.message.ApiVersionsResponseData;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.requests.RequestUtils;

/**
 * Every version of every request that the broker offers, by Kafka's own codec: each must be answered,
 * the answer must parse to its last byte, and hold the error codes that Kafka's answer holds. A
 * version that is listed works.
 */
final class VersionSweep {
    private static final String TOPIC = "vs-topic";

    private final Options options;

    private VersionSweep(Options options) {
        this.options = options;
    }

    static void add(Suite suite, Options options) throws Exception {
        VersionSweep sweep = new VersionSweep(options);
        Path golden = options.path("golden").resolve("versions.txt");
        boolean record = Boolean.parseBoolean(options.get("record", "false"));
        Map<String, String> expected = new TreeMap<>();
        if (Files.exists(golden)) {
            for (String line : Files.readAllLines(golden)) {
                String[] parts = line.split(": ", 2);
                expected.put(parts[0], parts[1]);
            }
        }
        Map<ApiKeys, short[]> offered = sweep.offered();
        Uuid topicId = sweep.createTopic();
        // The first search for a coordinator makes the offsets topic.
        sweep.call(ApiKeys.FIND_COORDINATOR, (short) 6, topicId);
        Map<String, String> found = new TreeMap<>();
        offered.forEach(
                (key, range) ->
                        suite.test(
                                key.name,
                                () -> {
                                    List<String> differences = new ArrayList<>();
                                    for (short v = range[0]; v <= range[1]; v++) {
                                        if (!Samples.answers(key, v)) {
                                            continue;
                                        }
                                        String name = "%s v%02d".formatted(key.name, v);
                                        String answer = sweep.call(key, v, topicId);
                                        found.put(name, answer);
                                        if (!record && !answer.equals(expected.get(name))) {
                                            differences.add(
                                                    name + ": " + answer + "; Kafka: "
                                                            + expected.get(name));
                                        }
                                    }
                                    Suite.check(
                                            differences.isEmpty(), String.join("\n", differences));
                                }));
        if (record) {
            suite.test(
                    "record",
                    () -> {
                        List<String> lines = new ArrayList<>();
                        found.forEach((name, answer) -> lines.add(name + ": " + answer));
                        Files.write(golden, lines);
                    });
        }
    }

    private Map<ApiKeys, short[]> offered() throws Exception {
        ApiMessage request =
                new ApiVersionsRequestData()
                        .setClientSoftwareName("klamm-interop")
                        .setClientSoftwareVersion("1");
        ApiVersionsResponseData response =
                (ApiVersionsResponseData) exchange(ApiKeys.API_VERSIONS, (short) 3, request);
        Map<ApiKeys, short[]> all = new TreeMap<>();
        for (ApiVersionsResponseData.ApiVersion api : response.apiKeys()) {
            all.put(
                    ApiKeys.forId(api.apiKey()),
                    new short[] {api.minVersion(), api.maxVersion()});
        }
        return all;
    }

    private Uuid createTopic() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrap()))) {
            return admin.createTopics(List.of(new NewTopic(TOPIC, 1, (short) 1)))
                    .topicId(TOPIC)
                    .get();
        }
    }

    /** The error codes of the answer, or how there was none. */
    private String call(ApiKeys key, short version, Uuid topicId) throws Exception {
        ApiMessage response = null;
        // Leaders and coordinators may take a moment to be there.
        for (int i = 0; i < 200; i++) {
            ApiMessage request = Samples.request(key, version, TOPIC, topicId);
            try {
                response = exchange(key, version, request);
            } catch (EOFException e) {
                return "closed";
            }
            String codes = codes(json(key, response, version)).toString();
            if (!codes.matches(".*\\b(5|6|14|15|16)\\b.*")) {
                return codes;
            }
            Thread.sleep(50);
        }
        return codes(json(key, response, version)).toString();
    }

    private static JsonNode json(ApiKeys key, ApiMessage response, short version) throws Exception {
        Class<?> converter = Class.forName(response.getClass().getName() + "JsonConverter");
        return (JsonNode)
                converter
                        .getMethod("write", response.getClass(), short.class)
                        .invoke(null, response, version);
    }

    private static List<Integer> codes(JsonNode node) {
        List<Integer> codes = new ArrayList<>();
        for (Map.Entry<String, JsonNode> field : node.properties()) {
            if (field.getKey().toLowerCase().endsWith("errorcode")) {
                codes.add(field.getValue().asInt());
            } else {
                codes.addAll(codes(field.getValue()));
            }
        }
        if (node.isArray()) {
            node.forEach(element -> codes.addAll(codes(element)));
        }
        return codes.stream().distinct().sorted().toList();
    }

    private ApiMessage exchange(ApiKeys key, short version, ApiMessage request) throws Exception {
        String[] address = options.bootstrap().split(":");
        try (Socket socket = new Socket(address[0], Integer.parseInt(address[1]))) {
            socket.setSoTimeout(20_000);
            RequestHeader header = new RequestHeader(key, version, "klamm-interop", 7);
            ByteBuffer body =
                    RequestUtils.serialize(header.data(), header.headerVersion(), request, version);
            ByteBuffer frame = ByteBuffer.allocate(4 + body.remaining());
            frame.putInt(body.remaining()).put(body);
            socket.getOutputStream().write(frame.array());
            DataInputStream in = new DataInputStream(socket.getInputStream());
            byte[] answer = new byte[in.readInt()];
            in.readFully(answer);
            ByteBufferAccessor bytes = new ByteBufferAccessor(ByteBuffer.wrap(answer));
            Suite.check(bytes.readInt() == 7, "correlation id");
            if (key.responseHeaderVersion(version) > 0) {
                Suite.check(bytes.readUnsignedVarint() == 0, "tagged fields in the header");
            }
            ApiMessage response = key.messageType.newResponse();
            response.read(bytes, version);
            Suite.check(
                    bytes.remaining() == 0,
                    key.name + " v" + version + ": " + bytes.remaining() + " bytes left over");
            return response;
        }
    }
}
