#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// Bits of a value that choose its bucket: the leading one and the two after it.
const WIDTH: u32 = 3;
/// Buckets per power of two.
const GROUP: usize = 1 << (WIDTH - 1);
/// Buckets that cover all of `u64`.
const BUCKETS: usize = GROUP + GROUP * (64 - WIDTH as usize + 1);
const BAR_WIDTH: u64 = 40;

/// Counts of `u64` samples in buckets whose width doubles with the value, so that a bucket is never
/// wider than a quarter of its lower bound.
///
/// The parameter stands for the slot data of the original; this crate keeps one slot only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Empty until the first sample.
    buckets: Vec<u64>,
    total: u64,
    slot: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// A histogram without samples. Allocates nothing.
    pub fn new() -> Self {
        Histogram {
            buckets: Vec::new(),
            total: 0,
            slot: PhantomData,
        }
    }

    /// Counts one sample.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `count` samples of the same value.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if self.buckets.is_empty() {
            self.buckets.resize(BUCKETS, 0);
        }
        self.buckets[bucket_of(value)] += count;
        self.total += count;
    }

    /// Samples counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value below which the share `p` (0 to 1) of the samples lies, interpolated evenly within
    /// its bucket; 0 without samples.
    pub fn percentile(&self, p: f64) -> u64 {
        let mut rank = ((self.total as f64 * p).ceil() as u64).clamp(1, self.total.max(1));
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if rank <= count {
                let low = bucket_min(bucket);
                let width = bucket_width(bucket);
                return low
                    + ((u128::from(rank - 1) * u128::from(width)) / u128::from(count)) as u64;
            }
            rank -= count;
        }
        0
    }

    /// The usual percentiles in one go.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

fn bucket_of(value: u64) -> usize {
    if value < GROUP as u64 {
        return value as usize;
    }
    let bits = u64::BITS - value.leading_zeros();
    let group = (bits - WIDTH) as usize;
    GROUP + group * GROUP + ((value >> group) as usize & (GROUP - 1))
}

fn bucket_min(bucket: usize) -> u64 {
    if bucket < GROUP {
        return bucket as u64;
    }
    let group = (bucket - GROUP) / GROUP;
    let offset = (bucket - GROUP) % GROUP;
    ((GROUP + offset) as u64) << group
}

fn bucket_width(bucket: usize) -> u64 {
    if bucket < GROUP {
        1
    } else {
        1 << ((bucket - GROUP) / GROUP)
    }
}

/// Percentiles of a [`Histogram`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// Samples counted.
    pub samples: u64,
    /// 0.1 % of the samples are smaller.
    pub p0_1: u64,
    /// 1 % of the samples are smaller.
    pub p1: u64,
    /// 5 % of the samples are smaller.
    pub p5: u64,
    /// 10 % of the samples are smaller.
    pub p10: u64,
    /// The median.
    pub p50: u64,
    /// 90 % of the samples are smaller.
    pub p90: u64,
    /// 99 % of the samples are smaller.
    pub p99: u64,
    /// 99.9 % of the samples are smaller.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[samples: {}, P0.1: {}, P1: {}, P5: {}, P10: {}, P50: {}, P90: {}, P99: {}, P99.9: {}]",
            self.samples,
            self.p0_1,
            self.p1,
            self.p5,
            self.p10,
            self.p50,
            self.p90,
            self.p99,
            self.p99_9
        )
    }
}

/// Several histograms as bars of characters.
#[derive(Clone, Debug)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> AsciiChart<T> {
    /// A chart without series.
    pub fn new() -> Self {
        AsciiChart { series: Vec::new() }
    }

    /// Adds a named series.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram<T>) -> Self {
        self.series.push((name.into(), histogram));
        self
    }

    /// One line for each bucket that holds samples.
    pub fn compact(&self) -> Bars<'_, T> {
        Bars {
            chart: self,
            percentiles: false,
        }
    }

    /// As [`AsciiChart::compact`], with percentiles below each series.
    pub fn detailed(&self) -> Bars<'_, T> {
        Bars {
            chart: self,
            percentiles: true,
        }
    }
}

/// A chart on its way to a formatter.
#[derive(Debug)]
pub struct Bars<'a, T> {
    chart: &'a AsciiChart<T>,
    percentiles: bool,
}

impl<T> fmt::Display for Bars<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.chart.series {
            writeln!(f, "{name}")?;
            let most = histogram.buckets.iter().copied().max().unwrap_or(0).max(1);
            for (bucket, &count) in histogram.buckets.iter().enumerate() {
                if count > 0 {
                    let low = bucket_min(bucket);
                    let high = low + (bucket_width(bucket) - 1);
                    let bar = "#".repeat(
                        (u128::from(count) * u128::from(BAR_WIDTH) / u128::from(most)) as usize,
                    );
                    writeln!(f, "[{low}, {high}] | {bar} {count}")?;
                }
            }
            if self.percentiles {
                writeln!(f, "{}", histogram.percentile_stats())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_whole_range() {
        assert_eq!(BUCKETS, 252);
        let mut next = 0_u64;
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_min(bucket), next, "bucket {bucket}");
            assert_eq!(bucket_of(next), bucket);
            let last = next + (bucket_width(bucket) - 1);
            assert_eq!(bucket_of(last), bucket);
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends at u64::MAX");
    }

    #[test]
    fn percentiles_stay_in_the_bucket_of_their_sample() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in 1..=1000 {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        assert!((448..=511).contains(&stats.p50), "{stats}");
        assert!((896..=1023).contains(&stats.p99), "{stats}");
        histogram.record(u64::MAX);
        assert_eq!(histogram.total(), 1001);
    }

    #[test]
    fn a_chart_shows_each_bucket_with_samples() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(10, 5);
        let chart = AsciiChart::new().add("sizes", histogram);
        let text = chart.detailed().to_string();
        assert!(text.contains("sizes\n[10, 11] | ####"), "{text}");
        assert!(text.contains("samples: 5"));
        assert!(!chart.compact().to_string().contains("samples"));
    }
}
