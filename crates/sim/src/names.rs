//! Tables by name. The order in which such a table lists its entries is fixed, and means nothing.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use connito_protocol::lookup::NameHasher;

/// Values by name.
pub(crate) type NameMap<Name, T> = HashMap<Name, T, BuildHasherDefault<NameHasher>>;

/// Names.
pub(crate) type NameSet<Name> = HashSet<Name, BuildHasherDefault<NameHasher>>;
