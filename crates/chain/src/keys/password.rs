//! Passwords of key files, and the environment variable in which one may stand.
//!
//! The variable is named after the file: `BT_PW_` and the path in capitals, with `_` for each `/`
//! and `.`. Its value is the password, xored with the variable's own name and written in base64.
//! That keeps a password from being read over a shoulder and protects it from nothing else.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A password, never empty. Wiped when dropped; no `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

/// A variable that holds no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {variable} is not base64")]
pub struct NotScrambled {
    /// The variable's name.
    pub variable: String,
}

impl Password {
    /// A password of these bytes; nothing if there are none.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// The name of the variable in which the password of this key file may stand.
    #[must_use]
    pub fn variable(path: &Path) -> String {
        let path = path.to_string_lossy().replace(['/', '.'], "_");
        format!("BT_PW_{}", path.to_uppercase())
    }

    /// The password in a variable; nothing if it is empty.
    ///
    /// # Errors
    /// The value is not base64.
    pub fn unscramble(variable: &str, value: &str) -> Result<Option<Self>, NotScrambled> {
        let mut bytes = Zeroizing::new(STANDARD.decode(value).map_err(|_| NotScrambled {
            variable: variable.to_owned(),
        })?);
        mask(&mut bytes, variable);
        Ok(Self::new(bytes))
    }

    /// The value that a variable of this name has to have.
    #[must_use]
    pub fn scramble(&self, variable: &str) -> String {
        let mut bytes = self.0.clone();
        mask(&mut bytes, variable);
        STANDARD.encode(bytes.as_slice())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").finish_non_exhaustive()
    }
}

/// Xors with the name, repeated as often as it takes.
fn mask(bytes: &mut [u8], name: &str) {
    for (byte, mask) in bytes.iter_mut().zip(name.bytes().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    /// Name and value as `bittensor_core` 0.1.5 made them.
    #[test]
    fn a_variable_is_named_and_filled_as_the_official_tools_do() {
        let path = Path::new("/home/a/.bittensor/wallets/w/coldkey");
        let variable = "BT_PW__HOME_A__BITTENSOR_WALLETS_W_COLDKEY";
        let value = "ITstIjI8K2gnIjcsJH89Iz0gMTc3czwmPictKWBlNT07dywsIilkJiorJ3QwNnc2Kw==";
        let expected = password("correct horse battery staple, and some more of it");
        assert_eq!(Password::variable(path), variable);
        assert_eq!(expected.scramble(variable), value);
        assert_eq!(Password::unscramble(variable, value), Ok(Some(expected)));
    }

    #[test]
    fn an_empty_variable_holds_none_and_any_other_text_is_refused() {
        assert_eq!(Password::unscramble("BT_PW_X", ""), Ok(None));
        let refused = Password::unscramble("BT_PW_X", "hunter2!").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the environment variable BT_PW_X is not base64"
        );
        assert_eq!(format!("{:?}", password("hunter2")), "Password { .. }");
    }
}
