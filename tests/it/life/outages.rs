//! An outage is told once at its beginning and once at its end, whenever the daemon ends in between.

use super::{
    HOUR, MINUTE,
    service::Fault,
    world::{Setting, World},
};

/// A world whose tokens live for an hour and whose service has stopped to answer, as was told.
async fn in_an_outage(fault: Fault) -> World {
    let world = World::start(Setting::of(3)).await;
    world.service.tokens_live(HOUR);
    world.pass(MINUTE * 25).await;
    world.service.fail(move |_| Some(fault.clone()));
    world.pass(MINUTE * 30).await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_by_the_next_process() {
    let denied = Fault::Status(401, "Denied", "Denied by the resource provider.");
    for (fault, told) in [
        (Fault::Connect, "resource.unreachable"),
        (denied, "key.rejected"),
    ] {
        let mut world = in_an_outage(fault).await;
        assert_eq!(world.news().await, [told]);
        if told == "key.rejected" {
            let notices = world.notices().await;
            let message = &notices.last().unwrap().message;
            assert!(message.contains("may be dead"), "nobody knows: {message}");
        }
        world.kill().await;
        world.up().await;
        world.pass(MINUTE * 5).await;
        assert_eq!(
            world.news().await,
            [told],
            "it lasts, and is not told again"
        );
        world.kill().await;
        world.service.mend();
        world.up().await;
        world.pass(MINUTE * 10).await;
        assert_eq!(world.news().await, [told, "resource.recovered"]);
        world.down().await.unwrap();
        world.up().await;
        world.pass(HOUR).await;
        assert_eq!(
            world.news().await,
            [told, "resource.recovered"],
            "nor is its end"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_alone_is_no_sign_that_it_is_over() {
    let mut world = World::start(Setting::of(1)).await;
    world.service.tokens_live(HOUR);
    world.pass(MINUTE * 25).await;
    world.service.fail(|_| Some(Fault::Hang));
    world.pass(MINUTE * 10).await;
    assert_eq!(world.news().await, ["resource.unreachable"]);
    world.kill().await;
    world.up().await;
    for _ in 0..60 {
        world.pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(world.news().await, ["resource.unreachable"]);
    }
}
