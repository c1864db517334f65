#!/bin/sh
# The merge's stored hashes, computed by code compiled for AArch64 and run under qemu-aarch64: the same
# bits as on x86-64, or the test fails. Needs `rustup target add aarch64-unknown-linux-musl` and a
# qemu-aarch64 in the path or in $QEMU; no cross compiler, for rustc links with its own linker and BLAKE3
# is built without its C parts.
set -eu
target=aarch64-unknown-linux-musl
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER="$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER="${QEMU:-qemu-aarch64}"
exec cargo test -p connito-learning --target "$target" --features blake3/pure --lib aggregate "$@"
