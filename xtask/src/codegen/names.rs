//! From Kafka's names to Rust's.

/// `timeoutMs` and `TimeoutMs` to `timeout_ms`; a keyword gets a trailing underscore.
pub(super) fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        let after_word = index > 0 && !letters[index - 1].is_uppercase();
        let before_word = letters
            .get(index + 1)
            .is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && index > 0 && (after_word || before_word) {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    match snake.as_str() {
        "type" | "match" | "ref" | "move" | "self" | "loop" | "use" => snake + "_",
        _ => snake,
    }
}

/// `group` to `Group`.
pub(super) fn upper_first(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case_splits_words_and_acronyms() {
        assert_eq!(snake_case("timeoutMs"), "timeout_ms");
        assert_eq!(snake_case("V3AndBelowTopics"), "v3_and_below_topics");
        assert_eq!(
            snake_case("ResultsByTopicV3AndBelow"),
            "results_by_topic_v3_and_below"
        );
        assert_eq!(snake_case("Enable2Pc"), "enable2_pc");
        assert_eq!(snake_case("KRaftVersionFeature"), "k_raft_version_feature");
        assert_eq!(snake_case("Type"), "type_");
    }
}
