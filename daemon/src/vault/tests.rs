//! The vault through its handle, with a keychain of the tests' own, and through its thread's own parts where a crash is
//! to happen at a chosen step.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use mcp_auth_proto::KeySourceKind;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::files::crash;
use super::header::{Header, Stretch};
use super::jobs::Surroundings;
use super::keeper::{Held, Keeper};
use super::keychain::{Keychain, KeychainError};
use super::*;

const QUICK: Stretch = Stretch { memory_kib: 64, passes: 1 };

/// A keychain whose moods a test chooses.
#[derive(Debug, Default)]
struct FakeKeychain {
    entries: Mutex<HashMap<String, String>>,
    mood: Mutex<Mood>,
    changed: Condvar,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Mood {
    #[default]
    Open,
    Failing(KeychainError),
    Forgetful,
    Hanging,
    Panicking,
}

impl FakeKeychain {
    fn become_(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().keys().cloned().collect()
    }

    fn ask(&self, prompt: bool) -> Result<Mood, KeychainError> {
        let mood = self.changed.wait_while(self.mood.lock().unwrap(), |mood| *mood == Mood::Hanging).unwrap();
        match &*mood {
            Mood::Failing(KeychainError::Locked) if prompt => Ok(Mood::Open),
            Mood::Failing(error) => Err(error.clone()),
            Mood::Panicking => panic!("a keychain's mistake"),
            mood => Ok(mood.clone()),
        }
    }
}

impl Keychain for FakeKeychain {
    fn read(&self, entry: &str, prompt: bool) -> Result<Option<Zeroizing<String>>, KeychainError> {
        self.ask(prompt)?;
        Ok(self.entries.lock().unwrap().get(entry).cloned().map(Zeroizing::new))
    }

    fn write(&self, entry: &str, text: &str, prompt: bool) -> Result<(), KeychainError> {
        if self.ask(prompt)? != Mood::Forgetful {
            self.entries.lock().unwrap().insert(entry.into(), text.into());
        }
        Ok(())
    }

