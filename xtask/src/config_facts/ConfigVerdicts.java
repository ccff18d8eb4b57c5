// Reads cases from standard input and prints each with Kafka's verdict. Run by `cargo xtask config-facts`.
//
// A case is `scope TAB properties`, properties being `name=value` joined by " ;; "; `-name` removes one of the base
// properties that a broker case starts from. The verdict is `ok`, or the exception's class and message.
// Scopes: broker (a whole static configuration), topic, group, client-metrics, per-broker and cluster (dynamic changes).
import java.io.*;
import java.util.*;
import java.util.stream.Collectors;
import kafka.server.KafkaConfig;
import org.apache.kafka.coordinator.group.GroupConfig;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.metrics.ClientMetricsConfigs;
import org.apache.kafka.storage.internals.log.LogConfig;

public class ConfigVerdicts {
    static final Map<String, String> BASE = Map.of(
        "node.id", "1",
        "process.roles", "broker,controller",
        "controller.quorum.voters", "1@localhost:9093",
        "listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
        "advertised.listeners", "PLAINTEXT://localhost:9092",
        "controller.listener.names", "CONTROLLER");

    public static void main(String[] args) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        for (String line; (line = in.readLine()) != null; ) {
            if (line.isEmpty() || line.startsWith("#")) continue;
            String[] parts = line.split("\t", -1);
            String verdict;
            try {
                verdict = judge(parts[0], parts.length > 1 ? parts[1] : "");
            } catch (Throwable e) {
                verdict = e.getClass().getSimpleName() + ": " + String.valueOf(e.getMessage()).replace("\n", "\\n");
            }
            out.println(line + "\t" + verdict);
        }
        out.flush();
    }

    static String judge(String scope, String properties) {
        Properties given = new Properties();
        Set<String> removed = new HashSet<>();
        for (String p : properties.split(" ;; ")) {
            int eq = p.indexOf('=');
            if (eq < 0) { if (p.startsWith("-")) removed.add(p.substring(1)); continue; }
            given.setProperty(p.substring(0, eq), p.substring(eq + 1));
        }
        if (scope.equals("broker")) {
            Properties all = new Properties();
            all.putAll(BASE);
            removed.forEach(all::remove);
            all.putAll(given);
            KafkaConfig config = new KafkaConfig(all, false);
            return "ok " + described(config);
        }
        KafkaConfig broker = new KafkaConfig(BASE, false);
        Map<String, String> map = given.stringPropertyNames().stream()
            .collect(Collectors.toMap(n -> n, given::getProperty, (a, b) -> a, TreeMap::new));
        switch (scope) {
            case "topic":
                LogConfig.validate(Map.of(), map, broker.extractLogConfigMap(), false);
                break;
            case "group":
                GroupConfig.validate(map, broker.groupCoordinatorConfig(), broker.shareGroupConfig());
                break;
            case "client-metrics":
                ClientMetricsConfigs.validate("sub", map);
                break;
            case "per-broker":
                DynamicBrokerConfig.validateConfigs(given, true);
                break;
            case "cluster":
                DynamicBrokerConfig.validateConfigs(given, false);
                break;
            default:
                throw new IllegalStateException(scope);
        }
        return "ok";
    }

    static String described(KafkaConfig c) {
        StringBuilder s = new StringBuilder();
        s.append("listeners=").append(endpoints(c.listeners()));
        s.append(" advertised=").append(endpoints(c.effectiveAdvertisedBrokerListeners()));
        s.append(" controllers=").append(endpoints(c.effectiveAdvertisedControllerListeners()));
        s.append(" inter=").append(c.interBrokerListenerName().value()).append('/').append(c.interBrokerSecurityProtocol());
        s.append(" dirs=").append(c.logDirs());
        s.append(" metadata=").append(c.metadataLogDir());
        s.append(" retention=").append(c.logRetentionTimeMillis()).append(" roll=").append(c.logRollTimeMillis());
        return s.toString();
    }

    static String endpoints(scala.collection.Iterable<?> all) {
        List<String> out = new ArrayList<>();
        all.foreach(e -> {
            org.apache.kafka.common.Endpoint p = (org.apache.kafka.common.Endpoint) e;
            out.add(p.listener() + "/" + p.securityProtocol() + "/" + p.host() + "/" + p.port());
            return null;
        });
        return out.toString();
    }
}
