//! The two formats that key files were encrypted with before. They are read so that an old wallet
//! still opens; nothing writes them.

use aes::cipher::{BlockDecryptMut, KeyIvInit, StreamCipher, block_padding::Pkcs7};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Refusal;
use crate::keys::password::Password;

/// Rounds that make a Fernet key.
pub(super) const FERNET_ROUNDS: u32 = 10_000_000;
const FERNET_SALT: &[u8] = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
const FERNET_VERSION: u8 = 0x80;

const ANSIBLE_HEADER: &str = "$ANSIBLE_VAULT;1.1;AES256";
const ANSIBLE_ROUNDS: u32 = 10_000;

const BLOCK_BYTES: usize = 16;
const TAG_BYTES: usize = 32;

type Plain = Zeroizing<Vec<u8>>;

/// A header line, then hexadecimal in lines: of three lines that are hexadecimal again, which are
/// salt, tag and ciphertext.
pub(super) fn open_ansible(bytes: &[u8], password: &Password) -> Result<Plain, Refusal> {
    let (salt, tag, mut text) = ansible_parts(bytes).ok_or(Refusal::Damaged)?;
    let mut keys = Zeroizing::new([0; 32 + 32 + BLOCK_BYTES]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.bytes(), &salt, ANSIBLE_ROUNDS, keys.as_mut_slice());
    let (encryption, rest) = keys.split_at(32);
    let (authentication, counter) = rest.split_at(32);
    check(authentication, &text, &tag)?;
    let cipher = ctr::Ctr128BE::<aes::Aes256>::new_from_slices(encryption, counter);
    cipher
        .map_err(|_| Refusal::Damaged)?
        .apply_keystream(&mut text);
    let padding = text.last().copied().map_or(0, usize::from);
    let length = text.len().checked_sub(padding).ok_or(Refusal::Damaged)?;
    text.truncate(length);
    Ok(text)
}

fn ansible_parts(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Plain)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (header, body) = text.split_once('\n')?;
    if header.trim_end() != ANSIBLE_HEADER {
        return None;
    }
    let body: String = body.split_whitespace().collect();
    let inside = String::from_utf8(hex::decode(body).ok()?).ok()?;
    let mut parts = inside.split('\n').map(|part| hex::decode(part).ok());
    let (salt, tag, text) = (parts.next()??, parts.next()??, parts.next()??);
    parts
        .next()
        .is_none()
        .then_some((salt, tag, Zeroizing::new(text)))
}

/// Base64 of: version, time in eight bytes, initialisation vector, ciphertext, tag over all before.
pub(super) fn open_fernet(
    bytes: &[u8],
    password: &Password,
    rounds: u32,
) -> Result<Plain, Refusal> {
    let token = URL_SAFE
        .decode(bytes.trim_ascii())
        .map_err(|_| Refusal::Damaged)?;
    let (signed, tag) = token
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(Refusal::Damaged)?;
    let (vector, text) = match signed {
        [FERNET_VERSION, rest @ ..] => rest
            .get(8..)
            .and_then(|rest| rest.split_first_chunk::<BLOCK_BYTES>())
            .ok_or(Refusal::Damaged)?,
        _ => return Err(Refusal::Damaged),
    };
    let mut keys = Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.bytes(), FERNET_SALT, rounds, keys.as_mut_slice());
    let (authentication, encryption) = keys.split_at(16);
    check(authentication, signed, tag)?;
    cbc::Decryptor::<aes::Aes128>::new_from_slices(encryption, vector)
        .map_err(|_| Refusal::Damaged)?
        .decrypt_padded_vec_mut::<Pkcs7>(text)
        .map(Zeroizing::new)
        .map_err(|_| Refusal::Damaged)
}

fn check(key: &[u8], text: &[u8], tag: &[u8]) -> Result<(), Refusal> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| Refusal::Damaged)?;
    mac.update(text);
    mac.verify_slice(tag).map_err(|_| Refusal::WrongPassword)
}
