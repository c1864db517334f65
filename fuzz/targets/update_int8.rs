//! Values of an update in `int8`.
#![no_main]

use std::sync::LazyLock;

use connito_fuzz::update::Values;
use connito_protocol::rules::Codec;

static VALUES: LazyLock<Values> = LazyLock::new(|| Values::of(Codec::Int8));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| VALUES.check(bytes));
