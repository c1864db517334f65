//! The validator as a process: started, measured from outside, killed without warning.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use connito_node::server::Health;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{Options, Outcome, http};

/// How long the validator may take to open its window: it hashes a shard and replays its journal.
const READY_WITHIN: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(50);

/// A folder that was empty before the run and is gone after it.
#[derive(Debug)]
pub(crate) struct OwnFolder(PathBuf);

impl OwnFolder {
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(path)?;
        if std::fs::read_dir(path)?.next().is_some() {
            return Err(format!("{} is not empty", path.display()).into());
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("load: {} stays: {error}", self.0.display());
        }
    }
}

/// A running validator; killed when dropped.
#[derive(Debug)]
pub(crate) struct Validator {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Validator {
    /// Starts it and waits until it takes uploads.
    pub(crate) async fn start(options: &Options, listen: SocketAddr) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .args(["--folder".into(), options.folder.clone()])
            .args(["--listen", &listen.to_string()])
            .args(["--bytes", &options.bytes.to_string()])
            .args(["--miners", &options.miners.to_string()])
            .args(["--slow", &options.slow.to_string()])
            .args(["--riders", &options.riders.to_string()])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("no standard output")?;
        let line = BufReader::new(output).lines().next_line().await?;
        let address = line
            .as_deref()
            .and_then(|line| line.strip_prefix("listening ")?.parse().ok())
            .ok_or("the validator did not start")?;
        let validator = Self { child, address };
        tokio::time::timeout(READY_WITHIN, validator.ready()).await??;
        Ok(validator)
    }

    async fn ready(&self) -> Outcome<()> {
        loop {
            let answer = http::get(self.address, "/v1/health").await?;
            let health: Health = serde_json::from_slice(&answer.body)?;
            if health.state.is_some() && health.cycle.is_some() {
                return Ok(());
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// `kill -9`, and gone when it returns.
    pub(crate) async fn kill(mut self) -> Outcome<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Its memory now.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it has had since it was started or [`Self::forget_peak`] was called.
    pub(crate) fn peak_bytes(&self) -> Outcome<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Begins the measurement of the peak anew.
    pub(crate) fn forget_peak(&self) -> Outcome<()> {
        let id = self.child.id().ok_or("the validator has ended")?;
        Ok(std::fs::write(format!("/proc/{id}/clear_refs"), "5")?)
    }

    fn status_bytes(&self, key: &str) -> Outcome<u64> {
        let id = self.child.id().ok_or("the validator has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
        let kibibytes: u64 = kibibytes.ok_or("no such line in the status")?;
        Ok(kibibytes << 10)
    }
}
