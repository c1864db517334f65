"""Times `transformers` on the work of `connito bench engine`: the same model, batch and trained experts.

    venv/bin/python tools/bench_transformers.py --config tools/bench/reference-moe.json --mode train --trainable 4

Random weights from an ordinary `config.json`, one fixed random batch that is repeated, two untimed warm-up steps. Experts
0 to N−1 of every MoE layer are trained, everything else is frozen. Experts run as `grouped_mm`, the faster of the modes
of transformers. A layer's experts are one tensor there, so autograd has to compute the gradient of all of them; what
becomes of it is the optimiser's business:

    --optimizer adamw   as one would write it first: the whole tensors belong to AdamW, the gradient of the frozen experts
                        is set to zero (decoupled weight decay would still move them, so it is off)
    --optimizer fused   its best way: fused AdamW on the trained experts alone, which are views into the whole tensors;
                        as soon as a layer's gradient is complete, their part is copied out and the rest is freed

Prints one line of JSON: median tokens per second, peak resident bytes of the process, the loss before the first step
and in the last one, versions.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

WARM_UP_STEPS = 2
LEARNING_RATE = 1e-3
FUSED = ("experts.gate_up_proj", "experts.down_proj")  # all experts of a layer in one tensor


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--mode", choices=("train", "forward"), default="train")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--optimizer", choices=("adamw", "fused"), default="adamw")
    parser.add_argument("--trainable", type=int, default=4, help="experts 0 to N−1 of every MoE layer")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="timed ones")
    return parser.parse_args()


def random_model(file: Path, dtype: torch.dtype) -> PreTrainedModel:
    values = json.loads(file.read_text())
    config = AutoConfig.for_model(values.pop("model_type"), **values, use_cache=False)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.set_experts_implementation("grouped_mm")
    return model.requires_grad_(False)


def expert_tensors(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    tensors = [parameter for name, parameter in model.named_parameters() if name.endswith(FUSED)]
    if not tensors:
        sys.exit("this version of transformers does not hold experts as one tensor")
    return [tensor.requires_grad_() for tensor in tensors]


def plain_adamw(experts: list[torch.nn.Parameter], trainable: int) -> Callable[[], None]:
    """AdamW on whole tensors; returns what follows a backward pass."""
    optimizer = torch.optim.AdamW(experts, lr=LEARNING_RATE, weight_decay=0.0)

    def update() -> None:
        for tensor in experts:
            tensor.grad[trainable:] = 0
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def fused_adamw(experts: list[torch.nn.Parameter], trainable: int) -> Callable[[], None]:
    """Fused AdamW on views of the trained experts; returns what follows a backward pass."""
    trained = []
    for tensor in experts:
        part = torch.nn.Parameter(tensor.detach()[:trainable])
        trained.append(part)

        def keep_trained_part(whole: torch.nn.Parameter, part: torch.nn.Parameter = part) -> None:
            part.grad = whole.grad[:trainable].clone()
            whole.grad = None

        tensor.register_post_accumulate_grad_hook(keep_trained_part)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def new_step(model: PreTrainedModel, ids: torch.Tensor, options: argparse.Namespace) -> Callable[[], float]:
    """One pass over the batch; returns the loss before its update."""
    if options.mode == "forward":

        @torch.inference_mode()
        def step() -> float:
            return model(input_ids=ids, labels=ids).loss.item()

        return step

    prepare = fused_adamw if options.optimizer == "fused" else plain_adamw
    update = prepare(expert_tensors(model), options.trainable)

    def step() -> float:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        update()
        return loss.item()

    return step


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = random_model(options.config, {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype])
    ids = torch.randint(0, model.config.vocab_size, (options.batch, options.seq))
    step = new_step(model, ids, options)

    losses, seconds = [], []
    for _ in range(WARM_UP_STEPS + options.steps):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    result = {
        "tokens_per_second": ids.numel() / statistics.median(seconds[WARM_UP_STEPS:]),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
