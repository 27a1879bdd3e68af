//! A real download by `curl`.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::clock;
use crate::namespace::Namespace;

const BLOCK_BYTES: usize = 64 << 10;

/// A running `curl` that downloads to its standard output. Dropping it kills it.
#[derive(Debug)]
pub struct Curl(Child);

impl Curl {
    /// Starts it in `host`, with further arguments, for `limit` at most.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(host: &Namespace, arguments: &[&str], url: &str, limit: Duration) -> Result<Self> {
        let mut command = host.command(Path::new("curl"));
        command.args(["--silent", "--show-error", "--no-buffer", "--fail"]);
        command.args(["--max-time", &limit.as_secs().to_string()]).args(arguments).arg(url);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self(child.context("cannot start curl")?))
    }

    /// Reads what it downloads and returns the SHA-256. `seen` is told when how many bytes came, and says
    /// whether to go on.
    ///
    /// # Errors
    /// If it was read before, or with what `seen` returns.
    pub fn read(&mut self, mut seen: impl FnMut(u64, u64) -> Result<bool>) -> Result<[u8; 32]> {
        let mut output = self.0.stdout.take().context("curl's output was read before")?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let length = output.read(&mut block)?;
            if length == 0 || !seen(clock::now_ns(), length as u64)? {
                return Ok(hash.finalize().into());
            }
            hash.update(&block[..length]);
        }
    }

    /// Waits for its end, which has to be a good one.
    ///
    /// # Errors
    /// With what it says.
    pub fn finish(mut self) -> Result<()> {
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = self.0.wait()?;
        ensure!(status.success(), "curl failed ({status}): {}", said.trim());
        Ok(())
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
