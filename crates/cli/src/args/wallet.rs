//! Options of `wallet`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What to do with wallets.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a wallet's coldkey and a hotkey, new or from a phrase
    New(NewArguments),
    /// List all wallets with their addresses
    List(ListArguments),
    /// Show the keys of one wallet: addresses, files, modes, whether they are encrypted
    Show(ShowArguments),
    /// Sign a message or a file
    Sign(SignArguments),
    /// Check whether an address signed a message or a file
    Verify(VerifyArguments),
}

/// Where wallets are.
#[derive(Debug, Clone, Args)]
pub(crate) struct WalletFolder {
    /// The folder of all wallets [default: $BT_WALLET_PATH, or ~/.bittensor/wallets]
    #[arg(long, value_name = "DIR")]
    pub(crate) wallet_dir: Option<PathBuf>,
}

/// One of a wallet's two kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The key that owns
    Coldkey,
    /// A key that signs day by day
    Hotkey,
}

/// Options of `wallet new`.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewArguments {
    /// The wallet's name
    pub(crate) name: String,
    /// The hotkey's name
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) hotkey: String,
    /// Make this key alone
    #[arg(long, value_enum, value_name = "KEY")]
    pub(crate) only: Option<Kind>,
    /// Restore the key from the phrase in this file
    #[arg(long, value_name = "FILE", requires = "only")]
    pub(crate) phrase_from: Option<PathBuf>,
    /// Leave the coldkey without encryption
    #[arg(long)]
    pub(crate) no_password: bool,
    /// Encrypt the hotkey too
    #[arg(long)]
    pub(crate) encrypt_hotkey: bool,
    #[command(flatten)]
    pub(crate) folder: WalletFolder,
    /// Print what was made as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `wallet list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(crate) folder: WalletFolder,
    /// Print the wallets as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `wallet show`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShowArguments {
    /// The wallet's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) folder: WalletFolder,
    /// Print the wallet as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is signed.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Message {
    /// The message
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// The file whose bytes are the message
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Options of `wallet sign`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignArguments {
    /// The wallet's name
    pub(crate) name: String,
    /// Sign with this hotkey instead of the coldkey
    #[arg(long, value_name = "NAME")]
    pub(crate) hotkey: Option<String>,
    #[command(flatten)]
    pub(crate) message: Message,
    #[command(flatten)]
    pub(crate) folder: WalletFolder,
    /// Print address and signature as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `wallet verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VerifyArguments {
    /// The address, as ss58
    pub(crate) address: String,
    /// The sr25519 signature, as 128 hexadecimal digits
    pub(crate) signature: String,
    #[command(flatten)]
    pub(crate) message: Message,
    /// Print the answer as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
