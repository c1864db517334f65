//! `connito wallet new`: keys that are made or restored, and written where other tools find them.
//!
//! Everything that can be refused is refused before anything is written, so that a failing run leaves
//! no half of a wallet behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_chain::keys::{Keypair, Password, Phrase, Signer, Wallet};
use connito_protocol::ids::Hotkey;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{blame, wallets};
use crate::args::wallet::{Kind, NewArguments};
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::{password, text_file};

/// What the command prints as JSON.
#[derive(Serialize)]
struct Made {
    wallet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    coldkey: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hotkey: Option<Key>,
}

#[derive(Serialize)]
struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    address: Hotkey,
    file: String,
    encrypted: bool,
}

/// A key that is going to be written.
struct Plan {
    kind: Kind,
    file: PathBuf,
    phrase: Phrase,
    password: Option<Password>,
}

pub(super) fn run(arguments: &NewArguments) -> Result<(), Failure> {
    let (_, wallets) = wallets(&arguments.folder)?;
    let wallet = wallets.wallet(&arguments.name).map_err(blame)?;
    let plans = plans(arguments, &wallet)?;
    let mut made = Made {
        wallet: arguments.name.clone(),
        coldkey: None,
        hotkey: None,
    };
    for plan in &plans {
        let pair = Keypair::from_phrase(plan.phrase.clone());
        let password = plan.password.as_ref();
        let mut key = Key {
            name: None,
            address: pair.hotkey(),
            file: plan.file.display().to_string(),
            encrypted: password.is_some(),
        };
        match plan.kind {
            Kind::Coldkey => {
                wallet.create_coldkey(&pair, password).map_err(blame)?;
                made.coldkey = Some(key);
            }
            Kind::Hotkey => {
                let name = &arguments.hotkey;
                wallet.create_hotkey(name, &pair, password).map_err(blame)?;
                key.name = Some(name.clone());
                made.hotkey = Some(key);
            }
        }
    }
    if arguments.phrase_from.is_none() {
        plans.iter().for_each(show_phrase);
    }
    match arguments.json {
        true => print(&serde_json::to_string(&made).environment()?),
        false => print(&table(&made)),
    }
}

/// What is to be written, or why nothing is.
fn plans(arguments: &NewArguments, wallet: &Wallet) -> Result<Vec<Plan>, Failure> {
    let restored = arguments
        .phrase_from
        .as_deref()
        .map(phrase_in)
        .transpose()?;
    let hotkey = &arguments.hotkey;
    let files = [
        (Kind::Coldkey, wallet.coldkey(), wallet.coldkey_public()),
        (
            Kind::Hotkey,
            wallet.hotkey(hotkey).map_err(blame)?,
            wallet.hotkey_public(hotkey).map_err(blame)?,
        ),
    ];
    let wanted = files
        .into_iter()
        .filter(|(kind, ..)| arguments.only.is_none_or(|only| only == *kind));
    let wanted: Vec<_> = wanted.collect();
    for (kind, file, public) in &wanted {
        refuse_taken(*kind, &[file, public], arguments.only.is_none())?;
    }
    let mut plans = Vec::new();
    for (kind, file, _) in wanted {
        let encrypts = match kind {
            Kind::Coldkey => !arguments.no_password,
            Kind::Hotkey => arguments.encrypt_hotkey,
        };
        let phrase = match &restored {
            Some(phrase) => phrase.clone(),
            None => Phrase::generate().environment()?,
        };
        let password = encrypts.then(|| password::choose(&file)).transpose()?;
        plans.push(Plan {
            kind,
            file,
            phrase,
            password,
        });
    }
    Ok(plans)
}

fn refuse_taken(kind: Kind, files: &[&PathBuf], both: bool) -> Result<(), Failure> {
    let Some(taken) = files.iter().find(|file| file.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let remedy = match (kind, both) {
        (Kind::Coldkey, true) => "; --only hotkey makes a hotkey beside it",
        (Kind::Hotkey, _) => "; --hotkey gives the new one another name",
        (Kind::Coldkey, false) => "",
    };
    Err(Failure::Input(anyhow!(
        "{} is there already, and a key is never overwritten{remedy}",
        taken.display()
    )))
}

fn phrase_in(file: &Path) -> Result<Phrase, Failure> {
    let text = Zeroizing::new(text_file::read(file)?);
    Phrase::parse(&text)
        .with_context(|| file.display().to_string())
        .input()
}

fn show_phrase(plan: &Plan) {
    let kind = match plan.kind {
        Kind::Coldkey => "coldkey",
        Kind::Hotkey => "hotkey",
    };
    let words = plan.phrase.words();
    eprintln!(
        "connito: the new {kind}'s phrase; write it down, for it alone restores the key, and whoever \
         reads it has the key:\n\n    {}\n",
        words.as_str()
    );
}

fn table(made: &Made) -> String {
    let rows = [("coldkey", &made.coldkey), ("hotkey", &made.hotkey)];
    let lines = rows.into_iter().filter_map(|(kind, key)| {
        let key = key.as_ref()?;
        let protected = if key.encrypted {
            "encrypted"
        } else {
            "not encrypted"
        };
        Some(format!(
            "{kind:<7}  {}  {}  {protected}",
            key.address, key.file
        ))
    });
    lines.collect::<Vec<_>>().join("\n")
}
