//! Starting and stopping the cast: in this process, or in processes that are started again.
//!
//! Both ways run the same functions on the same configurations over the same HTTP.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::plan::Plan;
use crate::exit::{Blame, Failure};
use crate::roles::{self, Kind};

/// Starts of one role before something is considered wrong with it rather than done to it.
const MAXIMUM_STARTS: u32 = 50;

/// How long a process may take to end after its input was closed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a role that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Notices waiting to be shown; more than roles can start at once.
const QUEUED_NOTICES: usize = 256;

/// Something that happened to a role's process.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// It runs.
    Started { name: String, process: Option<u32> },
    /// It ended by itself and will be started again.
    Died { name: String, how: String },
}

/// The running cast.
#[derive(Debug)]
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    roles: JoinSet<Result<(), Failure>>,
    notices: mpsc::Receiver<Notice>,
}

impl Running {
    /// Starts everything in this process.
    pub(crate) async fn in_process(plan: &Plan) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (notify, notices) = mpsc::channel(QUEUED_NOTICES);
        let mut roles = JoinSet::new();
        roles.spawn(roles::chain(plan.chain.clone(), stopping.clone()));
        for actor in &plan.actors {
            roles.spawn(roles::participant(
                actor.kind,
                actor.config.clone(),
                stopping.clone(),
            ));
            let name = actor.name.clone();
            // Full only if nobody shows notices.
            let _ = notify.try_send(Notice::Started {
                name,
                process: None,
            });
        }
        Self {
            stop,
            roles,
            notices,
        }
    }

    /// Starts every role as a process of its own.
    pub(crate) fn in_processes(plan: &Plan) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .context("this program cannot be found")
            .environment()?;
        let (stop, stopping) = watch::channel(false);
        let (notify, notices) = mpsc::channel(QUEUED_NOTICES);
        let mut roles = JoinSet::new();
        let chain = ("chain".to_owned(), "chain", plan.chain_config_file.clone());
        let others = plan.actors.iter().map(|actor| {
            let command = match actor.kind {
                Kind::Owner => "owner",
                Kind::Validator => "validator",
                Kind::Miner => "miner",
            };
            (actor.name.clone(), command, actor.config_file.clone())
        });
        for (name, command, config) in std::iter::once(chain).chain(others) {
            let supervisor = Supervisor {
                program: program.clone(),
                log: plan.out.join("log").join(format!("{name}.log")),
                name,
                command,
                config,
                notify: notify.clone(),
            };
            roles.spawn(supervisor.run(stopping.clone()));
        }
        Ok(Self {
            stop,
            roles,
            notices,
        })
    }

    /// The next notice, or the failure of the first role that ends although nobody asked it to.
    /// Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Notice, Failure> {
        let ended = tokio::select! {
            Some(notice) = self.notices.recv() => return Ok(notice),
            Some(ended) = self.roles.join_next() => ended,
            else => return std::future::pending().await,
        };
        match ended {
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(())) => Err(Failure::Environment(anyhow!(
                "a role ended before it was told to"
            ))),
            Err(error) => Err(Failure::Environment(anyhow!("a role failed: {error}"))),
        }
    }

    /// Tells everybody to stop and waits until all have.
    pub(crate) async fn stop(mut self) {
        // An error means that all roles have ended already.
        let _ = self.stop.send(true);
        while self.roles.join_next().await.is_some() {}
    }
}

/// Keeps one process running.
struct Supervisor {
    program: std::path::PathBuf,
    log: std::path::PathBuf,
    name: String,
    command: &'static str,
    config: std::path::PathBuf,
    notify: mpsc::Sender<Notice>,
}

impl Supervisor {
    async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        for _ in 0..MAXIMUM_STARTS {
            let mut child = self.start()?;
            // Held apart, for waiting for a child closes its input.
            let input = child.stdin.take();
            let started = Notice::Started {
                name: self.name.clone(),
                process: child.id(),
            };
            // A closed channel means that nobody shows notices any more.
            let _ = self.notify.send(started).await;
            let ended = tokio::select! {
                () = told(&mut stop) => None,
                ended = child.wait() => Some(ended.context("a process cannot be waited for").environment()?),
            };
            let Some(ended) = ended else {
                drop(input);
                end(&mut child).await;
                return Ok(());
            };
            if ended.code() == Some(2) {
                return Err(Failure::Input(anyhow!(
                    "{}: {}",
                    self.name,
                    last_line(&self.log)
                )));
            }
            let how = format!("{ended}");
            let _ = self
                .notify
                .send(Notice::Died {
                    name: self.name.clone(),
                    how,
                })
                .await;
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        let last = last_line(&self.log);
        Err(Failure::Environment(anyhow!(
            "{} died {MAXIMUM_STARTS} times: {last}",
            self.name
        )))
    }

    fn start(&self) -> Result<Child, Failure> {
        let refused = || format!("cannot write {}", self.log.display());
        if let Some(folder) = self.log.parent() {
            std::fs::create_dir_all(folder)
                .with_context(refused)
                .environment()?;
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log);
        let log = log.with_context(refused).environment()?;
        let errors = log.try_clone().with_context(refused).environment()?;
        Command::new(&self.program)
            .arg(self.command)
            .arg("--config")
            .arg(&self.config)
            // Closed by the system when this process ends, however it ends: nothing is left behind.
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // An interrupt at the terminal is for this process, which then stops the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.name))
            .environment()
    }
}

/// Completes when everything is to stop; also when whoever could say so is gone.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits for a process whose input was closed, and not for ever.
async fn end(child: &mut Child) {
    if tokio::time::timeout(STOP_PATIENCE, child.wait())
        .await
        .is_err()
    {
        // It has had its time; what it acknowledged is in its journal.
        let _ = child.kill().await;
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it said nothing")
        .trim_start_matches("connito: ")
        .to_owned()
}
