#!/usr/bin/env bash
# Makes the metadata files of crates/chain from public packages: the one that the embedded chain serves
# (spec 461) and those of the tests (365, 419, 439). Needs pip, curl and a network.
#
#   tools/metadata/reduce.sh
#
# The result is the same bytes every time; what was changed stands in the NOTICE beside the files.

cd "$(dirname "$0")/../.."
source tools/metadata/fetch.sh

folder=$(mktemp --directory)
trap 'rm --recursive --force "$folder"' EXIT

fetch_bittensor 11.0.0 "$SUM_11_0_0" "$folder"
fetch_bittensor 11.1.0 "$SUM_11_1_0" "$folder"
fetch_bittensor 11.3.0 "$SUM_11_3_0" "$folder"
fetch_bittensor_rs 0.1.1 "$SUM_RS_0_1_1" "$folder"

reduce() {
    cargo run --quiet --package connito-chain --example reduce_metadata -- "$@"
}
golden() {
    echo "$folder/bittensor-$1/tests/fixtures/golden.json"
}
tests=crates/chain/tests/metadata

reduce chain "$(golden 11.3.0)" crates/chain/metadata/subtensor-461.scale v15_hex
reduce shapes "$folder/bittensor-rs-0.1.1/metadata/finney.scale" $tests/subtensor-365.scale
# Three versions of the metadata format among the tests' files: 16, 14 and 15.
reduce shapes "$(golden 11.0.0)" $tests/subtensor-419.scale v14_hex
reduce shapes "$(golden 11.1.0)" $tests/subtensor-439.scale v15_hex
