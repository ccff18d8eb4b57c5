// Describes a broker, its cluster's default, a topic and a group of a running Kafka, after setting a few of their
// configurations. Run by `cargo xtask config-facts`.
//
// A line is: resource, name, value (`-` for none, else after '='), source, read-only, sensitive, type, synonyms
// (`name=value@source` joined by ';'); tab separated, sorted by name. The broker's own id, ports and paths are in it.
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.ConfigResource.Type;

public class DescribeConfigs {
    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            String id = admin.describeCluster().nodes().get().iterator().next().idString();
            String topic = "config-facts";
            if (!admin.listTopics().names().get().contains(topic)) {
                admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            }
            ConfigResource broker = new ConfigResource(Type.BROKER, id);
            ConfigResource cluster = new ConfigResource(Type.BROKER, "");
            ConfigResource topics = new ConfigResource(Type.TOPIC, topic);
            ConfigResource group = new ConfigResource(Type.GROUP, "g");
            ConfigResource metrics = new ConfigResource(Type.CLIENT_METRICS, "m");
            alter(admin, broker, Map.of("log.cleaner.threads", "2", "log.retention.ms", "7200000",
                "listener.name.plaintext.max.connections", "77"));
            alter(admin, cluster, Map.of("log.retention.ms", "3600000", "message.max.bytes", "2000000",
                "leader.replication.throttled.rate", "1000"));
            alter(admin, topics, Map.of("retention.ms", "1000", "cleanup.policy", "compact,delete",
                "min.cleanable.dirty.ratio", "0.10", "segment.bytes", "2097152"));
            alter(admin, group, Map.of("consumer.session.timeout.ms", "50000", "share.auto.offset.reset", "earliest"));
            alter(admin, metrics, Map.of("interval.ms", "1000", "metrics", "a,b"));
            Thread.sleep(1000);
            print(admin, "broker", broker);
            print(admin, "cluster", cluster);
            print(admin, "topic", topics);
            print(admin, "group", group);
            print(admin, "client-metrics", metrics);
        }
    }

    static void alter(Admin admin, ConfigResource resource, Map<String, String> values) throws Exception {
        admin.incrementalAlterConfigs(Map.of(resource, values.entrySet().stream()
            .map(e -> new AlterConfigOp(new ConfigEntry(e.getKey(), e.getValue()), AlterConfigOp.OpType.SET))
            .collect(Collectors.toList()))).all().get();
    }

    static void print(Admin admin, String scope, ConfigResource resource) throws Exception {
        Config config = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true))
            .all().get().get(resource);
        config.entries().stream().sorted(Comparator.comparing(ConfigEntry::name)).forEach(e ->
            System.out.println(String.join("\t", scope, e.name(), text(e.value()), e.source().name(),
                String.valueOf(e.isReadOnly()), String.valueOf(e.isSensitive()), e.type().name(),
                e.synonyms().stream().map(s -> s.name() + text(s.value()) + "@" + s.source())
                    .collect(Collectors.joining(";")))));
    }

    static String text(String value) {
        return value == null ? "-" : "=" + value;
    }
}
