"""Records what `transformers` computes for a small random DeepSeek-V2 model, for the engine's parity test.

    python -m venv venv && venv/bin/pip install torch transformers safetensors numpy
    venv/bin/python tools/transformers_fixture.py crates/engine/tests/fixtures/deepseek_v2_tiny

Writes `config.json` and `model.safetensors` as `save_pretrained` does, and `expected.safetensors`:

    ids                  [sequences, length], i64
    logits               [sequences, length, vocabulary]
    loss                 [1], mean over all predicted tokens
    gradient.<name>      of the loss, for the three matrices of every routed expert

The versions that made the numbers are in the metadata of `expected.safetensors`. Everything is f32 with
eager attention and experts; weights are drawn large enough that no part of the model is negligible.

    venv/bin/python tools/transformers_fixture.py --check FOLDER

instead loads a folder that the engine wrote, fails on missing or unexpected keys, and prints the mean loss
of the sequences in `FOLDER/sequences.json` (a list of lists of ids), one per forward pass, no padding.
"""

import json
import platform
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

SEED = 20_240_507  # the date of arXiv 2405.04434


def small_config() -> DeepseekV2Config:
    return DeepseekV2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        kv_lora_rank=16,
        q_lora_rank=None,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=12,
        n_routed_experts=6,
        n_shared_experts=2,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        routed_scaling_factor=1.5,
        topk_method="greedy",
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )


def random_model() -> DeepseekV2ForCausalLM:
    torch.manual_seed(SEED)
    config = small_config()
    config._experts_implementation = "eager"
    model = DeepseekV2ForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms: around one, not exactly one
                parameter.copy_(1.0 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model


def expert_gradients(model: DeepseekV2ForCausalLM) -> dict[str, torch.Tensor]:
    """Per expert and matrix, whichever way this version of transformers holds the experts."""
    gradients = {}
    for layer, block in enumerate(model.model.layers):
        experts = getattr(block.mlp, "experts", None)
        if experts is None:
            continue
        prefix = f"gradient.model.layers.{layer}.mlp.experts"
        if hasattr(experts, "gate_up_proj"):  # fused: [experts, 2·width, hidden], gate rows first
            for expert, (both, down) in enumerate(zip(experts.gate_up_proj.grad, experts.down_proj.grad)):
                gate, up = both.chunk(2, dim=0)
                for matrix, gradient in (("gate", gate), ("up", up), ("down", down)):
                    gradients[f"{prefix}.{expert}.{matrix}_proj.weight"] = gradient.clone()
        else:
            for name, parameter in experts.named_parameters():
                gradients[f"{prefix}.{name}"] = parameter.grad.clone()
    return gradients


def record(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model()
    ids = torch.randint(0, 64, (3, 20))
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    expected = {"ids": ids, "logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
    expected |= expert_gradients(model)
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors", versions)
    print(f"loss {output.loss.item():.7f}", versions)


def check(folder: Path) -> None:
    model, loading = DeepseekV2ForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    problems = {key: sorted(value) for key, value in loading.items() if value}
    if problems:
        sys.exit(f"{folder} does not load cleanly: {problems}")
    total, tokens = 0.0, 0
    with torch.no_grad():
        for sequence in json.loads((folder / "sequences.json").read_text()):
            ids = torch.tensor([sequence])
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss.item()
            total, tokens = total + loss * (len(sequence) - 1), tokens + len(sequence) - 1
    print(f"{total / tokens:.7f}")


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        check(Path(sys.argv[2]))
    else:
        record(Path(sys.argv[1]))
