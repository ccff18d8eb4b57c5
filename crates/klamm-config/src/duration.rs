//! ISO 8601 durations as `share.auto.offset.reset` takes them.

use std::time::Duration;

/// Whether `text` names a reset strategy: `earliest`, `latest`, or `by_duration:` with a duration that is not negative.
pub(crate) fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => parse(duration).is_some(),
        None => text == "earliest" || text == "latest",
    }
}

/// Reads `PnDTnHnMn.nS`, in any case, as `java.time.Duration.parse` does; `None` for anything else and for negative ones.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let (negated, body) = match upper.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, upper.strip_prefix('+').unwrap_or(&upper)),
    };
    let body = body.strip_prefix('P')?;
    let (days, time) = match body.split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (body, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    if !days.is_empty() {
        nanos += whole(days.strip_suffix('D')?)?
            .checked_mul(86_400)?
            .checked_mul(1_000_000_000)?;
    }
    let mut rest = time;
    for (unit, seconds) in [('H', 3600), ('M', 60)] {
        if let Some((number, after)) = rest.split_once(unit) {
            nanos += whole(number)?
                .checked_mul(seconds)?
                .checked_mul(1_000_000_000)?;
            rest = after;
        }
    }
    if !rest.is_empty() {
        nanos += seconds(rest.strip_suffix('S')?)?;
    }
    let nanos = if negated { -nanos } else { nanos };
    let secs = u64::try_from(nanos.div_euclid(1_000_000_000))
        .ok()
        .filter(|s| i64::try_from(*s).is_ok())?;
    Some(Duration::new(
        secs,
        u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?,
    ))
}

fn whole(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok().map(i128::from)
}

fn seconds(text: &str) -> Option<i128> {
    let (number, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i128 = format!("{fraction:0<9}").parse().ok()?;
    let nanos = if number.starts_with('-') {
        -nanos
    } else {
        nanos
    };
    whole(number)?
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}
