//! How the receiver treats deliveries that are right in themselves.

use http::StatusCode;

/// How to treat deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// Take them: 204.
    Accept,
    /// Refuse so many with this status, then take them.
    Refuse {
        /// The status.
        status: StatusCode,
        /// How many.
        times: u64,
    },
    /// 410 from now on: the receiver is gone for good.
    Gone,
    /// Refuse so many with 429, then take them.
    Throttle {
        /// `Retry-After`.
        seconds: u64,
        /// How many.
        times: u64,
    },
    /// Never answer so many, then take them.
    Hang {
        /// How many.
        times: u64,
    },
}

/// What one delivery gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    Accept,
    Status(StatusCode, Option<u64>),
    Hang,
}

/// The conduct in force, and how often it still applies.
#[derive(Debug, Default)]
pub(super) struct Manners {
    response: Option<Response>,
    left: u64,
}

impl Manners {
    pub(super) fn set(&mut self, conduct: Conduct) {
        let status = |status, seconds| Some(Response::Status(status, seconds));
        (self.response, self.left) = match conduct {
            Conduct::Accept => (None, 0),
            Conduct::Refuse {
                status: code,
                times,
            } => (status(code, None), times),
            Conduct::Gone => (status(StatusCode::GONE, None), u64::MAX),
            Conduct::Throttle { seconds, times } => {
                (status(StatusCode::TOO_MANY_REQUESTS, Some(seconds)), times)
            }
            Conduct::Hang { times } => (Some(Response::Hang), times),
        };
    }

    /// What the next delivery gets.
    pub(super) fn next(&mut self) -> Response {
        match self.response {
            Some(response) if self.left > 0 => {
                self.left -= 1;
                response
            }
            _ => Response::Accept,
        }
    }
}
