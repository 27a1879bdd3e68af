//! Which tests there are for the guest, and the programs that they are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{During, SetUpError, read};
use crate::report::Job;

/// Integration tests in files of this name run in the guest.
const TEST_FILES: &str = "vm_*";
/// What of the workspace's own programs is in the guest.
const PROGRAMS: &[&str] = &[PROGRAM];
/// The one that the package brings along.
pub const PROGRAM: &str = "bondwire";
/// What measures in the guest.
pub const BENCHMARK: &str = "bondwire-vm-bench";
/// The same for a guest that is there to measure.
const BENCHMARKS: &[&str] = &[BENCHMARK, "bondwire-aggligator"];
/// The first program of the guest.
const INIT: &str = "bondwire-vm-init";
/// How long a test may take. Emulation is slow, and the host may be busy; a test that works takes a third of it at most.
const LIMIT_SECONDS: u64 = 300;
/// How long a test may take that `--long` asks for.
const LONG_LIMIT_SECONDS: u64 = 3600;

/// What the workspace puts into a guest.
#[derive(Debug, Default, Clone)]
pub struct Contents {
    /// Its first program.
    pub init: PathBuf,
    /// Programs for its `/usr/bin`: the name there, and the file.
    pub programs: BTreeMap<String, PathBuf>,
    /// The names of those that are tests. Their order does not depend on which cargo was done with first.
    pub tests: BTreeSet<String>,
    /// A folder with rules for udev.
    pub rules: PathBuf,
    /// The Debian package of the workspace's program, for guests with systemd: tests install it there.
    pub package: Option<PathBuf>,
}

impl Contents {
    /// Builds them in the workspace `root`, in one of cargo's profiles; tests also with these features.
    ///
    /// # Errors
    ///
    /// They do not build.
    pub fn build(root: &Path, profile: &str, features: Option<&str>) -> Result<Self, SetUpError> {
        let mut arguments = vec!["--workspace", "--bins", "--test", TEST_FILES, "--profile", profile];
        arguments.extend(features.iter().flat_map(|features| ["--features", features]));
        let mut contents = Self { rules: root.join("udev"), ..Self::default() };
        contents.build_with(root, &arguments, PROGRAMS)?;
        Ok(contents)
    }

    /// Builds the benchmark of the workspace `root`, and no tests; `beside` also what others have, which is a workspace of its
    /// own.
    ///
    /// # Errors
    ///
    /// It does not build.
    pub fn build_benchmark(root: &Path, beside: bool) -> Result<Self, SetUpError> {
        let mut contents = Self { rules: root.join("udev"), ..Self::default() };
        let packages = ["--package", "bondwire-vm", "--package", BENCHMARK];
        contents.build_with(root, &[&packages[..], &["--bins", "--release"]].concat(), BENCHMARKS)?;
        if beside {
            let folder = root.join("firmware-host-tests/aggligator");
            contents.build_with(&folder, &["--release", "--locked"], BENCHMARKS)?;
        }
        Ok(contents)
    }

    fn build_with(&mut self, root: &Path, arguments: &[&str], programs: &[&str]) -> Result<(), SetUpError> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root).arg("build").args(arguments);
        cargo.args(["--quiet", "--message-format", "json-render-diagnostics"]);
        // Cargo's own messages go to the terminal as they come.
        let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().during("run cargo")?;
        if !output.status.success() {
            return Err(SetUpError::Build);
        }
        String::from_utf8_lossy(&output.stdout).lines().for_each(|line| self.take(line, programs));
        Ok(())
    }

    /// Takes what one message of cargo's tells of, if it is a test or one of these programs.
    fn take(&mut self, message: &str, programs: &[&str]) {
        let Some((name, kind, file)) = artifact(message) else { return };
        match kind.as_str() {
            "bin" if name == INIT => self.init = file,
            "test" => {
                self.tests.insert(name.clone());
                self.programs.insert(name, file);
            }
            "bin" if programs.contains(&name.as_str()) => drop(self.programs.insert(name, file)),
            _ => {}
        }
    }

    /// One job for each test whose name contains `filter`.
    ///
    /// # Errors
    ///
    /// There is none, or a program does not list its tests.
    pub fn jobs(&self, filter: Option<&str>, long: bool) -> Result<Vec<Job>, SetUpError> {
        let mut jobs = Vec::new();
        for (program, file) in self.programs.iter().filter(|(name, _)| self.tests.contains(*name)) {
            let ignored =
                names(&read(Command::new(file).args(["--list", "--format", "terse", "--ignored"]))?);
            let all = names(&read(Command::new(file).args(["--list", "--format", "terse"]))?);
            for test in all.into_iter().filter(|test| long || !ignored.contains(test)) {
                let limit_seconds = if ignored.contains(&test) { LONG_LIMIT_SECONDS } else { LIMIT_SECONDS };
                jobs.push(test_job(program, &test, limit_seconds));
            }
        }
        jobs.retain(|job| filter.is_none_or(|filter| job.name.contains(filter)));
        if jobs.is_empty() {
            Err(SetUpError::NoTest(filter.unwrap_or_default().to_owned()))
        } else {
            Ok(jobs)
        }
    }
}

fn test_job(program: &str, test: &str, limit_seconds: u64) -> Job {
    let arguments =
        [program, test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1", "--quiet"];
    Job { name: format!("{program}::{test}"), command: arguments.map(str::to_owned).into(), limit_seconds }
}

/// Name, kind and file of the program that a message of cargo's tells of, if it tells of one.
fn artifact(message: &str) -> Option<(String, String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let file = text(&message["executable"])?;
    Some((text(&message["target"]["name"])?, text(&message["target"]["kind"][0])?, file.into()))
}

/// The names in a list of tests.
fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_sorted_by_what_they_are() {
        let mut contents = Contents::default();
        let message = |name: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"executable":"/t/{name}"}}"#
            )
        };
        contents.take(&message("bondwire-vm-init", "bin"), PROGRAMS);
        contents.take(&message("vm_self", "test"), PROGRAMS);
        contents.take(&message("vm_bond", "test"), PROGRAMS);
        contents.take(&message("bondwire", "bin"), PROGRAMS);
        contents.take(&message("bondwire", "bin"), PROGRAMS);
        contents.take(&message("xtask", "bin"), PROGRAMS);
        contents.take(&message(BENCHMARK, "bin"), PROGRAMS);
        contents.take(r#"{"reason":"build-finished","success":true}"#, PROGRAMS);
        assert_eq!(contents.init, Path::new("/t/bondwire-vm-init"));
        assert!(contents.tests.iter().eq(["vm_bond", "vm_self"]), "in the order of their names");
        let programs = ["bondwire", "vm_bond", "vm_self"];
        let programs = programs.map(|name| (name.to_owned(), Path::new("/t").join(name)));
        assert!(contents.programs.into_iter().eq(programs));
    }

    #[test]
    fn a_filter_that_fits_nothing_is_an_error() {
        let error = Contents::default().jobs(Some("cable"), false).unwrap_err();
        assert!(error.to_string().contains("\"cable\""), "{error}");
    }

    #[test]
    fn the_list_of_a_test_program_is_understood() {
        assert_eq!(names("a::b: test\nc: test\nd: benchmark\n"), ["a::b", "c"]);
    }
}
