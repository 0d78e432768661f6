//! The file that holds a token: read as it is at this moment, and used for a program that names it only if that program has read
//! the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, oneshot};

use super::BearerError;
use crate::grant::shown;
use crate::oauth::jwt::{self, Jwt};
use crate::platform::TextFile;

/// How long a file may take: it may lie on a network.
pub(super) const READING: Duration = Duration::from_secs(5);
/// How many are read at a time; those that their disk holds up count too.
static READERS: Semaphore = Semaphore::const_new(8);

/// The SHA-256 of a file, as lower-case hex: it shows that the program that names the file can read it. Else one that has nothing
/// but the socket, in a container or a sandbox, could have the daemon use files that are hidden from it.
///
/// That is enough: a JWT ends in a signature that nobody guesses, so whoever knows the digest has read it or was told by somebody
/// who has. Contents that can be guessed are no JWT, and of such files nothing is told, whether the guess is right or not.
#[derive(Clone, Debug, Eq)]
pub struct FileDigest(String);

impl FileDigest {
    /// Takes 64 lower-case hex digits.
    pub fn read(text: &str) -> Option<Self> {
        let is_digest = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_digest.then(|| Self(text.to_owned()))
    }

    fn of(text: &str) -> Self {
        Self(hex::encode(Sha256::digest(text)))
    }
}

/// In constant time: a digest that could be found piece by piece would show nothing.
impl PartialEq for FileDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

/// Reads a JWT from a file as it is now. On a thread of its own: a disk that does not answer keeps it for as long as it likes, and
/// the runtime's few threads look up the names of every server, and are waited for at the end.
pub(super) async fn read(path: PathBuf, digest: Option<FileDigest>) -> Result<Jwt, BearerError> {
    let (of, is_named) = (path.clone(), digest.is_some());
    let reading = async {
        let seat = READERS.acquire().await.ok()?;
        let (tell, told) = oneshot::channel();
        let look = move || {
            let _seat = seat;
            // Whoever asked may have given up.
            let _ = tell.send(look(&of, digest.as_ref()));
        };
        std::thread::Builder::new().name("jwt-file".into()).spawn(look).ok()?;
        told.await.ok()
    };
    match tokio::time::timeout(READING, reading).await {
        Ok(Some(looked)) => looked,
        // That it is there is told nobody who has not shown that they can read it.
        Ok(None) | Err(_) if is_named => Err(BearerError::Unread { path }),
        Ok(None) | Err(_) => Err(BearerError::Slow { path }),
    }
}

fn look(path: &Path, digest: Option<&FileDigest>) -> Result<Jwt, BearerError> {
    let fault = |fault| BearerError::File { path: path.to_owned(), fault };
    let found = TextFile::read(path, jwt::LONGEST).map(|file| (Jwt::read(file.text()), file));
    // Before anything is told of it, or even whether it is there.
    let is_read = |digest: &FileDigest| matches!(&found, Ok((Ok(_), file)) if *digest == FileDigest::of(file.text()));
    if digest.is_some_and(|digest| !is_read(digest)) {
        return Err(BearerError::Unread { path: path.to_owned() });
    }
    let (jwt, file) = found.map_err(fault)?;
    file.trusted().map_err(fault)?;
    jwt.map_err(|fault| BearerError::Jwt { whose: format!("the token in {}", shown(path)), fault })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::oauth::samples;

    fn token(subject: &str) -> String {
        samples::jwt(r#"{"alg":"ES256"}"#, &format!(r#"{{"sub":"{subject}"}}"#))
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_is_now_behind_the_links_of_a_projected_volume() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("token");
        symlink("..data/token", &mounted).unwrap();
        for round in ["one", "two"] {
            let version = folder.path().join(round);
            fs::create_dir(&version).unwrap();
            fs::write(version.join("token"), token(round) + "\n").unwrap();
            fs::set_permissions(version.join("token"), Permissions::from_mode(0o644)).unwrap();
            symlink(round, folder.path().join("..next")).unwrap();
            fs::rename(folder.path().join("..next"), folder.path().join("..data")).unwrap();
            assert_eq!(read(mounted.clone(), None).await.unwrap().subject().as_deref(), Some(round));
        }
    }

    #[tokio::test]
    async fn a_file_that_may_not_be_trusted_or_is_no_token_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let name = path.display().to_string();
        let told = || async { read(path.clone(), None).await.unwrap_err().to_string() };
        assert!(told().await.starts_with(&format!("{name} cannot be used: No such file")));
        for (text, mode, fault) in [
            (token("w"), 0o666, "can be changed by other users (mode 666)"),
            (token("w"), 0o620, "can be changed by other users (mode 620)"),
            ("zQaT9qz-a-secret-of-another-kind".to_owned(), 0o600, "the token in"),
            (String::new(), 0o600, "is not a JWT"),
            ("x".repeat(jwt::LONGEST + 1), 0o600, "is longer than 16384 bytes"),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let told = told().await;
            assert!(told.contains(fault) && told.contains(&name) && !told.contains("zQaT9qz"), "{told}");
        }
        fs::write(&path, b"\xff\xfe").unwrap();
        assert!(told().await.ends_with("is not text"));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        assert!(told().await.ends_with("is not a file"), "a FIFO would hold us");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(told().await.ends_with("is not a file"));
    }

    #[tokio::test]
    async fn of_a_file_that_a_program_names_nothing_is_told_unless_that_program_has_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, jwt) = (folder.path().join("token"), token("w") + "\n");
        let named = |text: &str| {
            let digest = FileDigest::of(text);
            async { read(path.clone(), Some(digest)).await }
        };
        let unread = format!("{} holds no JWT that the program that asks has read there too", path.display());
        assert_eq!(named(&jwt).await.unwrap_err().to_string(), unread, "nothing is there");
        let pin = "1234\n".to_owned();
        for (text, mode, named_by) in [
            (&jwt, 0o644, &token("another")),
            (&jwt, 0o644, &token("w")),
            (&jwt, 0o666, &pin),
            (&pin, 0o600, &jwt),
            // A guess that is right.
            (&pin, 0o600, &pin),
            (&"x".repeat(jwt::LONGEST + 1), 0o600, &"x".repeat(jwt::LONGEST + 1)),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(named(named_by).await.unwrap_err().to_string(), unread, "{mode:o} {text}");
        }
        fs::write(&path, &jwt).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let told = named(&jwt).await.unwrap_err().to_string();
        assert!(told.contains("can be changed by other users"), "whoever has read it is helped: {told}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(named(&jwt).await.unwrap().subject().as_deref(), Some("w"));
    }

    #[test]
    fn a_digest_is_64_hex_digits_as_sha256sum_prints_them() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(FileDigest::read(empty), Some(FileDigest::of("")));
        for bad in ["", &empty[1..], &empty.to_uppercase(), &format!("{empty} "), &empty.replace('e', "g")] {
            assert!(FileDigest::read(bad).is_none(), "{bad}");
        }
    }
}