    fn remove(&self, entry: &str) -> Result<(), KeychainError> {
        self.ask(false)?;
        self.entries.lock().unwrap().remove(entry);
        Ok(())
    }
}

/// A home for one vault.
struct Home {
    folder: TempDir,
    keychain: Arc<FakeKeychain>,
    key_source: Option<KeySourceKind>,
    patience: Duration,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keychain: Arc::default(), key_source: None, patience: Duration::from_secs(20) }
    }

    fn with(key_source: KeySourceKind) -> Self {
        Self { key_source: Some(key_source), ..Self::new() }
    }

    fn places(&self) -> Places {
        Places { vault: self.vault(), key_file: self.folder.path().join("key"), key_source: self.key_source }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            keychain: self.keychain.clone(),
            credentials: Some(self.folder.path().join("credentials")),
            stretch: QUICK,
            patience: self.patience,
            patience_for_prompt: Duration::from_secs(20),
        }
    }

    fn vault(&self) -> PathBuf {
        self.folder.path().join("vault")
    }

    fn start(&self) -> Vault {
        Vault::start_in(self.places(), self.surroundings())
    }

    fn opened(&self) -> (Vault, Opened) {
        let vault = self.start();
        let opened = open(&vault).unwrap();
        (vault, opened)
    }

    fn keeper(&self) -> Keeper {
        let (_, inbox) = mpsc::channel();
        Keeper::new(self.places(), self.surroundings(), inbox, std::sync::Weak::new())
    }

    fn record_files(&self) -> Vec<PathBuf> {
        let header = Header::read(&self.vault()).unwrap().unwrap();
        files_of(&header::records_folder(&self.vault(), header.key_id), ".sealed")
    }

    fn copy(&self) -> Self {
        let copy = Self { key_source: self.key_source, ..Self::new() };
        copy_folder(self.folder.path(), copy.folder.path());
        copy
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files_of(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

fn call<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> Result<T, VaultError> {
    let (sender, answer) = mpsc::channel();
    ask(Box::new(move |result| sender.send(result).unwrap()));
    answer.recv_timeout(Duration::from_secs(30)).expect("the vault answers")
}

fn open(vault: &Vault) -> Result<Opened, VaultError> {
    call(|done| vault.open(false, None, done))
}

fn save(vault: &Vault, record: Record) -> Result<(), VaultError> {
    call(|done| vault.save(record, done))
}

fn setup(vault: &Vault, source: KeySourceKind, passphrase: Option<&str>) -> Result<Opened, VaultError> {
    call(|done| vault.setup(source, passphrase.map(|text| Zeroizing::new(text.to_owned())), done))
}

fn unlock(vault: &Vault, passphrase: &str) -> Result<Opened, VaultError> {
    call(|done| vault.open(true, Some(Zeroizing::new(passphrase.to_owned())), done))
}

fn rekey(vault: &Vault, source: Option<KeySourceKind>, passphrase: Option<&str>) -> Result<KeySourceKind, VaultError> {
    call(|done| vault.rekey(source, passphrase.map(|text| Zeroizing::new(text.to_owned())), done))
}

fn id(name: &str) -> RecordId {
    RecordId { kind: RecordKind::Grant, name: name.to_owned() }
}

fn grant(name: &str, generation: u64) -> Record {
    Record { id: id(name), generation, plaintext: Zeroizing::new(format!("{name} {generation}").into_bytes()) }
}

fn intent(name: &str, generation: u64) -> Intent {
    Intent { id: id(name), generation, fingerprint: [3; 8] }
}

fn contents(opened: &Opened) -> BTreeMap<String, u64> {
    for record in &opened.records {
        assert_eq!(*record.plaintext, format!("{} {}", record.id.name, record.generation).into_bytes());
    }
    opened.records.iter().map(|record| (record.id.name.clone(), record.generation)).collect()
}

fn names(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(name, generation)| ((*name).to_owned(), *generation)).collect()
}

fn reason(error: VaultError) -> String {
    match error {
        VaultError::Locked { reason, .. } => reason,
        other => panic!("expected Locked, got {other:?}"),
    }
}

#[test]
fn a_first_start_makes_a_vault_with_its_key_in_the_keychain_and_a_restart_finds_everything() {
    let home = Home::new();
    let (vault, opened) = home.opened();
    assert_eq!(opened.key_source, KeySourceKind::Keychain);
    save(&vault, grant("github", 1)).unwrap();
    save(&vault, grant("github", 2)).unwrap();
    save(&vault, grant("notion:work", 5)).unwrap();
    save(&vault, grant("gone", 1)).unwrap();
    call(|done| vault.delete(id("gone"), done)).unwrap();
    call(|done| vault.intend(intent("github", 2), done)).unwrap();
    drop(vault);

    let (_, opened) = home.opened();
    assert_eq!(contents(&opened), names(&[("github", 2), ("notion:work", 5)]));
    assert_eq!(opened.intents, [intent("github", 2)]);
    assert_eq!(opened.quarantined, 0);
    assert_eq!(home.keychain.entries().len(), 1);
}

#[test]
fn nothing_on_disk_tells_the_grants_and_nobody_else_can_read_it() {
    let home = Home::new();
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    call(|done| vault.intend(intent("github", 1), done)).unwrap();
    let mut folders = vec![home.vault()];
    while let Some(folder) = folders.pop() {
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for path in files_of(&folder, "") {
            assert!(!path.to_string_lossy().contains("github"));
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            assert!(!String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains("github"), "{path:?}");
        }
    }
}

#[test]
fn a_locked_vault_saves_nothing_until_it_is_opened_again() {
    let home = Home::new();
    let vault = home.start();
    assert!(matches!(save(&vault, grant("github", 1)), Err(VaultError::Locked { .. })));
    open(&vault).unwrap();
    save(&vault, grant("github", 1)).unwrap();
    call(|done| vault.lock(done)).unwrap();
    assert!(matches!(save(&vault, grant("github", 2)), Err(VaultError::Locked { .. })));
    assert!(matches!(call(|done| vault.delete(id("github"), done)), Err(VaultError::Locked { .. })));
    assert!(matches!(call(|done| vault.intend(intent("github", 1), done)), Err(VaultError::Locked { .. })));
    assert_eq!(contents(&open(&vault).unwrap()), names(&[("github", 1)]));
}

#[test]
fn changes_that_come_together_keep_their_order() {
    let home = Home::new();
    let (vault, _) = home.opened();
    let (sender, answers) = mpsc::channel();
    for generation in 1..=1_000 {
        let sender = sender.clone();
        vault.save(grant(&format!("g{}", generation % 7), generation), Box::new(move |result| sender.send((generation, result)).unwrap()));
    }
    for expected in 1..=1_000 {
        assert_eq!(answers.recv_timeout(Duration::from_secs(30)).unwrap(), (expected, Ok(())));
    }
    let kept = contents(&open(&vault).unwrap());
    assert_eq!(kept.values().copied().collect::<std::collections::BTreeSet<_>>(), (994..=1_000).collect());
}

#[test]
fn a_batch_is_durable_in_the_right_order() {
    let home = Home::with(KeySourceKind::KeyFile);
    home.opened();
    let mut held = hold(&home);
    crash::steps();
    let changes = [Change::Save(grant("a", 1)), Change::Intend(intent("a", 1)), Change::Save(grant("b", 1)), Change::Delete(id("c"))];
    assert_eq!(held.store.change(&changes), vec![Ok(()); 4]);
    let steps: Vec<String> = crash::steps().iter().map(|step| step.rsplit_once(' ').unwrap().0.to_owned()).collect();
    let staged = ["create", "write", "fsync"];
    let saves = [&staged[..], &staged, &["rename", "rename", "remove", "fsync folder"]].concat();
    assert_eq!(steps[..saves.len()], saves, "files are durable before any is renamed, and one sync of the folder serves all");
}

#[test]
fn a_crash_at_any_step_of_a_save_leaves_the_old_record_or_the_new() {
    let template = Home::with(KeySourceKind::KeyFile);
    save(&template.opened().0, grant("github", 1)).unwrap();
    for steps in 0.. {
        let home = template.copy();
        let mut held = hold(&home);
        crash::after(Some(steps));
        let saved = held.store.change(&[Change::Save(grant("github", 2))]).remove(0);
        crash::after(None);
        let (_, opened) = home.opened();
        let kept = contents(&opened)["github"];
        assert!(kept == 2 || (kept == 1 && saved.is_err()), "after {steps} steps: {kept}, {saved:?}");
        assert_eq!(opened.quarantined, 0);
        assert_eq!(home.record_files().len(), 1, "leftovers are gone");
        if saved.is_ok() {
            break;
        }
    }
}

#[test]
fn one_failed_write_or_sync_is_tried_again_with_a_new_file() {
    let home = Home::with(KeySourceKind::KeyFile);
    home.opened();
    let mut held = hold(&home);
    for step in ["create", "write", "fsync"] {
        crash::fail_once(step, 5);
        crash::steps();
        assert_eq!(held.store.change(&[Change::Save(grant("github", 1))]), [Ok(())]);
        let created: Vec<String> = crash::steps().into_iter().filter(|step| step.starts_with("create")).collect();
        assert_eq!(created.len(), if step == "create" { 1 } else { 2 });
    }
    crash::fail_once("fsync folder", 5);
    assert!(matches!(held.store.change(&[Change::Save(grant("github", 2))])[..], [Err(VaultError::Disk(_))]));
}

#[test]
fn a_full_disk_costs_the_reserve_first() {
    let home = Home::with(KeySourceKind::KeyFile);
    home.opened();
    let mut held = hold(&home);
    assert!(home.vault().join("reserve").exists());
    crash::fail_once("write", 28);
    crash::steps();
    assert_eq!(held.store.change(&[Change::Save(grant("github", 1))]), [Ok(())]);
    let steps = crash::steps();
    let at = |step: &str| steps.iter().position(|taken| taken == step);
    assert!(at("remove reserve") < at("create reserve"), "{steps:?}");
    std::fs::remove_file(home.vault().join("reserve")).unwrap();
    crash::fail_once("write", 28);
    assert_eq!(held.store.change(&[Change::Save(grant("github", 1))]), [Err(VaultError::Disk("the disk is full".into()))]);
}

#[test]
fn a_reserve_that_a_crash_cut_short_is_made_whole() {
    let home = Home::new();
    let (vault, _) = home.opened();
    let reserve = home.vault().join("reserve");
    let whole = std::fs::metadata(&reserve).unwrap().len();
    std::fs::write(&reserve, b"half").unwrap();
    save(&vault, grant("github", 1)).unwrap();
    call(|done| vault.lock(done)).unwrap();
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), whole);
}

