#!/usr/bin/env bash
# Fetches the recordings of the official Python SDK (a real node's storage, events, calls and answers,
# and a sample of every type) into a folder, for the tests that read it from CONNITO_SDK_FIXTURES.
# Needs pip and a network.
#
#   tools/metadata/fixtures.sh FOLDER
#   CONNITO_SDK_FIXTURES=FOLDER cargo test -p connito-chain --test runtime recorded

source "$(dirname "$0")/fetch.sh"

target=${1:?usage: fixtures.sh FOLDER}
folder=$(mktemp --directory)
trap 'rm --recursive --force "$folder"' EXIT

fetch_bittensor 11.3.0 "$SUM_11_3_0" "$folder"
mkdir --parents "$target"
fixtures=$folder/bittensor-11.3.0/tests/fixtures
cp "$fixtures/golden.json" "$fixtures/shape_corpus/corpus.json" "$target"
