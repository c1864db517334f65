//! Where things are kept that can be made again: base models and their tokenizers.

use std::path::PathBuf;

use anyhow::anyhow;

use crate::exit::Failure;

/// The folder for cached base models: `$XDG_CACHE_HOME/connito/base`, or the platform's usual place.
pub(crate) fn base_models() -> Result<PathBuf, Failure> {
    // An empty or relative value counts as unset (XDG base directory specification).
    let absolute = |variable| {
        let path = PathBuf::from(std::env::var_os(variable)?);
        path.is_absolute().then_some(path)
    };
    let home_cache = if cfg!(target_os = "macos") {
        "Library/Caches"
    } else {
        ".cache"
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(home_cache)));
    cache
        .map(|cache| cache.join("connito").join("base"))
        .ok_or_else(|| {
            Failure::Environment(anyhow!(
                "no cache folder: neither XDG_CACHE_HOME nor HOME is an absolute path"
            ))
        })
}
