"""Proves that `connito chain` is a chain to a tool that reads metadata of version 14 alone.

    pip install substrate-interface==1.8.1
    python tools/check_substrate_interface.py [CONNITO]

CONNITO is the binary, target/debug/connito by default. Runs it as a chain in a folder of its own and
drives it with py-substrate-interface, as published and unmodified: its own decoder of metadata, values,
events and errors, its own signatures. Prints a line for each thing that was tried and ends with the code
1 at the first that differs from what a chain does. Without the package it says so and checks nothing.
"""

import pathlib
import subprocess
import sys
import tempfile

try:
    from substrateinterface import Keypair, SubstrateInterface
except ImportError:
    print("substrate-interface is not installed (pip install substrate-interface==1.8.1): nothing was checked")
    sys.exit(0)

NETUID = 1
RAO = 123_456_789


def main() -> int:
    connito = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/debug/connito")
    if not connito.is_file():
        print(f"{connito} is no file: build it first, or name it")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        command = [connito, "chain", "--listen", "127.0.0.1:0", "--block-time", "250ms"]
        command += ["--folder", pathlib.Path(folder, "chain")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as chain:
            try:
                line = chain.stdout.readline().strip()
                print(line)
                endpoint = next(word for word in line.split() if word.startswith("ws://"))
                with SubstrateInterface(url=endpoint.rstrip(":")) as substrate:
                    drive(substrate)
            finally:
                chain.terminate()
    print("a tool that reads metadata of version 14 finds a chain")
    return 0


def shown(what: str, seen: object, holds: bool) -> None:
    if not holds:
        print(f"! {what}: {seen}")
        raise SystemExit(1)
    print(f"  {what:<44} {' '.join(str(seen).split())[:110]}")


def drive(substrate: SubstrateInterface) -> None:
    alice, bob = Keypair.create_from_uri("//Alice"), Keypair.create_from_uri("//Bob")
    reads(substrate, alice)
    moves_money(substrate, alice, bob)
    is_refused(substrate, alice)
    registers(substrate, alice, bob)
    batches(substrate, alice, bob)


def reads(substrate: SubstrateInterface, alice: Keypair) -> None:
    print("reading")
    substrate.init_runtime()
    version = list(substrate.metadata.value[1])[0]
    shown("metadata", version, version == "V14")
    slot = substrate.get_constant("Aura", "SlotDuration").value
    shown("Aura.SlotDuration", slot, slot == 250)
    account = substrate.query("System", "Account", [alice.ss58_address]).value
    shown("System.Account of //Alice", account, account["data"]["free"] == 10**15)
    tempo = substrate.query("SubtensorModule", "Tempo", [NETUID]).value
    shown("SubtensorModule.Tempo", tempo, tempo == 360)
    networks = substrate.query_map("SubtensorModule", "NetworksAdded")
    networks = [netuid.value for netuid, added in networks if added.value]
    shown("the map SubtensorModule.NetworksAdded", networks, NETUID in networks)
    block = substrate.get_block(substrate.get_chain_head())
    calls = [str(one.value["call"]["call_function"]) for one in block["extrinsics"]]
    shown("calls of the newest block", calls, calls == ["set"])


def sent(substrate: SubstrateInterface, signer: Keypair, pallet: str, call: str, **arguments):
    """A call composed, signed, submitted and waited for."""
    composed = substrate.compose_call(pallet, call, arguments)
    extrinsic = substrate.create_signed_extrinsic(composed, keypair=signer, era={"period": 16})
    return substrate.submit_extrinsic(extrinsic, wait_for_inclusion=True)


def moves_money(substrate: SubstrateInterface, alice: Keypair, bob: Keypair) -> None:
    print("writing")
    to = bob.ss58_address
    receipt = sent(substrate, alice, "Balances", "transfer_keep_alive", dest=to, value=RAO)
    shown("transfer_keep_alive", receipt.block_hash, receipt.is_success)
    events = [event.value["event"] for event in receipt.triggered_events]
    names = [f"{event['module_id']}.{event['event_id']}" for event in events]
    shown("its events", names, names[-1] == "System.ExtrinsicSuccess")
    moved = next(event for event in events if event["event_id"] == "Transfer")["attributes"]
    expected = {"from": alice.ss58_address, "to": to, "amount": RAO}
    shown("Balances.Transfer", moved, moved == expected)
    account = substrate.query("System", "Account", [to]).value
    shown("System.Account of //Bob", account, account["data"]["free"] == RAO)


def is_refused(substrate: SubstrateInterface, alice: Keypair) -> None:
    info = {"fields": [[{"Raw5": "0x" + b"hello".hex()}]]}
    receipt = sent(substrate, alice, "Commitments", "set_commitment", netuid=NETUID, info=info)
    error = receipt.error_message
    refused = not receipt.is_success and error["name"] == "AccountNotAllowedCommit"
    shown("refused: set_commitment of no neuron", error, refused)


def registers(substrate: SubstrateInterface, alice: Keypair, bob: Keypair) -> None:
    hotkey = bob.ss58_address
    receipt = sent(
        substrate, alice, "SubtensorModule", "burned_register", netuid=NETUID, hotkey=hotkey
    )
    shown("burned_register", receipt.extrinsic_hash, receipt.is_success)
    uid = substrate.query("SubtensorModule", "Uids", [NETUID, hotkey]).value
    shown("SubtensorModule.Uids", uid, uid == 0)
    owner = substrate.query("SubtensorModule", "Owner", [hotkey]).value
    shown("SubtensorModule.Owner", owner, owner == alice.ss58_address)
    text = b"hello"
    info = {"fields": [[{f"Raw{len(text)}": "0x" + text.hex()}]]}
    receipt = sent(substrate, bob, "Commitments", "set_commitment", netuid=NETUID, info=info)
    shown("set_commitment of a neuron", receipt.block_hash, receipt.is_success)
    stored = substrate.query("Commitments", "CommitmentOf", [NETUID, hotkey]).value
    field = stored["info"]["fields"]
    shown("Commitments.CommitmentOf", field, text.hex() in str(field) or "hello" in str(field))


def batches(substrate: SubstrateInterface, alice: Keypair, bob: Keypair) -> None:
    print("several calls in one extrinsic")
    values = {"dest": bob.ss58_address, "value": RAO}
    enough = substrate.compose_call("Balances", "transfer_keep_alive", values)
    too_much = substrate.compose_call("Balances", "transfer_keep_alive", {**values, "value": 2**63})
    for call, calls, succeeds, end in (
        ("batch", [enough, enough], True, "BatchCompleted"),
        ("batch", [enough, too_much, enough], True, "BatchInterrupted"),
        ("force_batch", [too_much, enough], True, "BatchCompletedWithErrors"),
        ("batch_all", [enough, too_much], False, None),
    ):
        receipt = sent(substrate, alice, "Utility", call, calls=calls)
        events = [event.value["event"] for event in receipt.triggered_events]
        names = [event["event_id"] for event in events if event["module_id"] == "Utility"]
        as_told = receipt.is_success == succeeds and (names or [None])[-1] == end
        shown(f"{call} of {len(calls)}", names or receipt.error_message, as_told)


if __name__ == "__main__":
    sys.exit(main())
