//! A copy of the sealed vault, without its key.

use std::path::Path;

use super::keeper::Keeper;
use super::{VaultError, files, header, store};

impl Keeper {
    /// Copies the vault to a folder that does not exist yet.
    pub(super) fn backup(&mut self, to: &Path) -> Result<(), VaultError> {
        let header = match self.existing()? {
            Some(header) => header,
            None => return Err(VaultError::NeedsSetup("there is no vault yet".into())),
        };
        let conflict = |reason: String| VaultError::Conflict { reason, hint: Some("name a folder that does not exist yet".into()) };
        if !to.is_absolute() {
            return Err(conflict(format!("{} is not an absolute path", to.display())));
        }
        files::make_folder(to).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => conflict(format!("{} is there already", to.display())),
            _ => VaultError::Disk(format!("{} cannot be made: {error}", to.display())),
        })?;
        let from = header::records_folder(&self.places.vault, header.key_id);
        // The header last: without it a copy that was cut short is not taken for a vault.
        store::copy_sealed(&from, &header::records_folder(to, header.key_id))
            .and_then(|()| header.write_copy(to))
            .and_then(|()| files::sync_folder(to))
            .and_then(|()| files::sync_folder(to.parent().unwrap_or(to)))
            .map_err(|error| VaultError::Disk(format!("the copy in {} is not complete: {error}", to.display())))
    }
}
