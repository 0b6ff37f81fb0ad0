//! Panics as log lines that cannot carry a secret.

use std::{any::Any, panic, thread};

/// What stands for a payload that was put together at run time.
const WITHHELD: &str = "message withheld: it was built at run time and could hold a secret";

/// From now on a panic is logged with its place and thread. Its message is shown only when it is a
/// literal of the program text, because a formatted one may quote a value.
pub(super) fn report() {
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        tracing::error!(
            place,
            thread = thread::current().name().unwrap_or("unnamed"),
            "a panic, which is a defect of renewd: {}",
            spoken(info.payload())
        );
    }));
}

/// What may be said of a panic's payload.
fn spoken(payload: &dyn Any) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or(WITHHELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formatted_message_is_withheld() {
        let secret = "canary";
        let payload = panic::catch_unwind(|| panic!("unexpected {secret}")).unwrap_err();
        assert_eq!(spoken(&*payload), WITHHELD);
        let payload = panic::catch_unwind(|| panic!("a literal")).unwrap_err();
        assert_eq!(spoken(&*payload), "a literal");
    }
}
