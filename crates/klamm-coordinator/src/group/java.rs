//! The few habits of Java that show on the wire or in the data directory.

use std::net::IpAddr;

use klamm_records::Uuid;

/// `String.hashCode`: over UTF-16 units.
pub(crate) fn string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The partition of `__consumer_offsets` that keeps `group_id`: Kafka's `abs(hash) % count`,
/// where the smallest integer has the absolute value 0. 0 if `count` is not positive.
pub fn partition_for(group_id: &str, count: i32) -> i32 {
    let hash = string_hash(group_id);
    let positive = if hash == i32::MIN { 0 } else { hash.abs() };
    if count > 0 { positive % count } else { 0 }
}

/// The length that Java gives for `text`, in UTF-16 units.
pub(crate) fn utf16_len(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.encode_utf16().count()
    }
}

/// The place of `text` among the buckets of a small `HashMap` (16 buckets). Kafka breaks ties in
/// protocol votes by it, without meaning to.
pub(crate) fn small_hash_map_bucket(text: &str) -> u32 {
    let hash = string_hash(text) as u32;
    (hash ^ (hash >> 16)) & 15
}

/// `Uuid.hashCode` of Kafka's ids.
pub(crate) fn uuid_hash(id: Uuid) -> i32 {
    let (most, least) = uuid_halves(id);
    let mixed = most ^ least;
    ((mixed >> 32) as i32) ^ (mixed as i32)
}

/// The order in which Kafka sorts ids: by halves, with their signs.
pub(crate) fn uuid_halves(id: Uuid) -> (i64, i64) {
    let number = i128::from_be_bytes(*id.as_bytes());
    ((number >> 64) as i64, number as i64)
}

/// The order in which a `HashMap` gives entries that were put into it in the order of `items`,
/// made for `capacity` entries (16 if the program did not say). Kafka's assignors share out by it,
/// without meaning to. (Buckets that Java turns into trees are not imitated.)
pub(crate) fn hash_map_order<T>(
    mut items: Vec<T>,
    capacity: usize,
    hash: impl Fn(&T) -> i32,
) -> Vec<T> {
    let mut buckets = capacity.max(1).next_power_of_two();
    while items.len() > buckets * 3 / 4 {
        buckets *= 2;
    }
    let mask = u32::try_from(buckets - 1).unwrap_or(u32::MAX);
    // A stable sort keeps the order of arrival within a bucket, as Java's lists do.
    items.sort_by_cached_key(|item| {
        let hash = hash(item) as u32;
        (hash ^ (hash >> 16)) & mask
    });
    items
}

/// The capacity of a `HashMap` that says nothing about it.
pub(crate) const HASH_MAP_CAPACITY: usize = 16;

/// The capacity of `new HashSet(collection)`.
pub(crate) fn hash_set_capacity(len: usize) -> usize {
    (len * 4 / 3 + 1).max(HASH_MAP_CAPACITY)
}

/// `InetAddress.toString` of an address without a name: `/127.0.0.1`, `/0:0:0:0:0:0:0:1`.
pub fn client_host(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("/{v4}"),
        IpAddr::V6(v6) => {
            let groups: Vec<String> = v6.segments().iter().map(|s| format!("{s:x}")).collect();
            format!("/{}", groups.join(":"))
        }
    }
}

/// `UUID.randomUUID().toString()` from sixteen random bytes.
pub(crate) fn random_uuid_text(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = |range: &[u8]| -> String { range.iter().map(|b| format!("{b:02x}")).collect() };
    format!(
        "{}-{}-{}-{}-{}",
        hex(&bytes[..4]),
        hex(&bytes[4..6]),
        hex(&bytes[6..8]),
        hex(&bytes[8..10]),
        hex(&bytes[10..])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_like_java() {
        // Values of java.lang.String.hashCode.
        assert_eq!(string_hash(""), 0);
        assert_eq!(string_hash("my-group"), -1_906_497_762);
        assert_eq!(string_hash("polygenelubricants"), i32::MIN);
        assert_eq!(string_hash("\u{1F980}"), 1_772_802);
    }

    #[test]
    fn the_smallest_hash_goes_to_partition_0() {
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("my-group", 50), 12);
        assert_eq!(partition_for("my-group", 0), 0);
    }

    #[test]
    fn writes_addresses_as_java_does() {
        assert_eq!(client_host("127.0.0.1".parse().unwrap()), "/127.0.0.1");
        assert_eq!(client_host("::1".parse().unwrap()), "/0:0:0:0:0:0:0:1");
        assert_eq!(client_host("::ffff:10.0.0.1".parse().unwrap()), "/10.0.0.1");
    }

    #[test]
    fn uuids_are_of_version_4() {
        assert_eq!(
            random_uuid_text([0xff; 16]),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
    }

    #[test]
    fn ties_of_protocol_votes_fall_as_in_kafka() {
        // The winners that Kafka 4.3.1 picked in groups of two with one vote each.
        for (winner, loser) in [
            ("range", "roundrobin"),
            ("b", "c"),
            ("range", "cooperative-sticky"),
            ("sticky", "range"),
        ] {
            assert!(small_hash_map_bucket(winner) < small_hash_map_bucket(loser));
        }
    }
}