#[test]
fn an_error_of_the_folder_is_told_as_the_system_names_it() {
    let home = Home::with(KeySourceKind::KeyFile);
    home.opened();
    let mut held = hold(&home);
    crash::fail_once("fsync folder", 5);
    let told = held.store.change(&[Change::Save(grant("github", 1))]).remove(0).unwrap_err().to_string();
    assert!(told.contains("Input/output error"), "{told}");
}

#[test]
fn damaged_and_half_records_are_put_aside_and_the_others_work() {
    let home = Home::new();
    let (vault, _) = home.opened();
    for name in ["a", "b", "c", "d", "e"] {
        save(&vault, grant(name, 1)).unwrap();
    }
    drop(vault);
    let files = home.record_files();
    let whole = std::fs::read(&files[0]).unwrap();
    std::fs::write(&files[0], b"").unwrap();
    std::fs::write(&files[1], &whole[..whole.len() / 2]).unwrap();
    std::fs::remove_file(&files[2]).unwrap();
    symlink("/dev/zero", &files[2]).unwrap();
    // Two records that changed places.
    std::fs::copy(&files[3], &files[4]).unwrap();
    let leftover = files[3].with_extension("sealed.0011223344556677.tmp");
    std::fs::write(&leftover, b"half").unwrap();

    let (vault, opened) = home.opened();
    assert_eq!((opened.records.len(), opened.quarantined), (1, 4));
    assert_eq!(files_of(files[0].parent().unwrap(), ".bad").len(), 4);
    assert!(!leftover.exists());
    for name in ["a", "b", "c", "d", "e"] {
        save(&vault, grant(name, 2)).unwrap();
    }
    drop(vault);
    let (_, opened) = home.opened();
    assert_eq!((opened.records.len(), opened.quarantined), (5, 4), "what was put aside stays");
}

