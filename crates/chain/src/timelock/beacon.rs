//! Beacons: which rounds there are and when, and one whose secret is kept here.
//!
//! Round 1 is published at the genesis, every further round one period later. The embedded chain
//! has a beacon of its own, so that sealing and opening there take the same path as anywhere else;
//! its secret follows from a seed, and whoever holds the seed can open everything early.

use std::fmt;

use ark_ec::PrimeGroup;
use ark_ff::PrimeField;
use blake2::{Blake2b512, Digest};
use timelock::engines::EngineBLS;
use timelock::engines::drand::TinyBLS381;
use zeroize::Zeroize;

use super::{KeyPoint, PUBLIC_KEY_BYTES, PULSE_BYTES, identity};

/// Keeps a beacon's secret apart from everything else made of the same seed.
const DOMAIN: &[u8] = b"connito-local-beacon/1";

/// The public facts about a beacon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// The key under which its rounds verify: a compressed point of G2.
    pub public_key: [u8; PUBLIC_KEY_BYTES],
    /// When round 1 is published, in milliseconds since 1970.
    pub genesis_ms: u64,
    /// Time between two rounds, in milliseconds. Zero is read as one.
    pub period_ms: u64,
}

impl Beacon {
    /// drand's quicknet, which the public networks use.
    #[must_use]
    pub fn quicknet() -> Self {
        Self {
            public_key: QUICKNET_PUBLIC_KEY,
            genesis_ms: 1_692_803_367_000,
            period_ms: 3_000,
        }
    }

    /// The newest round published at `ms` milliseconds since 1970; 0 before the first.
    #[must_use]
    pub fn round_at(&self, ms: u64) -> u64 {
        ms.checked_sub(self.genesis_ms).map_or(0, |elapsed| {
            (elapsed / self.period_ms.max(1)).saturating_add(1)
        })
    }

    /// When `round` is published, in milliseconds since 1970. Round 0, which is none, is taken for
    /// the first.
    #[must_use]
    pub fn time_of(&self, round: u64) -> u64 {
        let periods = round.saturating_sub(1);
        periods
            .saturating_mul(self.period_ms.max(1))
            .saturating_add(self.genesis_ms)
    }
}

/// A beacon's secret, for a chain that is its own beacon. Wiped when dropped, and without `Debug`
/// output.
pub struct LocalBeacon {
    secret: <TinyBLS381 as EngineBLS>::Scalar,
}

impl LocalBeacon {
    /// The beacon of this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mut wide: [u8; 64] = Blake2b512::new_with_prefix(DOMAIN)
            .chain_update(seed)
            .finalize()
            .into();
        // Sixty-four bytes reduced to thirty-two: no scalar is noticeably likelier than another.
        let secret = PrimeField::from_le_bytes_mod_order(&wide);
        wide.zeroize();
        Self { secret }
    }

    /// The key under which its rounds verify.
    #[must_use]
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        let point = KeyPoint::generator() * self.secret;
        fixed(&TinyBLS381::public_key_point_to_byte(&point))
    }

    /// The signature of `round`.
    #[must_use]
    pub fn sign(&self, round: u64) -> [u8; PULSE_BYTES] {
        let secret = identity(round).extract::<TinyBLS381>(self.secret);
        fixed(&TinyBLS381::signature_point_to_byte(&secret.0))
    }
}

impl Drop for LocalBeacon {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for LocalBeacon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBeacon").finish_non_exhaustive()
    }
}

/// A point's bytes, whose number its group fixes.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

const QUICKNET_PUBLIC_KEY: [u8; PUBLIC_KEY_BYTES] = [
    0x83, 0xcf, 0x0f, 0x28, 0x96, 0xad, 0xee, 0x7e, 0xb8, 0xb5, 0xf0, 0x1f, 0xca, 0xd3, 0x91, 0x22,
    0x12, 0xc4, 0x37, 0xe0, 0x07, 0x3e, 0x91, 0x1f, 0xb9, 0x00, 0x22, 0xd3, 0xe7, 0x60, 0x18, 0x3c,
    0x8c, 0x4b, 0x45, 0x0b, 0x6a, 0x0a, 0x6c, 0x3a, 0xc6, 0xa5, 0x77, 0x6a, 0x2d, 0x10, 0x64, 0x51,
    0x0d, 0x1f, 0xec, 0x75, 0x8c, 0x92, 0x1c, 0xc2, 0x2b, 0x0e, 0x17, 0xe6, 0x3a, 0xaf, 0x4b, 0xcb,
    0x5e, 0xd6, 0x63, 0x04, 0xde, 0x9c, 0xf8, 0x09, 0xbd, 0x27, 0x4c, 0xa7, 0x3b, 0xab, 0x4a, 0xf5,
    0xa6, 0xe9, 0xc7, 0x6a, 0x4b, 0xc0, 0x9e, 0x76, 0xea, 0xe8, 0x99, 0x1e, 0xf5, 0xec, 0xe4, 0x5a,
];
