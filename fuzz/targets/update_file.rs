//! A whole update, header and all, in any codec.
#![no_main]

use std::sync::LazyLock;

use connito_learning::shard::Layout;

static LAYOUT: LazyLock<Layout> = LazyLock::new(connito_fuzz::update::short_layout);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| connito_fuzz::update::check_file(bytes, &LAYOUT));