#[test]
fn a_policy_that_is_there_and_not_readable_is_told_from_none() {
    // A keychain may still be forgetting the key of the rekey that was refused, when the next one comes.
    let home = Home::with(KeySourceKind::KeyFile);
    let (vault, opened) = home.opened();
    assert!(!opened.policy_lost, "there is none");
    save(&vault, grant("a", 1)).unwrap();
    let others = home.record_files();
    let policy = |generation| Record { id: RecordId::policy(), ..grant("policy", generation) };
    save(&vault, policy(1)).unwrap();
    let file = home.record_files().into_iter().find(|file| !others.contains(file)).unwrap();
    std::fs::write(&others[0], b"").unwrap();
    assert!(!open(&vault).unwrap().policy_lost, "another record is damaged");
    std::fs::write(&file, b"").unwrap();
    for _ in 0..2 {
        assert!(open(&vault).unwrap().policy_lost);
    }
    assert!(matches!(rekey(&vault, None, None), Err(VaultError::Conflict { .. })));
    save(&vault, policy(2)).unwrap();
    assert!(!open(&vault).unwrap().policy_lost, "a new one is there");
    rekey(&vault, None, None).unwrap();
    assert!(!open(&vault).unwrap().policy_lost);
}

#[test]
fn a_record_of_a_newer_version_is_neither_read_nor_touched() {
    let home = Home::new();
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    let file = home.record_files().remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4] = record::FORMAT + 1;
    std::fs::write(&file, &bytes).unwrap();
    let opened = open(&vault).unwrap();
    assert_eq!((opened.records.len(), opened.quarantined), (0, 1));
    assert!(matches!(save(&vault, grant("github", 2)), Err(VaultError::Disk(_))));
    assert!(matches!(call(|done| vault.delete(id("github"), done)), Err(VaultError::Disk(_))));
    assert!(matches!(rekey(&vault, None, None), Err(VaultError::Conflict { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    save(&vault, grant("gitlab", 1)).unwrap();
}

#[test]
fn a_vault_of_a_newer_version_is_refused_untouched() {
    let home = Home::new();
    home.opened();
    let path = home.vault().join("vault.json");
    let newer = std::fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
    std::fs::write(&path, &newer).unwrap();
    let vault = home.start();
    assert!(matches!(open(&vault), Err(VaultError::Conflict { .. })));
    assert!(setup(&vault, KeySourceKind::Keychain, None).is_err());
    assert!(rekey(&vault, None, None).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn a_missing_or_wrong_key_is_locked_and_never_replaced() {
    let home = Home::new();
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    drop(vault);
    let entries = std::mem::take(&mut *home.keychain.entries.lock().unwrap());
    let vault = home.start();
    assert_eq!(reason(open(&vault).unwrap_err()), "the keychain has no key for this vault");
    assert!(home.keychain.entries().is_empty());
    assert!(matches!(setup(&vault, KeySourceKind::Keychain, None), Err(VaultError::Conflict { .. })));

    *home.keychain.entries.lock().unwrap() = entries.keys().map(|entry| (entry.clone(), "00".repeat(32))).collect();
    assert_eq!(reason(open(&vault).unwrap_err()), "the key in the keychain is not this vault's");
    assert_eq!(home.record_files().len(), 1, "no record was put aside");

    *home.keychain.entries.lock().unwrap() = entries;
    assert_eq!(contents(&open(&vault).unwrap()), names(&[("github", 1)]));
}

#[test]
fn a_lost_header_is_not_taken_for_a_first_start() {
    let home = Home::new();
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    std::fs::remove_file(home.vault().join("vault.json")).unwrap();
    let vault = home.start();
    assert!(reason(open(&vault).unwrap_err()).contains("vault.json is missing"));
    assert!(matches!(setup(&vault, KeySourceKind::KeyFile, None), Err(VaultError::Locked { .. })));
    std::fs::write(home.vault().join("vault.json"), "{\"format\"").unwrap();
    assert!(reason(open(&vault).unwrap_err()).contains("is damaged"));
    let header = r#"{"format":1,"vault_id":"00000000000000000000000000000000","key_id":"0000000000000000","key_source":"\u001b[2J"}"#;
    std::fs::write(home.vault().join("vault.json"), header).unwrap();
    let damaged = reason(open(&vault).unwrap_err());
    assert!(damaged.contains("unknown variant `[2J`") && !damaged.contains(char::is_control), "{damaged:?}");
}

#[test]
fn without_a_keychain_a_first_start_asks_for_setup_and_a_keychain_that_comes_later_is_found() {
    let home = Home::new();
    home.keychain.become_(Mood::Failing(KeychainError::NoBus));
    let vault = home.start();
    match open(&vault) {
        Err(VaultError::NeedsSetup(sentence)) => assert!(sentence.contains("there is no vault yet, and"), "{sentence}"),
        other => panic!("{other:?}"),
    }
    home.keychain.become_(Mood::Open);
    open(&vault).unwrap();
}

#[test]
fn a_keychain_locked_at_boot_is_asked_only_when_the_person_allows_it() {
    let home = Home::new();
    home.opened();
    home.keychain.become_(Mood::Failing(KeychainError::Locked));
    let vault = home.start();
    assert_eq!(reason(open(&vault).unwrap_err()), "the keychain is locked");
    call(|done| vault.open(true, None, done)).unwrap();
    call(|done| vault.lock(done)).unwrap();
    home.keychain.become_(Mood::Open);
    open(&vault).unwrap();
}

#[test]
fn a_hanging_keychain_delays_nobody_and_is_asked_once() {
    let mut home = Home::new();
    home.opened();
    home.patience = Duration::from_millis(50);
    home.keychain.become_(Mood::Hanging);
    let vault = home.start();
    let (sender, first) = mpsc::channel();
    vault.open(false, None, Box::new(move |result| sender.send(result).unwrap()));
    assert_eq!(reason(open(&vault).unwrap_err()), "the keychain has not answered yet");
    let late = first.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
    assert!(late.passes_by_itself(), "the daemon asks again by itself");
    assert_eq!(reason(late), "the keychain has not answered yet");
    assert_eq!(reason(open(&vault).unwrap_err()), "the keychain has not answered yet", "it still hangs");
    home.keychain.become_(Mood::Open);
    // Readiness is observed: the late answer is dropped, and the next opening asks anew.
    while open(&vault).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn a_keychain_that_does_not_keep_the_key_gets_no_vault() {
    let home = Home::new();
    home.keychain.become_(Mood::Forgetful);
    let vault = home.start();
    assert_eq!(reason(open(&vault).unwrap_err()), "the keychain did not keep the key");
    assert!(!home.vault().join("vault.json").exists());
}

#[test]
fn a_passphrase_vault_opens_with_its_passphrase_only() {
    let home = Home::new();
    let vault = home.start();
    assert!(matches!(setup(&vault, KeySourceKind::Passphrase, None), Err(VaultError::Conflict { .. })));
    assert!(matches!(setup(&vault, KeySourceKind::Passphrase, Some("")), Err(VaultError::Conflict { .. })));
    setup(&vault, KeySourceKind::Passphrase, Some("correct horse")).unwrap();
    save(&vault, grant("github", 1)).unwrap();
    drop(vault);
    let vault = home.start();
    match open(&vault) {
        Err(VaultError::Locked { hint, .. }) => assert_eq!(hint.as_deref(), Some("mcp-authctl unlock")),
        other => panic!("{other:?}"),
    }
    assert_eq!(unlock(&vault, "wrong horse").unwrap_err(), VaultError::WrongPassphrase);
    assert_eq!(contents(&unlock(&vault, "correct horse").unwrap()), names(&[("github", 1)]));
    assert!(home.keychain.entries().is_empty());
}

#[test]
fn a_passphrase_vault_is_not_made_without_setup() {
    let home = Home::with(KeySourceKind::Passphrase);
    let vault = home.start();
    assert!(matches!(unlock(&vault, "anything"), Err(VaultError::NeedsSetup(_))));
}

#[test]
fn an_edited_header_cannot_make_us_take_the_machine_s_memory() {
    let home = Home::new();
    setup(&home.start(), KeySourceKind::Passphrase, Some("horse")).unwrap();
    let path = home.vault().join("vault.json");
    let edited = std::fs::read_to_string(&path).unwrap().replace("\"memory_kib\": 64", "\"memory_kib\": 4000000000");
    std::fs::write(&path, edited).unwrap();
    assert!(matches!(unlock(&home.start(), "horse"), Err(VaultError::Locked { .. })));
}

#[test]
fn a_key_file_is_private_and_one_that_is_not_is_refused() {
    let home = Home::with(KeySourceKind::KeyFile);
    let key_file = home.places().key_file;
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(vault);
    let vault = home.start();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(reason(open(&vault).unwrap_err()).contains("is open to other users (mode 640)"));
    std::fs::rename(&key_file, key_file.with_extension("real")).unwrap();
    std::fs::set_permissions(key_file.with_extension("real"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(key_file.with_extension("real"), &key_file).unwrap();
    assert!(reason(open(&vault).unwrap_err()).contains("is a symbolic link"));
    std::fs::remove_file(&key_file).unwrap();
    assert!(reason(open(&vault).unwrap_err()).contains("is missing"));
    std::fs::rename(key_file.with_extension("real"), &key_file).unwrap();
    open(&vault).unwrap();
}

#[test]
fn no_key_is_put_into_a_folder_that_is_a_link_or_somebody_elses() {
    let home = Home::with(KeySourceKind::KeyFile);
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = home.folder.path().join("state");
    let places = Places { key_file: folder.join("vault.key"), ..home.places() };
    symlink(elsewhere.path(), &folder).unwrap();
    let refused = |places: Places| {
        let vault = Vault::start(places);
        reason(open(&vault).and_then(|_| save(&vault, grant("github", 1))).unwrap_err())
    };
    assert!(refused(places.clone()).contains("is a symbolic link"));
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    if std::os::unix::fs::chown(&folder, Some(65534), None).is_ok() {
        assert!(refused(places).contains("belongs to another user"));
    }
    assert_eq!((std::fs::read_dir(elsewhere.path()).unwrap().count(), std::fs::read_dir(&folder).unwrap().count()), (0, 0));
}

#[test]
fn no_key_file_is_made_unless_it_was_chosen() {
    let home = Home::new();
    home.keychain.become_(Mood::Failing(KeychainError::NoProvider));
    assert!(open(&home.start()).is_err());
    assert!(!home.places().key_file.exists());
}

#[test]
fn a_systemd_credential_opens_the_vault_if_it_is_long_enough() {
    let home = Home::with(KeySourceKind::SystemdCredential);
    let vault = home.start();
    assert!(matches!(open(&vault), Err(VaultError::NeedsSetup(_))));
    let credential = home.folder.path().join("credentials").join(key::CREDENTIAL);
    std::fs::create_dir(credential.parent().unwrap()).unwrap();
    std::fs::write(&credential, [7; 31]).unwrap();
    assert!(reason(open(&vault).unwrap_err()).contains("shorter than 32 bytes"));
    std::fs::write(&credential, [7; 32]).unwrap();
    open(&vault).unwrap();
    save(&vault, grant("github", 1)).unwrap();
    call(|done| vault.lock(done)).unwrap();
    std::fs::write(&credential, [8; 32]).unwrap();
    assert!(reason(open(&vault).unwrap_err()).contains("is not this vault's"));
}

#[test]
fn another_key_source_in_the_environment_is_refused_and_rekey_is_the_way_out() {
    let mut home = Home::new();
    save(&home.opened().0, grant("github", 1)).unwrap();
    home.key_source = Some(KeySourceKind::KeyFile);
    let vault = home.start();
    match open(&vault) {
        Err(VaultError::Conflict { hint, .. }) => assert_eq!(hint.as_deref(), Some("mcp-authctl vault rekey --key-source key-file")),
        other => panic!("{other:?}"),
    }
    assert!(!home.places().key_file.exists());
    assert_eq!(rekey(&vault, None, None), Ok(KeySourceKind::KeyFile));
    assert_eq!(contents(&open(&vault).unwrap()), names(&[("github", 1)]));
    drop(vault);
    assert_eq!(contents(&home.opened().1), names(&[("github", 1)]));
}

#[test]
fn setup_is_refused_where_there_is_a_vault() {
    let home = Home::new();
    let (vault, _) = home.opened();
    for source in KeySourceKind::ALL {
        assert!(matches!(setup(&vault, source, Some("horse")), Err(VaultError::Conflict { .. })));
    }
}

#[test]
fn rekey_moves_everything_between_any_two_key_sources() {
    let home = Home::new();
    let credential = home.folder.path().join("credentials").join(key::CREDENTIAL);
    std::fs::create_dir(credential.parent().unwrap()).unwrap();
    std::fs::write(&credential, [7; 32]).unwrap();
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    call(|done| vault.intend(intent("github", 1), done)).unwrap();
    for from in KeySourceKind::ALL {
        for to in KeySourceKind::ALL {
            let before = Header::read(&home.vault()).unwrap().unwrap();
            for target in [from, to] {
                assert_eq!(rekey(&vault, Some(target), Some("horse")), Ok(target));
            }
            let after = Header::read(&home.vault()).unwrap().unwrap();
            assert_ne!(before.key_id, after.key_id);
            assert!(after == after.settled());
            call(|done| vault.lock(done)).unwrap();
            let opened = unlock(&vault, "horse").unwrap();
            assert_eq!(contents(&opened), names(&[("github", 1)]), "{from} to {to}");
            assert_eq!(opened.intents, [intent("github", 1)]);
            assert_eq!(files_of(&home.vault(), "").iter().filter(|path| path.is_dir()).count(), 1);
        }
    }
    let key_file = std::fs::read_to_string(home.places().key_file).unwrap();
    assert_eq!(key_file.lines().count(), 1, "old keys are gone");
    assert!(home.keychain.entries().is_empty());
}

#[test]
fn a_new_key_that_does_not_come_leaves_the_old_one_in_use() {
    let home = Home::with(KeySourceKind::KeyFile);
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    drop(vault);
    let home = Home { key_source: None, ..home };
    home.keychain.become_(Mood::Failing(KeychainError::NoProvider));
    let (vault, _) = home.opened();
    assert!(matches!(rekey(&vault, Some(KeySourceKind::Keychain), None), Err(VaultError::Conflict { .. })));
    let header = Header::read(&home.vault()).unwrap().unwrap();
    assert!(header == header.settled());
    save(&vault, grant("github", 2)).unwrap();
    drop(vault);
    assert_eq!(contents(&home.opened().1), names(&[("github", 2)]));
}

#[test]
fn a_crash_at_any_step_of_a_rekey_leaves_a_whole_vault_and_the_next_opening_clears_up() {
    let template = rekey_template();
    for steps in 0.. {
        let home = template.copy();
        let mut keeper = home.keeper();
        keeper.held = Some(hold(&home));
        crash::after(Some(steps));
        let moved = move_all(&mut keeper);
        crash::after(None);
        drop(keeper);
        assert_whole_and_tidy(&home, &names(&[("github", 3), ("notion", 7)]), steps);
        if moved.is_ok() && crash::steps().len() < steps {
            assert!(steps > 20, "the steps were counted");
            return;
        }
        crash::steps();
    }
}

#[test]
fn an_error_at_any_step_of_a_rekey_loses_no_later_save() {
    let template = rekey_template();
    for steps in 0.. {
        let home = template.copy();
        let mut keeper = home.keeper();
        keeper.held = Some(hold(&home));
        crash::once_after(Some(steps));
        let _ = move_all(&mut keeper);
        let met = crash::met();
        crash::once_after(None);
        let held = keeper.held.as_mut().unwrap();
        assert_eq!(held.store.change(&[Change::Save(grant("github", 4))]), [Ok(())], "{steps}");
        drop(keeper);
        assert_whole_and_tidy(&home, &names(&[("github", 4), ("notion", 7)]), steps);
        if !met {
            return;
        }
    }
}

#[test]
fn a_folder_that_is_a_link_is_refused_and_one_that_is_open_is_closed() {
    let home = Home::new();
    let real = home.folder.path().join("real");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, home.vault()).unwrap();
    let vault = home.start();
    match open(&vault) {
        Err(VaultError::Conflict { reason, .. }) => assert!(reason.contains("is a symbolic link"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(files_of(&real, "").is_empty());
    std::fs::remove_file(home.vault()).unwrap();
    std::fs::create_dir(home.vault()).unwrap();
    std::fs::set_permissions(home.vault(), std::fs::Permissions::from_mode(0o755)).unwrap();
    open(&vault).unwrap();
    assert_eq!(std::fs::metadata(home.vault()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let home = Home::new();
    std::fs::create_dir(home.vault()).unwrap();
    // Only root can give a folder away; elsewhere there is nothing to see.
    if std::os::unix::fs::chown(home.vault(), Some(12_345), None).is_ok() {
        match open(&home.start()) {
            Err(VaultError::Conflict { reason, .. }) => assert!(reason.contains("belongs to another user"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(files_of(&home.vault(), "").is_empty());
    }
}

#[test]
fn a_backup_opens_elsewhere_with_the_same_key() {
    let home = Home::with(KeySourceKind::KeyFile);
    let (vault, _) = home.opened();
    save(&vault, grant("github", 1)).unwrap();
    call(|done| vault.intend(intent("github", 1), done)).unwrap();
    call(|done| vault.lock(done)).unwrap();
    let to = home.folder.path().join("backup");
    call(|done| vault.backup(to.clone(), done)).unwrap();
    assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(matches!(call(|done| vault.backup(to.clone(), done)), Err(VaultError::Conflict { .. })));
    assert!(matches!(call(|done| vault.backup("relative".into(), done)), Err(VaultError::Conflict { .. })));

    let elsewhere = Home::with(KeySourceKind::KeyFile);
    std::fs::rename(&to, elsewhere.vault()).unwrap();
    assert!(reason(open(&elsewhere.start()).unwrap_err()).contains("is missing"), "the key is not in the backup");
    std::fs::copy(home.places().key_file, elsewhere.places().key_file).unwrap();
    let (_, opened) = elsewhere.opened();
    assert_eq!(contents(&opened), names(&[("github", 1)]));
    assert_eq!(opened.intents, [intent("github", 1)]);
}

#[test]
fn a_panic_in_a_completion_costs_nothing_and_a_dropped_job_answers() {
    let home = Home::new();
    let (vault, _) = home.opened();
    vault.save(grant("github", 1), Box::new(|_| panic!("a caller's mistake")));
    save(&vault, grant("github", 2)).unwrap();
    let answer = call::<()>(|done| drop(jobs::Answer::to(done)));
    assert!(matches!(answer, Err(VaultError::Disk(_))));
    call(|done| vault.lock(done)).unwrap();
    home.keychain.become_(Mood::Panicking);
    assert_eq!(reason(open(&vault).unwrap_err()), "the key source failed unexpectedly");
    home.keychain.mood.clear_poison();
    home.keychain.become_(Mood::Open);
    assert_eq!(contents(&open(&vault).unwrap()), names(&[("github", 2)]));
}

#[test]
fn after_a_panic_the_vault_stays_open_unless_its_key_was_just_changing() {
    let home = Home::new();
    let mut keeper = home.keeper();
    let draft = || Header::draft(None, KeySourceKind::Passphrase, QUICK);
    assert!(keeper.existing().unwrap().is_none(), "and the folder is there now");
    keeper.create(draft(), b"secret").unwrap();
    let held = keeper.held.as_mut().unwrap();
    assert_eq!(held.store.change(&[Change::Save(grant("github", 1))]), [Ok(())]);
    keeper.start_over();
    let held = keeper.held.as_mut().expect("no passphrase is needed again");
    assert_eq!(held.store.change(&[Change::Save(grant("github", 2))]), [Ok(())]);
    assert_eq!(held.store.reload().unwrap()[0].generation, 2);

    draft().write(&home.vault()).unwrap();
    keeper.start_over();
    assert!(keeper.held.is_none(), "records would be written under a key that is on its way out");
}

#[test]
fn a_completion_never_comes_before_its_record_is_on_disk() {
    let home = Home::new();
    let (vault, _) = home.opened();
    let (sender, answer) = mpsc::channel();
    let folder = home.record_files();
    assert!(folder.is_empty());
    let look = home.vault();
    vault.save(
        grant("github", 1),
        Box::new(move |result| {
            let header = Header::read(&look).unwrap().unwrap();
            sender.send((result, files_of(&header::records_folder(&look, header.key_id), ".sealed").len())).unwrap();
        }),
    );
    assert_eq!(answer.recv_timeout(Duration::from_secs(20)).unwrap(), (Ok(()), 1));
}

fn hold(home: &Home) -> Held {
    let mut keeper = home.keeper();
    let header = Header::read(&home.vault()).unwrap().unwrap();
    let secret = home.surroundings().sources(&home.places(), None, false).fetch(&header).unwrap();
    keeper.hold(header, &secret).unwrap();
    keeper.held.unwrap()
}

/// A vault with a key file, two records, one intent and a record that was put aside.
fn rekey_template() -> Home {
    let home = Home::with(KeySourceKind::KeyFile);
    let (vault, _) = home.opened();
    save(&vault, grant("broken", 1)).unwrap();
    let broken = home.record_files().remove(0);
    save(&vault, grant("github", 3)).unwrap();
    save(&vault, grant("notion", 7)).unwrap();
    call(|done| vault.intend(intent("notion", 7), done)).unwrap();
    std::fs::write(broken, b"").unwrap();
    assert_eq!(open(&vault).unwrap().quarantined, 1);
    home
}

/// A whole change of key on this thread, where its steps can be counted.
fn move_all(keeper: &mut Keeper) -> Result<Header, VaultError> {
    let vault_id = keeper.held.as_ref().unwrap().header.vault_id;
    let draft = Header::draft(Some(vault_id), KeySourceKind::KeyFile, QUICK);
    keeper.announce(&draft)?;
    let made = keeper.surroundings.sources(&keeper.places, None, false).make(&draft);
    match made {
        Ok(secret) => keeper.move_to(draft, &secret),
        Err(_) => {
            keeper.finish_rekey();
            Err(keeper::locked("no key"))
        }
    }
}

fn assert_whole_and_tidy(home: &Home, expected: &BTreeMap<String, u64>, steps: usize) {
    let (_, opened) = home.opened();
    assert_eq!(contents(&opened), *expected, "after {steps} steps");
    assert_eq!(opened.intents, [intent("notion", 7)], "after {steps} steps");
    assert_eq!(opened.quarantined, 1, "after {steps} steps");
    let header = Header::read(&home.vault()).unwrap().unwrap();
    assert!(header == header.settled(), "after {steps} steps");
    let folders = files_of(&home.vault(), "").into_iter().filter(|path| path.is_dir()).count();
    assert_eq!(folders, 1, "after {steps} steps");
    let key_file = std::fs::read_to_string(home.places().key_file).unwrap();
    assert_eq!(key_file.lines().count(), 1, "after {steps} steps");
    assert!(files_of(home.folder.path(), ".tmp").is_empty(), "after {steps} steps");
}
