#!/usr/bin/env bash
# The adapter's lower layers against an independent node with a real FRAME runtime: chopsticks (npm)
# running the genesis of Paseo (in the crate polkadot-service), extended by a balance for Alice.
# Neither is part of this repository; both are fetched once, pinned and checked, into a cache folder.
# Needs node, npm, cargo and, the first time, their registries: without one it says so and exits 0.
# Exits 1 with the first thing that differs.
#
#   tools/check_frame.sh

set -euo pipefail
cd "$(dirname "$0")/.."

CHOPSTICKS=1.5.1
SPECS=31.0.0
PASEO_SHA256=566c93db6ee24ca692274ff7ceed192724ace27a91e8ccdad443dab42bcc8570

cache=${XDG_CACHE_HOME:-$HOME/.cache}/connito
folder=$(mktemp --directory)
node=
finish() {
    [[ -z $node ]] || kill "$node" 2>/dev/null || true
    rm --recursive --force "$folder"
}
trap finish EXIT
skip() { echo "skipped: $*" && exit 0; }

command -v node >/dev/null && command -v npm >/dev/null || skip "node and npm are needed"

# The node, installed whole or not at all.
chopsticks=$cache/chopsticks-$CHOPSTICKS
main=node_modules/@acala-network/chopsticks/chopsticks.cjs
if [[ ! -f $chopsticks/$main ]]; then
    mkdir --parents "$cache"
    partial=$(mktemp --directory "$cache/chopsticks.XXXXXX")
    npm install --silent --prefer-offline --no-audit --no-fund --ignore-scripts --prefix "$partial" \
        "@acala-network/chopsticks@$CHOPSTICKS" >"$folder/npm.log" 2>&1 ||
        { rm --recursive --force "$partial"; skip "npm does not give chopsticks $CHOPSTICKS"; }
    rm --recursive --force "$chopsticks"
    mv "$partial" "$chopsticks"
fi

# The runtime: `cargo info` fetches and unpacks one crate, without its dependencies.
crates=$cache/polkadot-service-$SPECS
paseo() { find "$crates" -path "*/polkadot-service-$SPECS/chain-specs/paseo.json" 2>/dev/null | head -n 1; }
if [[ -z $(paseo) ]]; then
    CARGO_HOME=$crates RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} \
        cargo info --quiet --registry crates-io "polkadot-service@$SPECS" >"$folder/cargo.log" 2>&1 || true
fi
spec=$(paseo)
[[ -n $spec ]] || skip "crates.io does not give polkadot-service $SPECS"
echo "$PASEO_SHA256  $spec" | sha256sum --check --quiet

# Keys and values as they stand in the state: Alice's account, the sum of all balances, the sudo key.
node - "$spec" "$folder/genesis.json" <<'SCRIPT'
const fs = require('fs')
const [from, to] = process.argv.slice(2)
const spec = JSON.parse(fs.readFileSync(from))
const state = spec.genesis.raw.top
const alice = 'd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d'
const account = '26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9'
const issuance = '0xc2261276cc9d1f8598ea4b6a74b15c2f57c875e4cff74148e4628f264b974c80'
const sudo = '0x5c0d1176a568c1f92944340dbfed9e9c530ebca703c85910e7164cb7d1c9e47b'
const balance = 10n ** 15n
const bytes = (number, size) =>
  Buffer.from(number.toString(16).padStart(2 * size, '0'), 'hex').reverse().toString('hex')
const held = BigInt('0x' + Buffer.from(state[issuance].slice(2), 'hex').reverse().toString('hex'))
// Counters: nonce, consumers, providers, sufficients. Amounts: free, reserved, frozen, flags.
const counters = [0n, 0n, 1n, 0n].map((number) => bytes(number, 4))
const amounts = [balance, 0n, 0n, 1n << 127n].map((number) => bytes(number, 16))
state[`0x${account}de1e86a9a8c739864cf3cc5ec2bea59f${alice}`] = '0x' + [...counters, ...amounts].join('')
state[issuance] = '0x' + bytes(held + balance, 16)
state[sudo] = '0x' + alice
fs.writeFileSync(to, JSON.stringify(spec))
SCRIPT

cargo build --quiet -p connito-chain --example frame_node

port=$(node -e "const s = require('net').createServer().listen(0, '127.0.0.1', () => {
  console.log(s.address().port); s.close() })")
node "$chopsticks/$main" --genesis "$folder/genesis.json" --host 127.0.0.1 --port "$port" \
    --build-block-mode Manual >"$folder/node.log" 2>&1 &
node=$!
for _ in $(seq 120); do
    grep --quiet "RPC listening" "$folder/node.log" && break
    kill -0 "$node" 2>/dev/null || { tail -n 20 "$folder/node.log"; echo "the node does not start"; exit 1; }
    sleep 0.5
done
listening=$(grep --only-matching "http://127.0.0.1:[0-9]*" "$folder/node.log" | head -n 1) ||
    { tail -n 20 "$folder/node.log"; echo "the node does not listen"; exit 1; }
cargo run --quiet -p connito-chain --example frame_node -- "$listening"
