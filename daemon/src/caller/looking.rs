//! A look at what runs in a process. What the system shows at once is read where it is asked for; the rest on a thread aside:
//! a hostile process can make it last for ever. How many such threads there are, and how long anybody waits for one, is
//! bounded; a thread that has nothing to look at ends after some seconds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::unit::unit;
use crate::platform::{Folder, Image, Process, file_stamp, resolved};
use crate::policy::record::Stamps;
use crate::policy::{Program, Weak, command_line};

/// What was found.
#[derive(Debug)]
pub(super) struct Seen {
    program: Arc<Program>,
    weak: Vec<Weak>,
    image: Image,
    /// Held open, so that another look at it costs little.
    folder: Folder,
}

impl Seen {
    pub(super) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    pub(super) fn weak(&self) -> &[Weak] {
        &self.weak
    }

    /// Whether the same executable runs in the process still. Never blocks.
    pub(super) fn holds(&self, process: &Process) -> Result<(), Weak> {
        // The folder shows no executable once its process has ended, and never another's.
        match self.folder.runs(&self.image.path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Weak::Changed),
            Err(_) => Err(unseen(process)),
        }
    }

    /// Whether the process is there still. Never blocks.
    pub(super) fn is_there(&self) -> bool {
        self.folder.executable_path().is_ok()
    }
}

/// What the system shows at once.
#[derive(Debug)]
pub(super) struct Glance {
    folder: Folder,
    executable: PathBuf,
}

impl Glance {
    /// The path of the executable. Whether that is the file at this path is not seen yet.
    pub(super) fn executable(&self) -> &Path {
        &self.executable
    }
}

/// How many looks there are at a time; those that somebody holds up count too.
const LOOKS: usize = 8;
static SEATS: Semaphore = Semaphore::const_new(LOOKS);

/// Whose threads look. Nothing else runs there: what hangs holds up looks alone.
static EYES: LazyLock<Option<Runtime>> =
    LazyLock::new(|| Builder::new_current_thread().thread_name("look").max_blocking_threads(LOOKS).build().ok());

/// How long a look may take, the wait for a seat included.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a look begins with. Never blocks.
pub(super) fn glance(process: &Process) -> Result<Glance, Weak> {
    let folder = Folder::open(process.pid());
    // The number is its own as long as it lives, so the folder is too.
    if !process.is_alive() {
        return Err(Weak::Gone);
    }
    let folder = folder.map_err(|_| Weak::Hidden)?;
    let executable = folder.executable_path().map_err(|_| unseen(process))?;
    Ok(Glance { folder, executable })
}

/// Looks what runs there.
pub(super) async fn look(process: Arc<Process>, glance: Glance) -> Result<Seen, Weak> {
    aside(&SEATS, move || look_closely(&process, glance.folder)).await
}

/// Does what may never end on a thread of its own, which keeps its seat until it does.
async fn aside<T: Send + 'static>(seats: &'static Semaphore, look: impl FnOnce() -> Result<T, Weak> + Send + 'static) -> Result<T, Weak> {
    let looking = async {
        let seat = seats.acquire().await.ok()?;
        let looked = EYES.as_ref()?.spawn_blocking(move || {
            let _seat = seat;
            look()
        });
        looked.await.ok()
    };
    tokio::time::timeout(PATIENCE, looking).await.ok().flatten().unwrap_or(Err(Weak::Slow))
}

fn look_closely(process: &Process, folder: Folder) -> Result<Seen, Weak> {
    // Once more where it became another program meanwhile.
    let again = |weak| if weak == Weak::Changed { look_through(&folder, process) } else { Err(weak) };
    let (program, weak, image) = look_through(&folder, process).or_else(again)?;
    Ok(Seen { program: Arc::new(program), weak, image, folder })
}

/// Why nothing was shown.
fn unseen(process: &Process) -> Weak {
    if process.is_alive() { Weak::Hidden } else { Weak::Gone }
}

fn look_through(folder: &Folder, process: &Process) -> Result<(Program, Vec<Weak>, Image), Weak> {
    let unseen = |_| unseen(process);
    let image = folder.executable().map_err(unseen)?;
    let name = image.path.file_name().unwrap_or_default();
    let interpreter = command_line::is_interpreter(name);
    let script = if interpreter { script(folder, name).map_err(unseen)? } else { None };
    let unit = folder.control_groups().ok().and_then(|text| unit(&text).map(str::to_owned));
    let stamps = stamps(process.pid(), script.as_deref()).map_err(unseen)?;
    let there = image.is_at_its_path();
    if folder.executable().map_err(unseen)? != image {
        return Err(Weak::Changed);
    }
    if !process.is_alive() {
        return Err(Weak::Gone);
    }
    if !there {
        return Err(Weak::OtherFile);
    }
    let mut weak = Vec::new();
    if interpreter {
        weak.push(if script.is_some() { Weak::OwnWord } else { Weak::NoScript });
    }
    if !process.is_certain() {
        weak.push(Weak::Reused);
    }
    let program = Program { executable: image.path.clone(), interpreter, script, unit, stamps: Some(stamps) };
    Ok((program, weak, image))
}

/// Which versions of its files it runs.
fn stamps(pid: u32, script: Option<&Path>) -> std::io::Result<Stamps> {
    // The file that runs, whatever is at its path by now.
    let executable = file_stamp(Path::new(&format!("/proc/{pid}/exe")))?;
    Ok(Stamps { executable, script: script.map(file_stamp).transpose()? })
}

/// The script of an interpreter, where there is one.
fn script(folder: &Folder, interpreter: &std::ffi::OsStr) -> std::io::Result<Option<std::path::PathBuf>> {
    let Some(named) = command_line::script(interpreter, &folder.arguments()?) else { return Ok(None) };
    Ok(resolved(&folder.working_folder()?, &named))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn looks_that_never_end_hold_up_nobody_for_longer_than_the_patience() {
        let seats: &'static Semaphore = Box::leak(Box::new(Semaphore::new(2)));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let stuck = |_| {
            let held = held.clone();
            tokio::spawn(aside(seats, move || held.lock().unwrap().recv().map_err(|_| Weak::Hidden)))
        };
        for look in (0..3).map(stuck).collect::<Vec<_>>() {
            assert_eq!(look.await.unwrap(), Err(Weak::Slow));
        }
        assert_eq!(seats.available_permits(), 0, "what hangs keeps its seat");
        assert_eq!(aside(seats, || Ok(())).await, Err(Weak::Slow), "and nobody starts a thread for more");
        drop(release);
        let both = seats.acquire_many(2).await.unwrap();
        drop(both);
        assert_eq!(aside(seats, || Ok(7)).await, Ok(7));
    }
}
