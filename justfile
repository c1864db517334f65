# What is done often. `just` lists it; every recipe is one ordinary command that can be typed as well.

# list the recipes
default:
    @just --list

# formatting and lints, as in CI
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# all tests
test:
    cargo test --workspace

# a network on this machine; options are those of `connito localnet`
local *OPTIONS:
    cargo run --release -- localnet {{OPTIONS}}

# run a role again from its journal
replay FILE:
    cargo run --release -- replay {{FILE}}

# training speed and memory of a config.json with random weights
bench *OPTIONS:
    cargo run --release -- bench engine {{OPTIONS}}

# the documentation of all crates, with warnings denied
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# the merge's stored hashes under qemu-aarch64: other machines compute the same bytes
merge-aarch64:
    tools/merge_on_aarch64.sh
