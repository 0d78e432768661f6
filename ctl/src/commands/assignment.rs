//! `VAR=GRANT`: a variable and the grant whose token it gets. Shared by `env` and `exec`.

use mcp_auth_proto::{Client, GrantName, NameError, TokenAnswer, TokenRequest};

use super::token;
use crate::failure::Failure;

/// A variable and the grant whose token it gets.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    variable: String,
    grant: GrantName,
}

impl std::str::FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (variable, grant) = text.split_once('=').ok_or("expected VAR=GRANT")?;
        let valid =
            variable.bytes().enumerate().all(|(at, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()));
        if variable.is_empty() || !valid {
            return Err("a variable's name is letters, digits and _, and no digit first".to_owned());
        }
        Ok(Self { variable: variable.to_owned(), grant: grant.parse().map_err(|error: NameError| error.to_string())? })
    }
}

/// Every variable with its token, or nothing: half a list would look like success. Each is asked for as `wanted`, but for
/// the grant.
pub(super) fn tokens<'a>(
    assignments: &'a [Assignment],
    wanted: &TokenRequest,
    client: &Client,
) -> Result<Vec<(&'a str, TokenAnswer)>, Failure> {
    let token = |Assignment { variable, grant }: &'a Assignment| {
        let answer = client.token(&TokenRequest { grant: Some(grant.to_string()), ..wanted.clone() })?;
        token::check(&answer)?;
        Ok((variable.as_str(), answer))
    };
    assignments.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_variables_are_taken() {
        assert!("GITHUB_TOKEN=github:work".parse::<Assignment>().is_ok());
        for bad in ["X", "=github", "1X=github", "X;rm=github", "X=Git Hub", "X="] {
            assert!(bad.parse::<Assignment>().is_err(), "{bad}");
        }
    }
}
