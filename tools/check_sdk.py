"""Proves that `connito chain` is a chain to the official Python SDK, as published and unmodified.

    python tools/check_sdk.py [--connito target/debug/connito] [--venv DIR]

Installs bittensor 11.3.0 from PyPI (into a virtual environment that is thrown away, or kept in
DIR), runs `connito chain` in a folder of its own and drives it with the SDK alone: over a WebSocket,
with the SDK's own metadata decoder, signatures and error names. Prints a line for each thing that
was tried and ends with the code 1 at the first that differs from what a chain does. Where PyPI does
not answer it says so and ends with 0.

What the SDK cannot do against any chain of runtime 461, or needs parts of the real network for, is
printed with "~": nothing stands in for it here.
"""

import argparse
import asyncio
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SDK = "11.3.0"
NETUID = 1
# Whoever waits for a block or an epoch gives up after this many seconds.
PATIENCE = 60
# What pip says when it is the network that is missing.
UNREACHABLE = ("onnection", "Retrying", "timed out", "Temporary failure", "ProxyError")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connito", default="target/debug/connito", type=pathlib.Path)
    parser.add_argument("--venv", type=pathlib.Path, help="keep the virtual environment here")
    parser.add_argument("--installed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.connito.is_file():
        print(f"{options.connito} is no file: build it first, or name it with --connito")
        return 2
    if options.installed:
        with tempfile.TemporaryDirectory() as folder:
            return run(options.connito, pathlib.Path(folder))
    with tempfile.TemporaryDirectory() as temporary:
        return in_environment(options, options.venv or pathlib.Path(temporary, "venv"))


def in_environment(options: argparse.Namespace, folder: pathlib.Path) -> int:
    """Runs this script again where the SDK is installed."""
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = ["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20"]
    installed = subprocess.run(
        [python, *install, "--disable-pip-version-check", f"bittensor=={SDK}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode != 0:
        if any(word in installed.stderr for word in UNREACHABLE):
            print("skipped: PyPI does not answer")
            return 0
        print(installed.stderr)
        return 1
    # The SDK keeps caches below the home folder; this one is thrown away.
    with tempfile.TemporaryDirectory() as home:
        script = [python, __file__, "--installed", "--connito", options.connito.resolve()]
        surroundings = {**os.environ, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(script, env=surroundings, check=False).returncode


def run(connito: pathlib.Path, folder: pathlib.Path) -> int:
    command = [connito, "chain", "--listen", "127.0.0.1:0", "--block-time", "250ms"]
    command += ["--folder", folder / "chain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as chain:
        try:
            line = chain.stdout.readline().strip()
            print(line)
            endpoint = next(word for word in line.split() if word.startswith("ws://")).rstrip(":")
            asyncio.run(asyncio.wait_for(drive(endpoint), 20 * PATIENCE))
        except Differs as difference:
            print(f"! {difference}")
            return 1
        finally:
            chain.terminate()
    print("the SDK finds a chain")
    return 0


class Differs(Exception):
    """Something is not as on a chain."""


def shown(what: str, seen: object, holds: bool = True) -> None:
    if not holds:
        raise Differs(f"{what}: {seen}")
    print(f"  {what:<44} {' '.join(str(seen).split())[:110]}")


def aside(what: str, why: object) -> None:
    print(f"~ {what:<44} {str(why).splitlines()[0]}")


class Account:
    """A coldkey and a hotkey in the shape that the SDK takes for a wallet."""

    def __init__(self, coldkey: str, hotkey: str):
        from bittensor.sp_core import Keypair

        self.coldkey = self.coldkeypub = Keypair.create_from_uri(coldkey)
        self.hotkey = self.hotkeypub = Keypair.create_from_uri(hotkey)


async def drive(endpoint: str) -> None:
    import bittensor as bt

    print(f"bittensor {bt.__version__} at {endpoint}")
    owner = Account("//Alice", "//Alice")
    validator = Account("//Bob", "//Bob//hot")
    async with bt.Client(endpoint, fallback_endpoints=[], archive_endpoints=[]) as client:
        await identity(client, owner)
        await money(client, owner, validator)
        await slots(client, validator)
        await serving(client, validator)
        await commitments(client, validator)
        await parameters(client, owner)
        await weights(client, owner, validator)
        await rejections(client, owner, validator)
        await sealed_weights(client, owner, validator)
        await every_read(client, validator)


def succeeded(what: str, result: object) -> None:
    shown(what, f"in {result.extrinsic_id}" if result.success else result.error, result.success)


async def refused(what: str, attempt: object, expected: str) -> None:
    """`attempt` must fail under the name that the SDK has for it."""
    import bittensor as bt

    try:
        result = await attempt
        error = None if result.success else result.error
    except bt.BittensorError as raised:
        error = raised
    if error is None:
        raise Differs(f"{what}: was accepted")
    code = getattr(error, "code", None)
    name = getattr(error, "name", None) or getattr(code, "value", type(error).__name__)
    sentence = str(error).splitlines()[0][:110]
    shown(f"refused: {what}", f"{name}: {sentence}", name == expected)


async def identity(client, owner: Account) -> None:
    print("the chain")
    number = await client.block()
    following = await client.wait_for_block(number + 2, timeout=PATIENCE)
    come = following.number >= number + 2
    shown("blocks come (subscription)", f"{number}, then {following.number}", come)
    info = await client.block_info(number)
    shown("hash of a block", info.hash, info.number == number and len(info.hash) == 66)
    parent = (await client.block_info(number + 1)).header["parentHash"]
    shown("its child's parent", parent, parent == info.hash)
    shown("runtime", await client.spec_version(), await client.spec_version() == 461)
    shown("seconds a block", await client.block_time(), await client.is_fast_blocks())
    time = await client.timestamp(number)
    shown("time of that block", time.isoformat(timespec="milliseconds"), time == info.timestamp)
    finalized = await client.finalized_block()
    shown("finalized block", finalized, finalized >= number)
    subnets = [subnet.netuid for subnet in await client.read("subnets")]
    shown("subnets", subnets, NETUID in subnets)
    balance = await client.balances.get(owner.coldkey.ss58_address)
    shown("balance of //Alice", balance, balance.tao == 1_000_000)


async def money(client, owner: Account, validator: Account) -> None:
    import bittensor as bt

    print("money")
    to = validator.coldkey.ss58_address
    transfer = bt.Transfer(dest_ss58=to, amount_tao="100.000000001")
    succeeded("Transfer", await client.execute(transfer, owner))
    both = await client.balances.get_many([owner.coldkey.ss58_address, to])
    shown("balance of //Bob", both[to], both[to].rao == 100_000_000_001)
    shown("fee", (await client.plan(transfer, owner)).fee, True)


async def slots(client, validator: Account) -> None:
    import bittensor as bt

    print("slots and stake")
    try:
        result = await client.execute(bt.BurnedRegister(netuid=NETUID), validator)
        shown("BurnedRegister", "was sent unencrypted", result.success)
    except Exception as error:
        # This intent goes out only encrypted to the key of a block author.
        aside("BurnedRegister needs the pallet MevShield", error)
    for hotkey in ["//Bob//hot", "//Charlie", "//Dave"]:
        address = Account("//Bob", hotkey).hotkey.ss58_address
        call = bt.calls.SubtensorModule.burned_register(netuid=NETUID, hotkey=address)
        succeeded(f"burned_register of {hotkey}", await client.submit_call(call, validator))
    hotkey = validator.hotkey.ss58_address
    uid = await client.read("uid", hotkey_ss58=hotkey, netuid=NETUID)
    shown("uid", uid, uid == 0)
    owner = await client.read("hotkey_owner", hotkey_ss58=hotkey)
    shown("owner of the hotkey", owner, owner == validator.coldkey.ss58_address)
    stake = bt.AddStake(
        hotkey_ss58=hotkey, netuid=NETUID, amount_tao="10", slippage_protection=False
    )
    succeeded("AddStake", await client.execute(stake, validator))
    positions = await client.read("stake_for_coldkey", coldkey_ss58=owner)
    held = [(position.hotkey, position.stake.rao) for position in positions]
    shown("stake_for_coldkey", held, held == [(hotkey, 10**10)])
    neurons = await client.neurons.all(NETUID)
    staked = neurons[0].total_stake.rao
    as_told = len(neurons) == 3 and staked == 10**10
    shown("neurons", f"{len(neurons)}, the first with {staked} rao", as_told)
    graph = await client.subnets.metagraph(NETUID)
    same = graph.hotkeys == [neuron.hotkey for neuron in neurons]
    shown("metagraph", repr(graph), same and graph.neurons[0].total_stake.rao == staked)


async def serving(client, validator: Account) -> None:
    import bittensor as bt

    print("serving")
    axon = bt.ServeAxon(netuid=NETUID, ip="203.0.113.7", port=8091)
    succeeded("ServeAxon", await client.execute(axon, validator))
    graph = await client.subnets.metagraph(NETUID)
    shown("axon of uid 0", graph.neurons[0].axon, graph.neurons[0].axon == "203.0.113.7:8091")
    await refused("a second ServeAxon at once", client.execute(axon, validator), "ServingRateLimitExceeded")


def committing(*fields: dict):
    import bittensor as bt

    info = {"fields": [list(fields)]}
    return bt.calls.Commitments.set_commitment(netuid=NETUID, info=info)


def raw(text: bytes) -> dict:
    return {f"Raw{len(text)}": "0x" + text.hex()}


async def commitments(client, validator: Account) -> None:
    print("commitments")
    result = await client.submit_call(committing(raw(b"hello")), validator, signer="hotkey")
    succeeded("set_commitment", result)
    hotkey = validator.hotkey.ss58_address
    read = await client.read("commitment", netuid=NETUID, hotkey_ss58=hotkey)
    shown("commitment", f"{read.data!r} of block {read.block}", read.data == "hello")
    several = committing(raw(b"digest "), {"Sha256": "0x" + "11" * 32})
    result = await client.submit_call(several, validator, signer="hotkey")
    succeeded("set_commitment of two fields", result)
    listed = await client.read("commitments", netuid=NETUID)
    shown("commitments", listed[0]["commitment"], "sha256:0x1111" in listed[0]["commitment"])
    graph = await client.subnets.metagraph(NETUID)
    mine = graph.neurons[0].commitment
    shown("commitment in the metagraph", mine and mine.status, mine is not None)


async def parameters(client, owner: Account) -> None:
    import bittensor as bt

    print("parameters")
    before = await client.read("subnet_hyperparameters", netuid=NETUID)
    shown("subnet_hyperparameters", f"{len(before)}, tempo {before['tempo']}", before["tempo"] == 360)
    immunity = bt.SetHyperparameter(netuid=NETUID, name="immunity_period", value=17)
    succeeded("SetHyperparameter immunity_period", await client.execute(immunity, owner))
    after = await client.read("immunity_period", netuid=NETUID)
    shown("immunity_period", after, after == 17)
    serving = bt.SetHyperparameter(netuid=NETUID, name="serving_rate_limit", value=0)
    succeeded("SetHyperparameter serving_rate_limit", await client.execute(serving, owner))
    # //Alice is this chain's root, which calls directly what the real one wraps into Sudo.sudo.
    await as_root(client, owner, bt.calls.AdminUtils.sudo_set_tempo(netuid=NETUID, tempo=8))
    await limit_weights(client, owner, 0)


async def as_root(client, owner: Account, call) -> None:
    succeeded(f"{call.function} as root", await client.submit_call(call, owner))


async def limit_weights(client, owner: Account, blocks: int) -> None:
    import bittensor as bt

    limit = {"netuid": NETUID, "weights_set_rate_limit": blocks}
    await as_root(client, owner, bt.calls.AdminUtils.sudo_set_weights_set_rate_limit(**limit))


async def weights(client, owner: Account, validator: Account) -> None:
    import bittensor as bt

    print("weights")
    epoch = await client.wait_for_epoch(NETUID, timeout=PATIENCE)
    shown("an epoch", f"block {epoch.block}", epoch.block > epoch.previous)
    neurons = await client.neurons.all(NETUID)
    shown("validator permits", [n.validator_permit for n in neurons], neurons[0].validator_permit)
    try:
        intent = bt.SetWeights(netuid=NETUID, uids=[1, 2], weights=[1.0, 3.0])
        succeeded("SetWeights", await client.execute(intent, validator))
    except Exception as error:
        # This version reads SubnetEpochConsensus, which runtime 461 does not have.
        aside("SetWeights is ahead of runtime 461", error)
    call = bt.calls.SubtensorModule.set_mechanism_weights(
        netuid=NETUID, mecid=0, dests=[1, 2], weights=[1, 3], version_key=0
    )
    succeeded("set_mechanism_weights", await client.submit_call(call, validator, signer="hotkey"))
    rows = await client.read("weights", netuid=NETUID)
    shown("weights", rows, abs(rows[0][2] - 0.75) < 1e-4)
    await limit_weights(client, owner, 1000)
    too_soon = bt.calls.SubtensorModule.set_weights(
        netuid=NETUID, dests=[1], weights=[1], version_key=0
    )
    attempt = client.submit_call(too_soon, validator, signer="hotkey")
    await refused("weights too soon", attempt, "RateLimitExceeded")
    await client.wait_for_epoch(NETUID, timeout=PATIENCE)
    graph = await client.subnets.metagraph(NETUID)
    incentives = [round(neuron.incentive, 3) for neuron in graph.neurons]
    shown("incentives after the epoch", incentives, incentives[2] > incentives[1] > incentives[0] == 0)


async def rejections(client, owner: Account, validator: Account) -> None:
    import bittensor as bt

    print("rejections")
    stranger = Account("//Eve", "//Eve")
    by_hotkey = {"signer": "hotkey"}
    # An epoch long enough to use its space up, and for its owner to change something before its end.
    await as_root(client, owner, bt.calls.AdminUtils.sudo_set_tempo(netuid=NETUID, tempo=360))
    attempt = client.submit_call(committing(raw(b"who")), owner, **by_hotkey)
    await refused("commitment of no neuron", attempt, "AccountNotAllowedCommit")
    long = committing({"BigRaw": "0x" + "aa" * 512})
    for _ in range(6):
        await client.submit_call(long, validator, **by_hotkey)
    attempt = client.submit_call(long, validator, **by_hotkey)
    await refused("more commitments than an epoch takes", attempt, "SpaceLimitExceeded")
    to, payer = owner.coldkey.ss58_address, validator.coldkey.ss58_address
    attempt = client.execute(bt.Transfer(dest_ss58=to, amount_tao=1), stranger)
    await refused("money that is not there", attempt, "FundsUnavailable")
    hotkey = validator.hotkey.ss58_address
    twice = bt.calls.SubtensorModule.burned_register(netuid=NETUID, hotkey=hotkey)
    attempt = client.submit_call(twice, validator)
    await refused("a hotkey registered twice", attempt, "HotKeyAlreadyRegisteredInSubNet")
    parameter = bt.SetHyperparameter(netuid=NETUID, name="immunity_period", value=1)
    await refused("a parameter by a stranger", client.execute(parameter, validator), "BadOrigin")
    call = bt.calls.Balances.transfer_keep_alive(dest=to, value=1)
    stale = await client.prepare_call(call, address=payer, nonce=0)
    attempt = client.submit_signature(stale, validator.coldkey.sign(stale.payload))
    await refused("a nonce that has been used", attempt, "Stale")
    fresh = await client.prepare_call(call, address=payer)
    attempt = client.submit_signature(fresh, stranger.coldkey.sign(fresh.payload))
    await refused("somebody else's signature", attempt, "BadProof")


async def sealed_weights(client, owner: Account, validator: Account) -> None:
    import bittensor as bt

    print("sealed weights")
    on = bt.SetHyperparameter(netuid=NETUID, name="commit_reveal_weights_enabled", value=1)
    succeeded("SetHyperparameter commit_reveal", await client.execute(on, owner))
    plain = bt.calls.SubtensorModule.set_weights(
        netuid=NETUID, dests=[1], weights=[1], version_key=0
    )
    attempt = client.submit_call(plain, validator, signer="hotkey")
    await refused("plain weights", attempt, "CommitRevealEnabled")
    await limit_weights(client, owner, 0)
    # Sealed as SetWeights would, to a round of drand's quicknet.
    commit, reveal_round = await sealed_by_sdk(client, validator)
    call = bt.calls.SubtensorModule.commit_timelocked_mechanism_weights(
        netuid=NETUID, mecid=0, commit=commit, reveal_round=reveal_round, commit_reveal_version=4
    )
    result = await client.submit_call(call, validator, signer="hotkey")
    succeeded("commit_timelocked_mechanism_weights", result)
    waiting = await client.read("timelocked_weight_commits", netuid=NETUID)
    rounds = [commit["reveal_round"] for epoch in waiting.values() for commit in epoch]
    shown("timelocked_weight_commits", f"round {rounds}", rounds == [reveal_round])
    # Nothing is faked: quicknet's signatures are not carried to this chain, whose beacon is its own.
    why = "the SDK seals to drand's quicknet, this chain opens what its own beacon signs"
    aside("their reveal is not tried", why)


async def sealed_by_sdk(client, validator: Account) -> tuple[bytes, int]:
    import bittensor_core
    from bittensor import storage

    items = [
        storage.SubtensorModule.LastEpochBlock,
        storage.SubtensorModule.PendingEpochAt,
        storage.SubtensorModule.SubnetEpochIndex,
        storage.SubtensorModule.Tempo,
        storage.SubtensorModule.BlocksSinceLastStep,
        storage.SubtensorModule.RevealPeriodEpochs,
    ]
    block = await client.block()
    last, pending, index, tempo, since, period = [
        int(await client.query(item, [NETUID], block=block) or 0) for item in items
    ]
    return bittensor_core.get_encrypted_commit_v2(
        uids=[1, 2],
        weights=[21845, 65535],
        version_key=0,
        last_epoch_block=last,
        pending_epoch_at=pending,
        subnet_epoch_index=index,
        tempo=tempo,
        blocks_since_last_step=since,
        current_block=block,
        subnet_reveal_period_epochs=period,
        block_time=await client.block_time(),
        hotkey=bytes(validator.hotkey.public_key),
    )


async def every_read(client, validator: Account) -> None:
    """Every named read of the SDK: what it cannot answer is listed, not failed."""
    print("every read")
    values = {
        "netuid": NETUID,
        "netuids": [NETUID],
        "block": await client.block(),
        "mechid": 0,
        "uid": 0,
        "lite": False,
        "coldkey_ss58": validator.coldkey.ss58_address,
        "hotkey_ss58": validator.hotkey.ss58_address,
        "account_ss58": validator.coldkey.ss58_address,
        "coldkey_ss58s": [validator.coldkey.ss58_address],
        "hotkey_ss58s": [validator.hotkey.ss58_address],
        "call_hash": "0x" + "00" * 32,
    }
    answered, without = 0, {}
    for read in client.reads():
        given = {name: values.get(name, 1) for name in read["params"]}
        try:
            await client.read(read["name"], **given)
            answered += 1
        except Exception as error:
            # By pallet or interface: which of its items is missing does not matter.
            sentence = str(error).splitlines()[0]
            named = re.search(r"([A-Za-z]+)[._]\w", sentence)
            why = f"without {named[1]}" if named else sentence
            without.setdefault(why, []).append(read["name"])
    shown("answered", f"{answered} of {len(client.reads())}")
    for why, names in sorted(without.items()):
        aside(why, ", ".join(names))


if __name__ == "__main__":
    sys.exit(main())
