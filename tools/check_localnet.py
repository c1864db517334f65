"""Loads a local network's final model in transformers and recomputes its held-out loss.

    python tools/check_localnet.py OUT

OUT is the folder that `connito localnet` wrote. Fails when the class of its architecture misses or does not
expect a tensor, or when the mean cross-entropy over all predicted tokens of `heldout.jsonl` differs
from `summary.json` by more than 1e-3. Needs torch and transformers; prints their versions.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-3


def main() -> int:
    out = pathlib.Path(sys.argv[1])
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    model, report = AutoModelForCausalLM.from_pretrained(
        out / "model", dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            print(f"{kind}: {sorted(report[kind])}")
            return 1
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    total, count = 0.0, 0
    with torch.no_grad():
        for line in (out / "heldout.jsonl").read_text().splitlines():
            ids = torch.tensor([json.loads(line)["ids"]])
            logits = model(ids).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
    ours = json.loads((out / "summary.json").read_text())["final"]["heldout_loss"]
    theirs = total / count
    print(f"{count} predicted tokens, vocabulary {len(tokenizer)}: here {ours:.6f}, transformers {theirs:.6f}")
    return 0 if abs(ours - theirs) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
