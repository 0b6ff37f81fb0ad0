//! Programs after a write: the exec sink on the daemon's side, `renewd exec` and `renewd follow` on the
//! consumer's. What a program does is read from a pipe that it writes to, so nobody has to guess when.

mod consumer;
mod pipe;
mod sink;
