//! The stand-in for the service: the one of `renewd simulate`, told what to do call by call.

pub(super) use renewd::simulation::{Call, Manner as Fault, NOBODY, Provider as Service};
