//! Data sealed until a moment: timelock encryption to a round of a drand beacon.
//!
//! A beacon signs the number of each round when its time has come, and that signature is the key to
//! everything sealed to the round. Whoever seals needs the beacon's public key and nothing else;
//! whoever opens needs the round's signature, which by then everybody has.
//!
//! ```text
//! identity of a round = sha256(round as u64, big-endian)
//! inner               = U[96] ‖ len(V) ‖ V[32] ‖ len(W) ‖ W[32] ‖ len(body) ‖ body ‖ len(suite) ‖ suite
//! body                = len ‖ AES-256-GCM ciphertext ‖ len ‖ nonce[12]        lengths: u64, little-endian
//! envelope            = SCALE (inner: Vec<u8>, round: u64)
//! ```
//!
//! The mathematics is the `timelock` crate's: identity-based encryption of Boneh and Franklin on
//! BLS12-381, in the suite of drand's quicknet (public keys on G2, signatures on G1). Only the
//! container differs: the crate writes V and W without lengths, and the chain silently drops what
//! it cannot parse, so both directions are re-framed here. Bytes from outside are taken apart here
//! as well, because the curve library allocates whatever length it is told.

mod beacon;

use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use ark_std::rand::SeedableRng;
use ark_std::rand::rngs::StdRng;
use parity_scale_codec::{Decode, Encode};
use sha2::{Digest, Sha256};
use timelock::block_ciphers::AESGCMBlockCipherProvider;
use timelock::engines::EngineBLS;
use timelock::engines::drand::TinyBLS381;
use timelock::ibe::fullident::{Ciphertext, Identity};
use timelock::tlock::{TLECiphertext, tld, tle};
use zeroize::Zeroizing;

pub use beacon::{Beacon, LocalBeacon};

/// Bytes of a beacon's public key: a compressed point of G2.
pub const PUBLIC_KEY_BYTES: usize = 96;

/// Bytes of a round's signature: a compressed point of G1.
pub const PULSE_BYTES: usize = 48;

/// By how much a sealed message is longer than the message.
pub const OVERHEAD: usize = 244;

/// The longest ciphertext that a timelocked commitment field takes.
pub const MAX_COMMITMENT_CIPHERTEXT: usize = 1024;

/// The longest message that fits a timelocked commitment field when sealed.
pub const MAX_COMMITMENT_PLAINTEXT: usize = MAX_COMMITMENT_CIPHERTEXT - OVERHEAD;

/// Bytes of U, the ciphertext's point of G2.
const U_BYTES: usize = 96;
/// Bytes of V and of W.
const PART_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

type KeyPoint = <TinyBLS381 as EngineBLS>::PublicKeyGroup;
type PulsePoint = <TinyBLS381 as EngineBLS>::SignatureGroup;

/// Why a message cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The public key is no point of its group, or the neutral one, under which nothing is secret.
    #[error("the beacon's public key is not a point of BLS12-381's second group")]
    PublicKey,
    /// The message is too long for the cipher.
    #[error("a message of {bytes} bytes cannot be encrypted")]
    Message {
        /// Its length.
        bytes: usize,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness to seal with")]
    NoRandomness(#[source] getrandom::Error),
}

/// Seals `plaintext` until the beacon with this public key signs `round`. The result is the inner
/// ciphertext, [`OVERHEAD`] bytes longer than the message: what a timelocked commitment field and a
/// timelocked weight commitment hold.
///
/// # Errors
/// A public key that is none, a message too long for the cipher, or no randomness.
pub fn seal(
    public_key: &[u8; PUBLIC_KEY_BYTES],
    round: u64,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let key = key_point(public_key).ok_or(SealError::PublicKey)?;
    let mut message_key = Zeroizing::new([0; 32]);
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(message_key.as_mut()).map_err(SealError::NoRandomness)?;
    getrandom::fill(seed.as_mut()).map_err(SealError::NoRandomness)?;
    let random = StdRng::from_seed(*seed);
    tle::<TinyBLS381, AESGCMBlockCipherProvider, _>(
        key,
        *message_key,
        plaintext,
        identity(round),
        random,
    )
    .ok()
    .and_then(|sealed| framed(&sealed))
    .ok_or(SealError::Message {
        bytes: plaintext.len(),
    })
}

/// Opens an inner ciphertext with the signature of the round that it was sealed to. Nothing if the
/// bytes are no ciphertext or the signature is another round's or another beacon's.
///
/// As on the chain, the name of the cipher is not looked at, nor what follows it.
#[must_use]
pub fn open(signature: &[u8], inner: &[u8]) -> Option<Vec<u8>> {
    let signature = pulse_point(signature)?;
    tld::<TinyBLS381, AESGCMBlockCipherProvider>(unframed(inner)?, signature).ok()
}

/// Whether `signature` is that of the beacon with this public key for `round`.
#[must_use]
pub fn verify_pulse(public_key: &[u8; PUBLIC_KEY_BYTES], round: u64, signature: &[u8]) -> bool {
    let (Some(key), Some(signature)) = (key_point(public_key), pulse_point(signature)) else {
        return false;
    };
    let generator = <KeyPoint as ark_ec::PrimeGroup>::generator();
    let signed = identity(round).public::<TinyBLS381>();
    TinyBLS381::pairing(generator, signature) == TinyBLS381::pairing(key, signed)
}

/// The form in which sealed data travels outside the chain: the ciphertext and what opens it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    /// The inner ciphertext.
    pub inner: Vec<u8>,
    /// The round whose signature opens it.
    pub round: u64,
}

