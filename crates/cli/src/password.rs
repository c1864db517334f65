//! Passwords of encrypted keys: from the environment, or from whoever sits at the terminal.
//!
//! The variable is the one that Bittensor's own tools read: `BT_PW_` and the file's path. A password
//! is never an argument, where every process of the machine could read it, and never taken from a
//! pipe by accident: without a variable and a terminal the command says which variable to set.

use std::io::{IsTerminal, Write, stdin};
use std::path::Path;

use anyhow::{Context, anyhow};
use connito_chain::keys::{self, KeyFileError, Keypair, Password, Stored};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use zeroize::Zeroizing;

use crate::exit::{Blame, Failure};

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// The longest line that a terminal passes on at once.
const LINE_BYTES: usize = 4096;

/// The pair in a key file; its password is found or asked for if it has one.
pub(crate) fn unlock(path: &Path) -> Result<Keypair, Failure> {
    let locked = match keys::open(path).input()? {
        Stored::Pair(pair) => return Ok(*pair),
        Stored::Public(_) => return keys::read(path).input(),
        Stored::Locked(locked) => locked,
    };
    let password = match in_environment(path)? {
        Some(password) => password,
        None => ask(path, "Password")?,
    };
    locked.unlock(&password).map_err(blame)
}

/// The password that a new key file is to have.
pub(crate) fn choose(path: &Path) -> Result<Password, Failure> {
    if let Some(password) = in_environment(path)? {
        return Ok(password);
    }
    let password = ask(path, "New password")?;
    if password != ask(path, "The same again")? {
        return Err(Failure::Input(anyhow!("the two passwords differ")));
    }
    Ok(password)
}

/// Memory and randomness are the machine's to provide.
pub(crate) fn blame(error: KeyFileError) -> Failure {
    match error {
        KeyFileError::NoMemory { .. }
        | KeyFileError::NoRandomness { .. }
        | KeyFileError::Unwritable { .. } => Failure::Environment(error.into()),
        _ => Failure::Input(error.into()),
    }
}

/// A relative path is looked up as it is and as what it stands for.
fn in_environment(path: &Path) -> Result<Option<Password>, Failure> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for path in [path, &absolute] {
        let variable = Password::variable(path);
        // What is not text is not base64 either, and is said to be none.
        let value = std::env::var_os(&variable).map(|value| value.to_string_lossy().into_owned());
        let Some(value) = value.map(Zeroizing::new) else {
            continue;
        };
        if let Some(password) = Password::unscramble(&variable, value.trim()).input()? {
            return Ok(Some(password));
        }
    }
    Ok(None)
}

fn ask(path: &Path, what: &str) -> Result<Password, Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::Input(anyhow!(
            "{} takes a password: set {}, or run the command in a terminal",
            path.display(),
            Password::variable(path)
        )));
    }
    eprint!("{what} of {}: ", path.display());
    let _ = std::io::stderr().flush();
    let typed = Silence::begin().and_then(|_silence| line());
    eprintln!();
    let typed = typed.context("the terminal cannot be read").environment()?;
    if typed.last() == Some(&INTERRUPT) {
        return Err(Failure::Interrupted);
    }
    Password::new(typed).ok_or_else(|| Failure::Input(anyhow!("the password is empty")))
}

/// One line, without its end. Not through the library's buffer, which would keep a copy.
fn line() -> rustix::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; LINE_BYTES]);
    let read = rustix::io::read(stdin(), bytes.as_mut_slice())?;
    bytes.truncate(read);
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

/// While it lives, the terminal does not show what is typed.
struct Silence(Termios);

impl Silence {
    fn begin() -> rustix::io::Result<Self> {
        let before = termios::tcgetattr(stdin())?;
        let mut silent = before.clone();
        // An interrupt would leave the terminal silent for good: it ends the line instead.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        termios::tcsetattr(stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Nobody is left to tell if it fails.
        let _ = termios::tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
