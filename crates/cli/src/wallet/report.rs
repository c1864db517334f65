//! What `wallet list` and `wallet show` say of keys, as JSON and for people.

use std::fmt::Write as _;

use connito_chain::keys::{KeyState, Protection, WalletState};
use connito_protocol::ids::Hotkey;
use serde::Serialize;

/// All wallets of a folder.
#[derive(Serialize)]
pub(super) struct Wallets {
    pub(super) wallet_dir: String,
    pub(super) wallets: Vec<Wallet>,
}

/// One wallet.
#[derive(Serialize)]
pub(super) struct Wallet {
    name: String,
    /// Absent where neither the key nor its address is there.
    coldkey: Option<Key>,
    hotkeys: Vec<NamedKey>,
}

#[derive(Serialize)]
struct NamedKey {
    name: String,
    #[serde(flatten)]
    key: Key,
}

#[derive(Serialize)]
struct Key {
    address: Option<Hotkey>,
    file: String,
    /// Octal; absent where the file is.
    mode: Option<String>,
    /// `none`, `encrypted`, `address-only`, or `unusable`.
    protection: &'static str,
    /// The cipher, where there is one.
    encryption: Option<&'static str>,
    /// Why the key cannot be used, where that is so.
    problem: Option<String>,
}

impl Wallet {
    pub(super) fn of(state: WalletState) -> Self {
        let hotkeys = state.hotkeys.into_iter().map(|(name, key)| NamedKey {
            name,
            key: Key::of(key),
        });
        Self {
            name: state.name,
            coldkey: state.coldkey.map(Key::of),
            hotkeys: hotkeys.collect(),
        }
    }

    /// A line for the wallet and an indented one for each hotkey.
    pub(super) fn tree(&self) -> String {
        let coldkey = match &self.coldkey {
            Some(key) => key.line(),
            None => "no coldkey".to_owned(),
        };
        let mut text = format!("{}  {coldkey}", self.name);
        let longest = self
            .hotkeys
            .iter()
            .map(|hotkey| hotkey.name.chars().count());
        let width = longest.max().unwrap_or(0);
        for NamedKey { name, key } in &self.hotkeys {
            let _ = write!(text, "\n  {name:width$}  {}", key.line());
        }
        text
    }

    /// A paragraph for each key.
    pub(super) fn details(&self) -> String {
        let mut text = match &self.coldkey {
            Some(key) => format!("coldkey{}", key.paragraph()),
            None => "no coldkey".to_owned(),
        };
        for NamedKey { name, key } in &self.hotkeys {
            let _ = write!(text, "\nhotkey {name}{}", key.paragraph());
        }
        text
    }
}

impl Key {
    fn of(state: KeyState) -> Self {
        let (protection, encryption) = match state.protection {
            Protection::None => ("none", None),
            Protection::Encrypted(encryption) => ("encrypted", Some(encryption.name())),
            Protection::Elsewhere => ("address-only", None),
            Protection::Unknown => ("unusable", None),
        };
        Self {
            address: state.address,
            file: state.file.display().to_string(),
            mode: state.mode.map(|mode| format!("{mode:04o}")),
            protection,
            encryption,
            problem: state.problem.map(|problem| one_line(&problem)),
        }
    }

    fn address(&self) -> String {
        match &self.address {
            Some(address) => address.to_string(),
            None => "address unknown".to_owned(),
        }
    }

    fn state(&self) -> String {
        match (self.protection, self.encryption, &self.problem) {
            (_, Some(encryption), _) => format!("encrypted ({encryption})"),
            (_, _, Some(problem)) => problem.clone(),
            ("none", ..) => "not encrypted".to_owned(),
            _ => "address only".to_owned(),
        }
    }

    fn line(&self) -> String {
        format!("{}  {}", self.address(), self.state())
    }

    fn paragraph(&self) -> String {
        let mode = self.mode.as_deref().unwrap_or("not here");
        format!(
            "\n  address     {}\n  file        {}\n  mode        {mode}\n  protection  {}",
            self.address(),
            self.file,
            self.state()
        )
    }
}

/// An error with its causes.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
