//! An instance of a processor: takes its transactional id over, finds out how far it is, and then
//! transforms one input after the other, each in a transaction with the offset behind it.

use klamm_env::Rng as _;
use klamm_protocol::ErrorCode;

use super::super::super::Violation;
use super::super::world::World;
use super::requests::{Requests, is_passing};
use super::{fences, visible};

/// How many transactions a processor has to get through in peace.
const ENOUGH: usize = 2;

/// What becomes of an instance after an error.
enum Then {
    /// Another instance is the one.
    End,
    /// It begins anew: takes the id over, asks how far it is.
    Anew,
    /// The transaction is to be aborted.
    Abort,
}

/// Runs until the instance is fenced, or there is peace and enough was done.
pub(super) async fn run(world: World, processor: usize, number: usize) {
    let version = 1 + world.rng.range(0, 2) as i16;
    let mut requests = Requests::new(&world, processor, version);
    let mut goes_on = false;
    loop {
        match life(&mut requests, goes_on).await {
            Then::End => break,
            Then::Anew => goes_on = false,
            Then::Abort => goes_on = true,
        }
        world.sleep_ms(50 + world.rng.below(300)).await;
    }
    world.note(format_args!("instance {number} is over"));
    world.transactions().over(number);
}

fn then(error: ErrorCode) -> Then {
    match error {
        ErrorCode::ProducerFenced
        | ErrorCode::InvalidProducerEpoch
        | ErrorCode::InvalidProducerIdMapping => Then::End,
        ErrorCode::TransactionAbortable => Then::Abort,
        _ => Then::Anew,
    }
}

fn is_enough(requests: &Requests) -> bool {
    let world = &requests.world;
    let history = world.transactions();
    let done = history.since_peace.get(&requests.processor);
    world.is_calm() && done.is_some_and(|done| *done >= ENOUGH)
}

/// One life as a producer.
async fn life(requests: &mut Requests, goes_on: bool) -> Then {
    if let Err(error) = requests.init(goes_on).await {
        return then(error);
    }
    let world = requests.world.clone();
    world.transactions().fenced(&requests.id, requests.producer);
    let Some(mut offset) = requests.offset(60).await else {
        return Then::Anew;
    };
    while !is_enough(requests) {
        if world.rng.one_in(2) {
            world.sleep_ms(world.rng.below(200)).await;
        }
        let begun_ms = world.now_ms();
        let number = world.transactions().begin(requests.processor, offset);
        let (who, version) = (requests.producer, requests.version);
        world.note(format_args!(
            "{} begins {number} of offset {offset} as {who:?}, version {version}",
            requests.id
        ));
        let committed = match transaction(requests, number, offset).await {
            Ok(committed) => committed,
            Err(error) => {
                let fenced = fences::check(&world, &requests.id, (requests.mark, begun_ms), error);
                world.check(fenced);
                return fail(requests, error).await;
            }
        };
        if committed {
            offset += 1;
            if world.is_calm() {
                let mut history = world.transactions();
                *history.since_peace.entry(requests.processor).or_default() += 1;
            }
        }
    }
    Then::End
}

/// An error that is no end aborts the transaction first, as clients do.
async fn fail(requests: &mut Requests, error: ErrorCode) -> Then {
    requests
        .world
        .note(format_args!("{} fails: {error:?}", requests.id));
    let then = then(error);
    if error == ErrorCode::UnknownServerError {
        let detail = format!("{} got UNKNOWN_SERVER_ERROR", requests.id);
        requests.world.check(Err(Violation::new("errors", detail)));
    }
    then
}

/// One transaction; whether it committed.
async fn transaction(requests: &mut Requests, number: u64, offset: i64) -> Result<bool, ErrorCode> {
    let world = requests.world.clone();
    let outputs = world.plan.data_partitions.min(3);
    let value = visible::value(requests.processor, offset, number);
    let in_order = world.rng.one_in(2);
    if requests.version < 2 {
        requests.add_partitions(outputs).await?;
    }
    if world.rng.one_in(8) {
        give_up(requests, &value).await?;
        world.transactions().asked(number, false);
        requests.end(false).await?;
        world.transactions().told(number, false);
        return Ok(false);
    }
    for output in 0..outputs {
        let output = if in_order {
            output
        } else {
            outputs - 1 - output
        };
        requests.produce(output, &value).await?;
        if world.rng.one_in(4) {
            requests.produce(output, "filler").await?;
        }
    }
    if world.rng.one_in(20) {
        // Long enough for the coordinator to end it.
        world.sleep_ms(world.rng.below(9_000)).await;
    }
    if requests.version < 2 {
        requests.add_offsets().await?;
    }
    requests.commit_offset(offset + 1).await?;
    let commits = !world.rng.one_in(7);
    world.transactions().asked(number, commits);
    requests.end(commits).await?;
    world.transactions().told(number, commits);
    Ok(commits)
}

/// Hardly has the transaction begun when the client gives it up, as franz-go does when a record
/// cannot be produced: of it the brokers know little or nothing.
async fn give_up(requests: &mut Requests, value: &str) -> Result<(), ErrorCode> {
    // Before KIP-890 only another epoch makes it sure that a record does not come late.
    if requests.version < 2 || requests.world.rng.one_in(3) {
        return Ok(());
    }
    match requests.try_produce(0, value).await {
        Err(error) if !is_passing(error) => Err(error),
        _ => Ok(()),
    }
}
