//! PURE: which executables run what others wrote, and which script a command line names. A process can overwrite its own
//! command line, so that all of this is its own word; it tells honest programs apart.

use std::ffi::{OsStr, OsString};

/// One kind of interpreter and how it finds its script.
struct Interpreter {
    /// The names of its executable; a version may follow (`python3.13`).
    names: &'static [&'static str],
    /// Whether options of one letter may stand together: `-uX dev`.
    clusters: bool,
    /// Options whose value is the next argument.
    valued: &'static [&'static str],
    /// Options after which no script is named: code on the command line, a module, a task.
    scriptless: &'static [&'static str],
    /// Options whose value is the script.
    script: &'static [&'static str],
    /// Words before the script.
    words: &'static [&'static str],
}

const NONE: &[&str] = &[];

#[rustfmt::skip]
const INTERPRETERS: &[Interpreter] = &[
    Interpreter {
        names: &["python", "pypy"],
        clusters: true,
        valued: &["-W", "-X", "--check-hash-based-pycs"],
        scriptless: &["-c", "-m"],
        script: NONE,
        words: NONE,
    },
    Interpreter {
        names: &["node", "nodejs"],
        clusters: false,
        valued: &[
            "-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file", "--title",
            "--disable-warning", "--icu-data-dir", "--openssl-config", "--redirect-warnings", "--input-type", "--watch-path",
        ],
        scriptless: &["-e", "--eval", "-p", "--print", "-pe", "-c", "--check", "--run", "--test", "-i", "--interactive"],
        script: NONE,
        words: NONE,
    },
    Interpreter {
        names: &["deno"],
        clusters: false,
        valued: &["-c", "--config", "--import-map", "-L", "--log-level", "--preload", "--cert", "--lock", "--location", "--seed"],
        scriptless: &["eval", "repl", "task", "test", "x", "-h", "-V"],
        script: NONE,
        words: &["run", "serve"],
    },
    Interpreter {
        names: &["bun", "bunx"],
        clusters: false,
        valued: &["-r", "--preload", "--require", "--import", "-c", "--config", "--cwd", "--env-file", "--tsconfig-override", "-d", "--define"],
        scriptless: &["-e", "--eval", "-p", "--print", "x", "exec", "repl", "test", "create", "install", "build"],
        script: NONE,
        words: &["run"],
    },
    Interpreter {
        names: &["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "yash", "fish", "busybox", "toybox"],
        clusters: true,
        valued: &["-o", "+o", "-O", "+O", "--rcfile", "--init-file", "--emulate"],
        scriptless: &["-c", "--command", "-s", "-i"],
        script: NONE,
        words: &["sh", "ash", "bash", "hush"],
    },
    Interpreter { names: &["perl"], clusters: true, valued: &["-I", "-M", "-m"], scriptless: &["-e", "-E"], script: NONE, words: NONE },
    Interpreter {
        names: &["ruby", "jruby", "truffleruby"],
        clusters: true,
        valued: &["-I", "-r", "-C", "--encoding"],
        scriptless: &["-e", "-S"],
        script: NONE,
        words: NONE,
    },
    Interpreter {
        names: &["java", "javaw"],
        clusters: false,
        valued: &["-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens", "--add-exports", "--add-reads"],
        scriptless: &["-m", "--module"],
        script: &["-jar"],
        words: NONE,
    },
    Interpreter { names: &["php", "php-cgi"], clusters: true, valued: &["-d", "-c", "-t", "-z"], scriptless: &["-r", "-R", "-B", "-a", "-S"], script: &["-f"], words: NONE },
    Interpreter { names: &["lua", "luajit"], clusters: true, valued: &["-l"], scriptless: &["-e", "-i"], script: NONE, words: NONE },
    Interpreter { names: &["tclsh", "wish", "expect", "guile", "Rscript", "escript", "raku"], clusters: false, valued: NONE, scriptless: &["-e", "-c"], script: NONE, words: NONE },
    Interpreter { names: &["pwsh"], clusters: false, valued: &["-ExecutionPolicy", "-WorkingDirectory"], scriptless: &["-Command", "-c", "-EncodedCommand", "-e"], script: &["-File", "-f"], words: NONE },
    Interpreter { names: &["dotnet", "mono"], clusters: false, valued: NONE, scriptless: &["run", "test", "watch"], script: NONE, words: &["exec"] },
    // What starts any other program by its path, as itself.
    Interpreter { names: &["ld-linux", "ld-musl", "ld.so", "ld64.so", "qemu"], clusters: false, valued: &["--library-path", "--preload", "--argv0", "--audit", "-L", "-E"], scriptless: NONE, script: NONE, words: NONE },
    // What starts others below itself, and is nobody when it asks on its own.
    Interpreter { names: &["uv", "uvx", "npx", "npm", "pnpm", "yarn", "pipx", "env", "xargs", "gdb", "lldb", "strace"], clusters: false, valued: NONE, scriptless: &[""], script: NONE, words: NONE },
];

/// Whether an executable of this name runs what others wrote.
pub(crate) fn is_interpreter(executable: &OsStr) -> bool {
    find(executable).is_some()
}

/// The script that a command line names, as it names it; `None` where it names none, or the executable is no interpreter.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux shows command lines"))]
pub(crate) fn script(executable: &OsStr, arguments: &[OsString]) -> Option<OsString> {
    let interpreter = find(executable)?;
    if interpreter.scriptless == [""] {
        return None;
    }
    let mut rest = arguments.iter().skip(1);
    let mut words = interpreter.words;
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str().filter(|text| !text.is_empty()) else { return (!argument.is_empty()).then(|| argument.clone()) };
        match interpreter.meaning(text) {
            Meaning::Script => return rest.next().cloned(),
            Meaning::Scriptless => return None,
            Meaning::Valued => drop(rest.next()),
            Meaning::Flag => {}
            Meaning::Operand if words.contains(&text) => words = NONE,
            Meaning::Operand => return Some(argument.clone()),
        }
    }
    None
}

