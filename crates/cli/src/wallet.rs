//! `connito wallet`: keys in the folders of Bittensor's own tools, made, listed, and signed with.
//!
//! A new key's phrase is shown once, on standard error: standard output holds results, which land in
//! files and logs. Nothing else here shows a secret.

mod new;
mod report;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use connito_chain::keys::{self, SIGNATURE_BYTES, Signer, WalletError, Wallets};
use connito_protocol::ids::Hotkey;
use serde::Serialize;

use crate::args::wallet::{
    ListArguments, Message, ShowArguments, SignArguments, VerifyArguments, WalletCommand,
    WalletFolder,
};
use crate::exit::{Blame, Failure};
use crate::output::print;
use crate::password;

/// Far more than anybody signs, and little enough to be held in memory.
const LONGEST_MESSAGE: u64 = 1 << 30;

/// Runs the command.
pub(crate) fn run(command: &WalletCommand) -> Result<(), Failure> {
    match command {
        WalletCommand::New(arguments) => new::run(arguments),
        WalletCommand::List(arguments) => list(arguments),
        WalletCommand::Show(arguments) => show(arguments),
        WalletCommand::Sign(arguments) => sign(arguments),
        WalletCommand::Verify(arguments) => verify(arguments),
    }
}

/// The folder that is meant, and its wallets.
fn wallets(folder: &WalletFolder) -> Result<(PathBuf, Wallets), Failure> {
    let folder = match (&folder.wallet_dir, std::env::var_os("BT_WALLET_PATH")) {
        (Some(folder), _) => folder.clone(),
        (None, Some(path)) if !path.is_empty() => at_home(&PathBuf::from(path))?,
        (None, _) => at_home(Path::new("~/.bittensor/wallets"))?,
    };
    let wallets = Wallets::at(&folder);
    Ok((folder, wallets))
}

/// A variable is not expanded by the shell.
fn at_home(path: &Path) -> Result<PathBuf, Failure> {
    let Ok(rest) = path.strip_prefix("~") else {
        return Ok(path.to_owned());
    };
    match std::env::home_dir() {
        Some(home) if !home.as_os_str().is_empty() => Ok(home.join(rest)),
        _ => Err(Failure::Input(anyhow!(
            "there is no home folder for {}: say --wallet-dir",
            path.display()
        ))),
    }
}

fn blame(error: WalletError) -> Failure {
    match error {
        WalletError::File(error) => password::blame(error),
        WalletError::Name { .. } | WalletError::Folder { .. } | WalletError::Taken { .. } => {
            Failure::Input(error.into())
        }
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let (folder, wallets) = wallets(&arguments.folder)?;
    let mut listed = Vec::new();
    for wallet in wallets.list().map_err(blame)? {
        listed.push(report::Wallet::of(wallet.state().map_err(blame)?));
    }
    if arguments.json {
        let listed = report::Wallets {
            wallet_dir: folder.display().to_string(),
            wallets: listed,
        };
        return print(&serde_json::to_string(&listed).environment()?);
    }
    if listed.is_empty() {
        eprintln!("connito: no wallets in {}", folder.display());
        return Ok(());
    }
    let trees: Vec<String> = listed.iter().map(report::Wallet::tree).collect();
    print(&trees.join("\n"))
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let (_, wallets) = wallets(&arguments.folder)?;
    let wallet = wallets.wallet(&arguments.name).map_err(blame)?;
    let shown = report::Wallet::of(wallet.state().map_err(blame)?);
    match arguments.json {
        true => print(&serde_json::to_string(&shown).environment()?),
        false => print(&shown.details()),
    }
}

#[derive(Serialize)]
struct Signed {
    address: Hotkey,
    signature: String,
}

fn sign(arguments: &SignArguments) -> Result<(), Failure> {
    let (_, wallets) = wallets(&arguments.folder)?;
    let wallet = wallets.wallet(&arguments.name).map_err(blame)?;
    let file = match &arguments.hotkey {
        Some(hotkey) => wallet.hotkey(hotkey).map_err(blame)?,
        None => wallet.coldkey(),
    };
    // Read first, so that nobody is asked for a password in vain.
    let message = bytes_of(&arguments.message)?;
    let pair = password::unlock(&file)?;
    let signed = Signed {
        address: pair.hotkey(),
        signature: hexadecimal(&pair.sign(&message)),
    };
    match arguments.json {
        true => print(&serde_json::to_string(&signed).environment()?),
        false => print(&signed.signature),
    }
}

#[derive(Serialize)]
struct Verified {
    address: Hotkey,
    holds: bool,
}

fn verify(arguments: &VerifyArguments) -> Result<(), Failure> {
    let address: Hotkey = arguments.address.parse().input()?;
    let signature = signature(&arguments.signature)?;
    let holds = keys::verify(address, &bytes_of(&arguments.message)?, &signature);
    if arguments.json {
        print(&serde_json::to_string(&Verified { address, holds }).environment()?)?;
    }
    match (holds, arguments.json) {
        (true, true) => Ok(()),
        (true, false) => print(&format!("{address} signed this")),
        (false, _) => Err(Failure::Check(anyhow!(
            "the signature is not one of {address} over this message"
        ))),
    }
}

fn bytes_of(message: &Message) -> Result<Vec<u8>, Failure> {
    let Some(file) = &message.file else {
        return Ok(message.message.clone().unwrap_or_default().into_bytes());
    };
    let unreadable = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(unreadable).input()?;
    let read = opened.take(LONGEST_MESSAGE + 1).read_to_end(&mut bytes);
    if read.with_context(unreadable).input()? as u64 > LONGEST_MESSAGE {
        return Err(Failure::Input(anyhow!(
            "{} is longer than 1 GiB",
            file.display()
        )));
    }
    Ok(bytes)
}

/// As the official tools print a signature: without `0x`.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signature(text: &str) -> Result<[u8; SIGNATURE_BYTES], Failure> {
    let refused = || {
        Failure::Input(anyhow!(
            "{text:.80} is no signature: it has not 128 hexadecimal digits"
        ))
    };
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits.len() != 2 * SIGNATURE_BYTES || !is_hexadecimal {
        return Err(refused());
    }
    let mut signature = [0; SIGNATURE_BYTES];
    for (byte, pair) in signature.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
    }
    Ok(signature)
}
