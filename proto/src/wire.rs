//! Requests and answers, one type a route. Requests refuse unknown fields; clients ignore unknown fields of answers.
//! Times are RFC 3339 in UTC, durations whole seconds.

mod audit;
mod grants;
mod issuer;
mod logins;
mod policy;
mod providers;
mod relay;
mod status;
mod token;
mod vault;

pub use audit::*;
pub use grants::*;
pub use issuer::*;
pub use logins::*;
pub use policy::*;
pub use providers::*;
pub use relay::*;
pub use status::*;
pub use token::*;
pub use vault::*;
