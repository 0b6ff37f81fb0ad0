//! A fleet that was issued in one burst, or renewed in one after an outage, is not due in one burst for ever.

use std::collections::BTreeMap;

use renewd::config::Limit;

use super::{
    HOUR, MINUTE,
    service::{Call, Fault},
    world::{Setting, World},
};

/// The most renewals in any ten minutes of the last twelve hours, against their mean.
fn peak(calls: &[Call]) -> f64 {
    let ten = |call: &Call| call.at.as_secs() / 600;
    let end = calls.last().map(ten).unwrap();
    let mut counts = BTreeMap::<u64, usize>::new();
    let half_day = end.saturating_sub(72)..=end;
    for call in calls.iter().filter(|call| half_day.contains(&ten(call))) {
        *counts.entry(ten(call)).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    *counts.values().max().unwrap() as f64 / (all as f64 / 72.0)
}

#[tokio::test(start_paused = true)]
async fn a_burst_and_an_outage_are_level_within_two_lives() {
    let world = World::start(Setting::of(1440)).await;
    world.pass(HOUR * 12).await;
    assert!(peak(&world.service.calls()) > 20.0, "all began at once");
    // All that can be had of a wave: half of the day holds it.
    world.pass(HOUR * 12).await;
    let second = peak(&world.service.calls());
    assert!(second <= 3.0, "no burst again: {second}");
    world.pass(HOUR * 24).await;
    let level = peak(&world.service.calls());
    assert!(level <= 1.5, "two lives after the burst: {level}");

    world.service.fail(|_| Some(Fault::Connect));
    world.pass(HOUR * 8).await;
    world.service.mend();
    world.pass(HOUR * 48).await;
    let level = peak(&world.service.calls());
    assert!(level <= 1.5, "two lives after the outage: {level}");
    assert_eq!(world.service.without_live_token(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_many_are_due_and_nobody_may_be_called_it_rests() {
    let mut setting = Setting::of(200);
    setting.resource.limits.create_with_token = Limit {
        calls: 1,
        window: HOUR,
    };
    let world = World::start(setting).await;
    world.pass(MINUTE).await;
    let before = world.service.calls().len();
    let rounds = world.rounds(MINUTE * 10).await;
    assert_eq!(world.service.calls().len(), before);
    assert!(
        (40..=120).contains(&rounds),
        "{rounds} decisions in ten minutes"
    );
}
