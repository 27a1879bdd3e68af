//! Why the virtual machine cannot be had.

use std::path::PathBuf;
use std::{fmt, io};

/// Set-up did not succeed. The message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// A program is not installed, and this user may not install it.
    #[error("{program} is not installed; install it with: apt-get install {package}")]
    ProgramMissing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// This is not a Debian, whose packages the guest is made of.
    #[error(
        "{0} is not there: the guest is made of Debian's packages, which only Debian and its relatives can fetch"
    )]
    NotDebian(&'static str),
    /// The guest runs on the processor of this host, and there is a recipe for one kind only.
    #[error("this host's processor is {0}; the guest needs x86_64")]
    Processor(&'static str),
    /// No package of this name can be found or fetched.
    #[error("cannot get the packages {packages}: {detail}; is there a network, and may apt-get update run?")]
    Download {
        /// The packages asked for.
        packages: String,
        /// What apt said.
        detail: String,
    },
    /// A package file is damaged. It was removed, so that the next run fetches it again.
    #[error("the package {} is broken ({detail}); it was removed, so run this again to fetch it again", file.display())]
    BrokenPackage {
        /// The file.
        file: PathBuf,
        /// What dpkg said.
        detail: String,
    },
    /// The kernel has no such module.
    #[error("the kernel {release} has no module {module}")]
    NoModule {
        /// The module.
        module: String,
        /// The kernel.
        release: String,
    },
    /// A shared library that a program of the guest needs is not to be found.
    #[error("{program} needs the library {library}, which is not on this host")]
    NoLibrary {
        /// Who needs it.
        program: String,
        /// The library.
        library: String,
    },
    /// The guest did not come so far as to run anything.
    #[error("the guest did not come up: {detail}; see its console, {}", console.display())]
    NotUp {
        /// What was seen of it.
        detail: String,
        /// The record of its console.
        console: PathBuf,
    },
    /// The tests cannot be built; cargo has said why.
    #[error("the tests for the guest do not build")]
    Build,
    /// No test has such a name.
    #[error("no test for the guest has {0:?} in its name; see them all with: cargo xtask vm --long --list")]
    NoTest(String),
    /// A program that does part of the work ended badly.
    #[error("{command} failed: {detail}")]
    Command {
        /// The command.
        command: String,
        /// Its last words.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    File {
        /// What was being done, with the path.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Says what was being done when a file could not be read or written.
pub(crate) trait During<T> {
    fn during(self, what: impl fmt::Display) -> Result<T, SetUpError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl fmt::Display) -> Result<T, SetUpError> {
        self.map_err(|source| SetUpError::File { what: what.to_string(), source })
    }
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn read(command: &mut std::process::Command) -> Result<String, SetUpError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output().during(format_args!("run {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let detail = last_line(&output.stderr).unwrap_or_else(|| output.status.to_string());
    Err(SetUpError::Command { command: name, detail })
}

/// The last line of a program's complaint that says something.
fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}
