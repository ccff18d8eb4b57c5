//! Answers of the hot path, written as they are made instead of by way of the structs of
//! [`messages`](crate::messages).
//!
//! What is written here equals byte for byte what the structs would have given; a test holds every
//! version to that.

use bytes::{BufMut as _, Bytes, BytesMut};
use klamm_records::Uuid;

use crate::frame::SIZE_LEN;

/// From here on lengths are varints and tagged fields exist.
const FLEXIBLE_VERSION: i16 = 9;
/// From here on topics are named by id.
const TOPIC_ID_VERSION: i16 = 13;

/// Writes the response to a Produce request all of whose partitions were appended to, with its size
/// in front: per topic one call of [`topic`](Self::topic), then one of
/// [`partition`](Self::partition) for each of its partitions, then one of
/// [`end_topic`](Self::end_topic).
#[derive(Debug)]
pub struct ProducedWriter {
    buffer: BytesMut,
    version: i16,
}

impl ProducedWriter {
    /// Versions that can be written.
    pub const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;

    /// Begins a response with this many topics and, over all of them, partitions. `version` is one
    /// of [`ProducedWriter::VERSIONS`].
    pub fn begin(correlation_id: i32, version: i16, topics: usize, partitions: usize) -> Self {
        let mut this = ProducedWriter {
            buffer: BytesMut::with_capacity(64 + topics * 64 + partitions * 48),
            version,
        };
        this.buffer.put_i32(0);
        this.buffer.put_i32(correlation_id);
        this.end_tags();
        this.count(topics);
        this
    }

    /// A topic with this many partitions, by its name or, in versions that use ids, by its id.
    pub fn topic(&mut self, name: &str, id: Uuid, partitions: usize) {
        if self.version >= TOPIC_ID_VERSION {
            self.buffer.put_slice(id.as_bytes());
        } else {
            if self.is_flexible() {
                self.count(name.len());
            } else {
                // A topic that was appended to has a name that Kafka allows.
                self.buffer.put_i16(i16::try_from(name.len()).unwrap_or(0));
            }
            self.buffer.put_slice(name.as_bytes());
        }
        self.count(partitions);
    }

    /// A partition that was appended to.
    pub fn partition(
        &mut self,
        index: i32,
        base_offset: i64,
        log_append_time_ms: i64,
        log_start_offset: i64,
    ) {
        self.buffer.put_i32(index);
        self.buffer.put_i16(0);
        self.buffer.put_i64(base_offset);
        self.buffer.put_i64(log_append_time_ms);
        if self.version >= 5 {
            self.buffer.put_i64(log_start_offset);
        }
        if self.version >= 8 {
            self.count(0);
            // No message.
            if self.is_flexible() {
                self.buffer.put_u8(0);
            } else {
                self.buffer.put_i16(-1);
            }
        }
        self.end_tags();
    }

    /// Ends a topic.
    pub fn end_topic(&mut self) {
        self.end_tags();
    }

    /// The response.
    pub fn finish(mut self) -> Bytes {
        // The time for which the client was throttled.
        self.buffer.put_i32(0);
        self.end_tags();
        let length = self.buffer.len() - SIZE_LEN;
        // No response of partitions that came in one request reaches 2 GiB.
        let size = i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes();
        self.buffer[..SIZE_LEN].copy_from_slice(&size);
        self.buffer.freeze()
    }

    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE_VERSION
    }

    fn end_tags(&mut self) {
        if self.is_flexible() {
            self.buffer.put_u8(0);
        }
    }

    /// The length of an array, or of a string in flexible versions.
    fn count(&mut self, count: usize) {
        if !self.is_flexible() {
            self.buffer
                .put_i32(i32::try_from(count).unwrap_or(i32::MAX));
            return;
        }
        let mut rest = count + 1;
        while rest >= 0x80 {
            self.buffer.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.buffer.put_u8(rest as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode_response;
    use crate::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use crate::messages::{ProduceRequest, ProduceResponse};
    use crate::{Request as _, Segment};

    fn by_structs(version: i16, topics: &[(&str, Uuid, usize)]) -> Vec<u8> {
        let partition = |index: usize| PartitionProduceResponse {
            index: index as i32,
            base_offset: 1 << 40,
            log_append_time_ms: if index.is_multiple_of(2) {
                -1
            } else {
                1_700_000_000_000
            },
            log_start_offset: if version >= 5 { 77 } else { -1 },
            ..PartitionProduceResponse::default()
        };
        let response = ProduceResponse {
            responses: topics
                .iter()
                .map(|(name, id, partitions)| TopicProduceResponse {
                    name: if version < 13 {
                        (*name).into()
                    } else {
                        "".into()
                    },
                    topic_id: if version < 13 { Uuid::default() } else { *id },
                    partition_responses: (0..*partitions).map(partition).collect(),
                    ..TopicProduceResponse::default()
                })
                .collect(),
            ..ProduceResponse::default()
        };
        let segments = encode_response(9, ProduceRequest::API_KEY, version, &response).unwrap();
        let bytes = segments.into_iter().map(|segment| match segment {
            Segment::Bytes(bytes) => bytes,
            Segment::External { .. } => unreachable!("no records"),
        });
        bytes.collect::<Vec<_>>().concat()
    }

    #[test]
    fn equals_what_the_structs_give_in_every_version() {
        let long = "t".repeat(249);
        let id = Uuid::from_bytes(*b"0123456789abcdef");
        let cases: [&[(&str, Uuid, usize)]; 4] = [
            &[],
            &[("a", id, 1)],
            &[(&long, id, 130), ("b", id, 0)],
            &[("c", id, 2), ("d", id, 126), ("e", id, 127)],
        ];
        for version in ProducedWriter::VERSIONS {
            for topics in cases {
                let all = topics.iter().map(|(_, _, partitions)| partitions).sum();
                let mut writer = ProducedWriter::begin(9, version, topics.len(), all);
                for (name, id, partitions) in topics {
                    writer.topic(name, *id, *partitions);
                    for index in 0..*partitions {
                        let time = if index.is_multiple_of(2) {
                            -1
                        } else {
                            1_700_000_000_000
                        };
                        writer.partition(index as i32, 1 << 40, time, 77);
                    }
                    writer.end_topic();
                }
                assert_eq!(
                    writer.finish(),
                    by_structs(version, topics),
                    "version {version}"
                );
            }
        }
    }
}
