//! A program on a terminal: a pseudo-terminal that changes no byte, so that what is captured is what the program wrote.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::thread::JoinHandle;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, tcgetattr, tcsetattr};

use crate::run::{Output, Running};

/// A program that runs on a terminal of its own; its stdin is the terminal too.
#[derive(Debug)]
pub struct OnTerminal {
    /// The program. Its output is on the terminal and not in its files.
    pub running: Running,
    screen: JoinHandle<Vec<u8>>,
    keyboard: File,
}

impl OnTerminal {
    /// Starts it.
    #[track_caller]
    pub fn start(mut command: Command, label: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let side = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
        let first = side();
        let mut modes = tcgetattr(&first).unwrap();
        modes.output_modes.remove(OutputModes::OPOST);
        tcsetattr(&first, OptionalActions::Now, &modes).unwrap();
        command.env("TERM", "xterm").stdin(first).stdout(side()).stderr(side());
        let running = Running::attached(&mut command, label);
        // The command holds the terminal's side too, and its end would never be seen.
        drop(command);
        let mut master = File::from(master);
        let keyboard = master.try_clone().unwrap();
        let screen = std::thread::spawn(move || {
            let mut screen = Vec::new();
            // EIO: nobody has the terminal open any more.
            let _ = master.read_to_end(&mut screen);
            screen
        });
        Self { running, screen, keyboard }
    }

    /// Types a line; the terminal keeps it until somebody asks.
    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its end: the exit code and every byte that it wrote.
    #[track_caller]
    pub fn wait(mut self) -> (i32, Vec<u8>) {
        let Output { code, .. } = self.running.wait();
        (code, self.screen.join().unwrap())
    }
}
