//! What the command line takes of this room: the client, and the types that go over the socket.

pub use super::{
    access::AuditFilter,
    connection::{Client, ClientError},
    control::TokenForm,
    deliveries::DeliveryTable,
    imports::{Batch, Surroundings},
    problem::{Problem, ProblemType},
    subscription::{Update, Watch},
};

/// What goes over the socket.
pub mod wire {
    pub use super::super::{
        access::*, campaigns::*, deliveries::*, imports::*, jobs::*, keys::*, sources::*, store::*,
        wire::*,
    };
}