enum Meaning {
    Flag,
    Valued,
    Scriptless,
    /// The script is the next argument.
    Script,
    /// Not an option.
    Operand,
}

impl Interpreter {
    fn meaning(&self, text: &str) -> Meaning {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        match text {
            "--" => return Meaning::Script,
            // Standard input.
            "-" => return Meaning::Scriptless,
            _ if self.scriptless.contains(&name) => return Meaning::Scriptless,
            _ if self.script.contains(&name) => return Meaning::Script,
            _ if self.valued.contains(&text) => return Meaning::Valued,
            _ if !text.starts_with(['-', '+']) => return Meaning::Operand,
            _ if text.starts_with("--") || !self.clusters => return Meaning::Flag,
            _ => {}
        }
        // A cluster: `-Ic CODE`, `-lc CODE`, `-Wignore`, `-uX dev`.
        for (at, letter) in text.char_indices().skip(1) {
            let option = format!("-{letter}");
            if self.scriptless.contains(&option.as_str()) {
                return Meaning::Scriptless;
            }
            if self.valued.contains(&option.as_str()) {
                return if at + letter.len_utf8() == text.len() { Meaning::Valued } else { Meaning::Flag };
            }
        }
        Meaning::Flag
    }
}

fn find(executable: &OsStr) -> Option<&'static Interpreter> {
    // A name that is no UTF-8 is none of these.
    let name = executable.to_str()?;
    INTERPRETERS.iter().find(|interpreter| interpreter.names.iter().any(|known| is_version_of(name, known)))
}

/// `python3.13`, `python3.11-dbg`, `perl5.36-x86_64-linux-gnu`, `node-22`, `bash-static`, `ld-linux-x86-64.so.2`.
fn is_version_of(name: &str, known: &str) -> bool {
    let Some(rest) = name.strip_prefix(known) else { return false };
    let more = rest.trim_start_matches(['-', '.']);
    rest.is_empty()
        || more.starts_with(|first: char| first.is_ascii_digit())
        || matches!(rest, "-static" | ".static")
        || (matches!(known, "ld-linux" | "ld-musl" | "qemu") && rest.starts_with(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        script(&words[0], &words).map(|script| script.into_string().unwrap())
    }

    #[test]
    fn an_interpreter_is_known_by_its_name_with_and_without_a_version() {
        for name in [
            "python",
            "python3",
            "python3.11",
            "python3.13t",
            "python3.11-dbg",
            "node",
            "nodejs",
            "node-22",
            "bash",
            "bash-static",
            "sh",
            "perl5.36-x86_64-linux-gnu",
            "ruby3.1",
            "php8.2",
            "lua5.4",
            "java",
            "deno",
            "bun",
            "uvx",
            "ld-linux-x86-64.so.2",
            "ld-musl-x86_64.so.1",
            "qemu-aarch64",
            "busybox",
        ] {
            assert!(is_interpreter(OsStr::new(name)), "{name}");
        }
        for name in ["", "mcp-authctl", "github-mcp-server", "shellcheck", "node_exporter", "java-like", "pythonic", "show", "cat", "envoy"]
        {
            assert!(!is_interpreter(OsStr::new(name)), "{name}");
        }
        use std::os::unix::ffi::OsStrExt as _;
        assert!(!is_interpreter(OsStr::from_bytes(b"python\xff")));
    }

    #[test]
    fn the_script_comes_after_the_options_and_their_values() {
        for (line, expected) in [
            ("python3 server.py", Some("server.py")),
            ("python3.11 -u -W ignore -X dev server.py --port 1", Some("server.py")),
            ("python3 -Wignore -uX dev server.py", Some("server.py")),
            ("python3 -IS -- server.py", Some("server.py")),
            ("node --enable-source-maps --max-old-space-size=4096 dist/index.js -e", Some("dist/index.js")),
            ("node --import tsx -r dotenv/config server.ts", Some("server.ts")),
            ("deno run -A --config deno.json server.ts", Some("server.ts")),
            ("bun run server.ts", Some("server.ts")),
            ("bun server.ts", Some("server.ts")),
            ("bash -eu -o pipefail ./run.sh -c", Some("./run.sh")),
            ("busybox sh run.sh", Some("run.sh")),
            ("java -Xmx1g -cp a:b -jar server.jar x", Some("server.jar")),
            ("php -d a=b -f server.php", Some("server.php")),
            ("perl -w -I lib server.pl", Some("server.pl")),
            ("ld-linux-x86-64.so.2 --library-path /x /opt/server", Some("/opt/server")),
        ] {
            assert_eq!(of(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn code_modules_tasks_and_standard_input_are_no_script() {
        for line in [
            "python3",
            "python3 -c x server.py",
            "python3 -m server",
            "python3 -Im server",
            "python3 -uc x",
            "python3 - server.py",
            "node -e x server.js",
            "node --eval=x server.js",
            "node -pe x",
            "node --run start",
            "bash -lc ./run.sh",
            "bash -c ./run.sh",
            "sh -s server",
            "deno eval x",
            "deno task x",
            "bun x cowsay",
            "ruby -e x",
            "java -cp a -m b/c",
            "npx server",
            "uvx server",
            "env python3 server.py",
            "server /opt/github",
            "python3 -W",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