impl Envelope {
    /// Reads exactly one envelope; nothing if the bytes are none.
    #[must_use]
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let envelope = Self::decode(&mut bytes).ok()?;
        bytes.is_empty().then_some(envelope)
    }
}

fn identity(round: u64) -> Identity {
    Identity::new(b"", &Sha256::digest(round.to_be_bytes()))
}

fn key_point(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Option<KeyPoint> {
    point(bytes)
}

fn pulse_point(bytes: &[u8]) -> Option<PulsePoint> {
    (bytes.len() == PULSE_BYTES).then(|| point(bytes))?
}

/// A compressed point of its prime-order group. The neutral one is refused: it is nobody's key, and
/// every signature under it holds.
fn point<G: CanonicalDeserialize + ark_std::Zero>(bytes: &[u8]) -> Option<G> {
    let point = G::deserialize_compressed(bytes).ok()?;
    (!point.is_zero()).then_some(point)
}

/// The crate's ciphertext as the chain frames it.
fn framed(sealed: &TLECiphertext<TinyBLS381>) -> Option<Vec<u8>> {
    let TLECiphertext {
        header,
        body,
        cipher_suite,
    } = sealed;
    let mut inner = Vec::with_capacity(OVERHEAD + body.len());
    header.u.serialize_compressed(&mut inner).ok()?;
    for part in [
        header.v.as_slice(),
        header.w.as_slice(),
        body.as_slice(),
        cipher_suite.as_slice(),
    ] {
        inner.extend_from_slice(&(part.len() as u64).to_le_bytes());
        inner.extend_from_slice(part);
    }
    Some(inner)
}

/// The crate's ciphertext out of the chain's frame.
fn unframed(inner: &[u8]) -> Option<TLECiphertext<TinyBLS381>> {
    let (u, rest) = inner.split_at_checked(U_BYTES)?;
    let (v, rest) = counted(rest)?;
    let (w, rest) = counted(rest)?;
    let (body, rest) = counted(rest)?;
    let (cipher_suite, _) = counted(rest)?;
    let v: [u8; PART_BYTES] = v.try_into().ok()?;
    let w: [u8; PART_BYTES] = w.try_into().ok()?;
    // Checked before the crate reads these lengths again: it reserves what they say.
    let (_, nonce) = counted(body)?;
    let (nonce, _) = counted(nonce)?;
    if nonce.len() != NONCE_BYTES {
        return None;
    }
    // Last, because it costs most.
    let u = KeyPoint::deserialize_compressed(u).ok()?;
    Some(TLECiphertext {
        header: Ciphertext { u, v, w },
        body: body.to_vec(),
        cipher_suite: cipher_suite.to_vec(),
    })
}

/// A part behind its length, and what follows it.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)
}

#[cfg(test)]
mod tests;
