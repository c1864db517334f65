//! A network that runs, and the JSON lines by which a test follows it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// A network that says nothing for so long hangs. Far longer than any window.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines that a failed test shows.
const LINES_SHOWN: usize = 40;

/// A running `connito localnet --json`. Killed when dropped.
pub(crate) struct Network {
    child: Child,
    lines: Receiver<String>,
    output: Option<JoinHandle<String>>,
    told: VecDeque<String>,
    /// The process of each role that is up, by name.
    pub(crate) processes: BTreeMap<String, u32>,
    /// How often each role was started.
    pub(crate) starts: BTreeMap<String, u32>,
    pub(crate) out: PathBuf,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// The last lines of standard error.
    pub(crate) told: String,
}

impl Network {
    /// Starts a network whose results go to `out`.
    pub(crate) fn start(out: &Path, arguments: &[&str]) -> Self {
        let mut child = super::connito(["localnet", "--json", "--out"])
            .arg(out)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        // Ends with the pipe, or with the test.
        std::thread::spawn(move || {
            errors
                .lines()
                .map_while(Result::ok)
                .all(|line| send.send(line).is_ok())
        });
        let mut output = child.stdout.take().unwrap();
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            child,
            lines,
            output: Some(output),
            told: VecDeque::new(),
            processes: BTreeMap::new(),
            starts: BTreeMap::new(),
            out: out.to_path_buf(),
        }
    }

    /// The next line, `None` after the last. A line that is not JSON is the closing sentence.
    pub(crate) fn next(&mut self) -> Option<Value> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(Disconnected) => return None,
            Err(Timeout) => panic!("the network hangs:\n{}", self.told()),
        };
        let fact: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        self.told.push_back(line);
        if self.told.len() > LINES_SHOWN {
            self.told.pop_front();
        }
        if let (Some(name), Some(process)) = (fact["started"].as_str(), fact["process"].as_u64()) {
            let process = u32::try_from(process).unwrap();
            self.processes.insert(name.to_owned(), process);
            *self.starts.entry(name.to_owned()).or_default() += 1;
        }
        if let Some(name) = fact["died"].as_str() {
            self.processes.remove(name);
        }
        Some(fact)
    }

    /// Reads lines until one says what is waited for.
    pub(crate) fn wait_for(&mut self, is_it: impl Fn(&Self, &Value) -> bool) {
        while let Some(fact) = self.next() {
            if is_it(self, &fact) {
                return;
            }
        }
        panic!("the network ended early:\n{}", self.told());
    }

    /// Reads on until the network has ended.
    pub(crate) fn finish(mut self) -> Ended {
        while self.next().is_some() {}
        let code = self.child.wait().unwrap().code();
        let stdout = self.output.take().unwrap().join().unwrap();
        Ended {
            code,
            stdout,
            told: self.told(),
        }
    }

    /// The network's own process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    fn told(&self) -> String {
        self.told.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name; whether there was a process to send it to.
pub(crate) fn signal(name: &str, process: u32) -> bool {
    let sent = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.unwrap().success()
}
