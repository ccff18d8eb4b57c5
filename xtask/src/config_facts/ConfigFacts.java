// Prints the facts about every configuration that a Kafka broker, topic, group and client-metrics
// resource knows, one a line, tab separated, sorted. Run by `cargo xtask config-facts`.
//
// scope  name  type  importance  default  validator  update-mode  internal  synonyms
//
// `default`: `required` (none given), `null`, or the default's own text after '='.
// `synonyms`: for a topic or group config the broker configs that feed it, best first; for a broker config the names
// that share its meaning, itself among them. `*h` / `*m`: the value is in hours / minutes.
import java.lang.reflect.Field;
import java.util.*;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.coordinator.group.GroupConfig;
import org.apache.kafka.server.config.AbstractKafkaConfig;
import org.apache.kafka.server.config.ConfigSynonym;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.config.DynamicConfig;
import org.apache.kafka.server.config.ServerTopicConfigSynonyms;
import org.apache.kafka.server.metrics.ClientMetricsConfigs;
import org.apache.kafka.storage.internals.log.LogConfig;

@SuppressWarnings("unchecked")
public class ConfigFacts {
    public static void main(String[] args) throws ReflectiveOperationException {
        Map<String, String> modes = DynamicBrokerConfig.dynamicConfigUpdateModes();
        dump("broker", AbstractKafkaConfig.CONFIG_DEF.configKeys(), modes);
        // Names only the dynamic path knows (quota throttles and the like).
        Map<String, ConfigDef.ConfigKey> dynamicOnly = new TreeMap<>(DynamicConfig.Broker.configKeys());
        dynamicOnly.keySet().removeAll(AbstractKafkaConfig.CONFIG_DEF.names());
        dump("dynamic", dynamicOnly, modes);
        dump("topic", LogConfig.configKeys(), modes);
        dump("group", GroupConfig.CONFIG_DEF.configKeys(), modes);
        dump("client-metrics", ClientMetricsConfigs.configDef().configKeys(), modes);
    }

    static void dump(String scope, Map<String, ConfigDef.ConfigKey> keys, Map<String, String> modes)
            throws ReflectiveOperationException {
        for (ConfigDef.ConfigKey key : new TreeMap<>(keys).values()) {
            String text = ConfigDef.convertToString(
                key.defaultValue == ConfigDef.NO_DEFAULT_VALUE ? null : key.defaultValue, key.type);
            String def = key.defaultValue == ConfigDef.NO_DEFAULT_VALUE ? "required"
                : key.defaultValue == null ? "null" : "=" + text;
            String mode = scope.equals("broker") || scope.equals("dynamic")
                ? modes.getOrDefault(key.name, "read-only") : "dynamic";
            System.out.println(String.join("\t", scope, key.name, key.type.name(), key.importance.name(), def,
                validator(key.validator),
                mode, key.internalConfig ? "internal" : "-", synonyms(scope, key.name)));
        }
    }

    /** A validator as `kind:arguments`; what its class keeps private is read by reflection. */
    static String validator(ConfigDef.Validator v) throws ReflectiveOperationException {
        if (v == null) return "-";
        switch (v.getClass().getSimpleName()) {
            case "Range": return "range:" + text(field(v, "min")) + ":" + text(field(v, "max"));
            case "ValidString": return "in:" + joined(field(v, "validStrings"));
            case "CaseInsensitiveValidString": return "in-any-case:" + joined(field(v, "validStrings"));
            case "ValidList": return "list:" + (field(v, "isEmptyAllowed").equals(true) ? "empty" : "")
                + ":" + (field(v, "isNullAllowed").equals(true) ? "null" : "")
                + ":" + joined(field(field(v, "validString"), "validStrings"));
            case "LambdaValidator": return "lambda:" + v;
            default: return "class:" + v.getClass().getSimpleName();
        }
    }

    static Object field(Object o, String name) throws ReflectiveOperationException {
        Field f = o.getClass().getDeclaredField(name);
        f.setAccessible(true);
        return f.get(o);
    }

    static String text(Object o) {
        return o == null ? "" : o.toString();
    }

    static String joined(Object strings) {
        return String.join("|", (Collection<String>) strings);
    }

    static String synonyms(String scope, String name) {
        List<String> out = new ArrayList<>();
        switch (scope) {
            case "topic":
                for (ConfigSynonym s : ServerTopicConfigSynonyms.ALL_TOPIC_CONFIG_SYNONYMS
                        .getOrDefault(name, List.of())) {
                    String ms = s.converter().apply("1");
                    out.add(s.name() + (ms.equals("3600000") ? "*h" : ms.equals("60000") ? "*m" : ""));
                }
                break;
            case "group":
                GroupConfig.ALL_GROUP_CONFIG_SYNONYMS.getOrDefault(name, Optional.empty()).ifPresent(out::add);
                break;
            case "broker":
            case "dynamic":
                List<String> all = DynamicBrokerConfig.brokerConfigSynonyms(name, true);
                if (all.size() > 1) out.addAll(all);
                break;
            default:
        }
        return out.isEmpty() ? "-" : String.join(",", out);
    }
}
