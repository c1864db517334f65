"""Holds wallets against Bittensor's own implementation of them, in both directions.

    pip install bittensor_core==0.1.5 cryptography ansible-vault
    python tools/check_wallets.py [CONNITO]

CONNITO is the binary, target/debug/connito by default. Wallets that it makes have to open in
bittensor_core, with and without a password; files that bittensor_core, a Fernet token and an Ansible
vault make have to open in it; signatures of each have to hold in the other. Without bittensor_core it
says so and checks nothing.
"""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import bittensor_core as core
except ImportError:
    print("bittensor_core is not installed (pip install bittensor_core==0.1.5): nothing was checked")
    sys.exit(0)

PASSWORD = "correct horse battery staple"
PHRASE = "abandon " * 11 + "about"
MESSAGE = "hello"
FERNET_SALT = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins"
FERNET_ROUNDS = 10_000_000


class Ground:
    """A folder of wallets and the binary that works on it."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path):
        self.binary = binary
        self.folder = folder

    def file(self, wallet: str, name: str) -> pathlib.Path:
        return self.folder / wallet / name

    def run(self, *arguments: str) -> dict:
        """The JSON that a subcommand of `wallet` prints, with the password for whatever is encrypted."""
        environment = dict(os.environ, BT_WALLET_PATH=str(self.folder))
        for wallet in ("ours", "theirs", "fernet", "ansible"):
            name = variable(self.file(wallet, "coldkey"))
            environment[name] = scrambled(name)
        done = subprocess.run(
            [self.binary, "wallet", *arguments, "--json"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"wallet {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def keep(self, wallet: str, name: str, data: bytes) -> None:
        path = self.file(wallet, name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_bytes(data)


def variable(path: pathlib.Path) -> str:
    """As `Keyfile.env_var_name` of the SDK."""
    return "BT_PW_" + str(path).replace(os.sep, "_").replace(".", "_").upper()


def scrambled(name: str) -> str:
    """The value as bittensor_core puts it into the environment, which Python does not notice."""
    core.save_password_to_environment(name, PASSWORD)
    shown = subprocess.run(["/bin/sh", "-c", f'printf %s "${name}"'], capture_output=True, text=True)
    if shown.stdout:
        return shown.stdout
    mask = name.encode()
    secret = bytes(byte ^ mask[i % len(mask)] for i, byte in enumerate(PASSWORD.encode()))
    return base64.b64encode(secret).decode()


def check(what: str, holds: bool) -> None:
    print(f"{'ok  ' if holds else 'FAIL'}  {what}")
    if not holds:
        raise SystemExit(1)


def ours_opens_there(ground: Ground) -> None:
    made = ground.run("new", "ours")
    for kind, name in (("coldkey", "coldkey"), ("hotkey", "hotkeys/default")):
        data = ground.file("ours", name).read_bytes()
        check(f"our {kind} is {'encrypted' if made[kind]['encrypted'] else 'plain'} there too",
              core.keyfile_data_is_encrypted(data) == made[kind]["encrypted"])
        if made[kind]["encrypted"]:
            data = bytes(core.decrypt_keyfile_data(data, PASSWORD))
        key = core.deserialize_keypair_from_keyfile_data(data)
        check(f"our {kind} has its address there", key.ss58_address == made[kind]["address"])
        public = ground.file("ours", "coldkeypub.txt" if kind == "coldkey" else f"{name}pub.txt")
        told = core.deserialize_keypair_from_keyfile_data(public.read_bytes())
        check(f"our {kind}'s public file tells it", told.ss58_address == key.ss58_address)
        signature = bytes(key.sign(MESSAGE.encode())).hex()
        held = ground.run("verify", key.ss58_address, signature, "--message", MESSAGE)
        check(f"a signature by our {kind} there holds here", held["holds"])
    signed = ground.run("sign", "ours", "--message", MESSAGE)
    judge = core.Keypair(ss58_address=signed["address"])
    check("a signature made here holds there",
          judge.verify(MESSAGE.encode(), bytes.fromhex(signed["signature"])))


def theirs_opens_here(ground: Ground) -> None:
    key = core.Keypair.create_from_mnemonic(PHRASE)
    plain = bytes(core.serialized_keypair_to_keyfile_data(key))
    files = {"theirs": bytes(core.encrypt_keyfile_data(plain, PASSWORD))}
    try:
        from cryptography.fernet import Fernet

        secret = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), FERNET_SALT, FERNET_ROUNDS)
        files["fernet"] = Fernet(base64.urlsafe_b64encode(secret)).encrypt(plain)
    except ImportError:
        print("skip  Fernet: the package cryptography is not installed")
    try:
        from ansible_vault import Vault

        vault = Vault(PASSWORD).dump_raw(plain)
        files["ansible"] = vault if isinstance(vault, bytes) else vault.encode()
    except ImportError:
        print("skip  Ansible Vault: the package ansible-vault is not installed")
    for wallet, data in files.items():
        check(f"{wallet}: opens there", bytes(core.decrypt_keyfile_data(data, PASSWORD)) == plain)
        ground.keep(wallet, "coldkey", data)
        signed = ground.run("sign", wallet, "--message", MESSAGE)
        check(f"{wallet}: opens here with the same address", signed["address"] == key.ss58_address)
    kinds = {"plain": plain, "phrase": PHRASE.encode(), "uri": bytes(
        core.serialized_keypair_to_keyfile_data(core.Keypair.create_from_uri("//Alice")))}
    for name, data in kinds.items():
        ground.keep("theirs", f"hotkeys/{name}", data)
        expected = core.deserialize_keypair_from_keyfile_data(data).ss58_address
        signed = ground.run("sign", "theirs", "--hotkey", name, "--message", MESSAGE)
        check(f"their {name} hotkey has its address here", signed["address"] == expected)


def main() -> int:
    default = pathlib.Path(__file__).parent.parent / "target/debug/connito"
    binary = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(binary.absolute(), pathlib.Path(folder))
        ours_opens_there(ground)
        theirs_opens_here(ground)
    return 0


if __name__ == "__main__":
    sys.exit(main())
