//! The only room that speaks to Entra ID and to the metadata services of machines: it obtains the bearer that calls
//! to ACS carry where a resource has no access keys.
//!
//! What is asked (`authority`, `metadata`) and what an answer means (`answer`) are plain; when a bearer is renewed,
//! and what is done while there is none, is decided in `bearer`; `cache` acts on it. Only `error` and the status of
//! an answer are decided on; whatever else it says is shown to people.
//!
//! | answer | what follows |
//! |---|---|
//! | none, 5xx | an outage: asked again after 30 s, a metadata service after 1 s growing to 30 s |
//! | 429 | asked again as soon as it allows that |
//! | 404, 410 of a metadata service | it restarts (70 s at most): as if it did not answer |
//! | 400, 401, 403 and the like | it stays so until somebody changes something: told, and asked again after ten minutes, or as soon as another secret lies in its place |

mod answer;
mod assertion;
mod authority;
mod bearer;
mod cache;
mod error;
mod metadata;

pub use answer::claims_challenge;
pub use assertion::{CertificateError, ClientCertificate};
pub use bearer::Bearer;
pub use cache::{BearerNews, BearerSetupError, Bearers};
pub use error::BearerError;
