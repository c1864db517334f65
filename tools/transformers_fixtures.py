"""Records what `transformers` computes for small random models of every family, for the engine's parity tests.

    python -m venv venv && venv/bin/pip install torch transformers safetensors numpy
    venv/bin/python tools/transformers_fixtures.py crates/engine/tests/fixtures [NAME ...]

Each fixture is a folder with `config.json` and `model.safetensors` as `save_pretrained` writes them (two of them
rewritten the way checkpoints were released before transformers 5), and `expected.safetensors`:

    ids                  [sequences, length], i64
    logits               [sequences, length, vocabulary]
    loss                 [1], mean over all predicted tokens
    gradient.<name>      of the loss, for every tensor of a routed expert, under its name in `model.safetensors` and in
                         its stored shape and orientation

The versions that made the numbers are in the metadata of `expected.safetensors`. All computing is f32 with eager
attention and experts; where weights are stored in half precision, the f32 ones were rounded to it first.

A fixture must be able to fail. Weights are drawn large enough that no part of a model is negligible; each option that a
fixture is there for is switched off once, which has to change the logits; every expert is visited; and the routers'
choices have to survive noise a hundred times larger than rounding, so that no other order of summation flips one. The
first seed that fulfils this is taken. Finally the folder is loaded again and has to give the same logits.

    venv/bin/python tools/transformers_fixtures.py --check FOLDER

instead loads a folder that the engine wrote, fails on missing or unexpected keys, and prints the mean loss of the
sequences in `FOLDER/sequences.json` (a list of lists of ids), one per forward pass, no padding.
"""

import argparse
import copy
import json
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel

SEED = 20_240_507  # the date of arXiv 2405.04434
SEQUENCES, LENGTH = 3, 20
FUSED = ("experts.gate_up_proj", "experts.down_proj")  # all experts of a layer in one tensor
NOISE = 1e-4  # relative to every weight; f32 rounding is about 1e-7 and adds up to 1e-6 of a logit

DEEPSEEK_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 40.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
SHORT_YARN = DEEPSEEK_YARN | {"original_max_position_embeddings": 256}
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}


@dataclass
class Fixture:
    """One model and the options that it is there for."""

    family: str  # class names begin with it
    config: dict
    # Each set of values replaces the configured ones once and has to change the logits.
    without: list[dict] = field(default_factory=list)
    dtype: torch.dtype = torch.float32
    # "saved" as by default, "fused" as in memory, "released" in the older spelling of `config.json` and, for
    # Qwen3-VL-MoE, with transposed experts.
    layout: str = "saved"
    model_class: str = "ForCausalLM"

    def new_config(self, changes: dict | None = None) -> PreTrainedConfig:
        values = copy.deepcopy(self.config)
        (values["text_config"] if "text_config" in values else values).update(changes or {})
        return getattr(transformers, f"{self.family}Config")(**values, attn_implementation="eager")

    def new_model(self, changes: dict | None = None) -> PreTrainedModel:
        model = getattr(transformers, self.family + self.model_class)(self.new_config(changes)).float().eval()
        model.set_experts_implementation("eager")
        return model


def config(**values) -> dict:
    """What all small models share; `values` come on top."""
    shared = {
        "vocab_size": 48,
        "hidden_size": 24,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    return shared | values


def deepseek(**values) -> dict:
    shared = {
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 8,
        "v_head_dim": 10,
        "intermediate_size": 20,
        "moe_intermediate_size": 10,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "first_k_dense_replace": 1,
    }
    return config(**(shared | values))


def qwen3(**values) -> dict:
    shared = {
        "num_key_value_heads": 2,
        "head_dim": 8,  # hidden size by heads would be 6
        "intermediate_size": 20,
        "moe_intermediate_size": 10,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    }
    return config(**(shared | values))


def qwen3_vl(**values) -> dict:
    text = qwen3(mlp_only_layers=[0], **values)
    text["rope_parameters"] |= {"mrope_section": [2, 1, 1], "mrope_interleaved": True}
    # The class default of the nested key is not what governs the head.
    text["tie_word_embeddings"] = True
    vision = {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 2,
        "patch_size": 2,
        "spatial_merge_size": 1,
        "temporal_patch_size": 1,
        "out_hidden_size": text["hidden_size"],
        "num_position_embeddings": 4,
        "deepstack_visual_indexes": [0],
    }
    special = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    unused = {name: text["vocab_size"] + index for index, name in enumerate(special)}
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": False} | unused


def olmoe(**values) -> dict:
    shared = {
        "num_key_value_heads": 4,
        "intermediate_size": 10,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "num_hidden_layers": 2,
    }
    return config(**(shared | values))


def mixtral(**values) -> dict:
    shared = {
        "num_key_value_heads": 2,
        "intermediate_size": 20,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
    }
    return config(**(shared | values))


FIXTURES = {
    "deepseek_v2_tiny": Fixture(
        "DeepseekV2",
        deepseek(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            moe_intermediate_size=16,
            qk_nope_head_dim=8,
            qk_rope_head_dim=4,
            v_head_dim=12,
            n_routed_experts=6,
            n_shared_experts=2,
            num_experts_per_tok=2,
            routed_scaling_factor=1.5,
            topk_method="greedy",
            rms_norm_eps=1e-5,
        ),
        without=[{"routed_scaling_factor": 1.0}],
    ),
    "deepseek_v2_group_limited": Fixture(
        "DeepseekV2",
        deepseek(
            q_lora_rank=12,
            topk_method="group_limited_greedy",
            n_group=4,
            topk_group=2,
            routed_scaling_factor=16.0,
            max_position_embeddings=163_840,
            rope_parameters=DEEPSEEK_YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
        ),
        without=[{"topk_method": "greedy"}, {"topk_group": 3}, {"rope_parameters": DEFAULT_ROPE}],
    ),
    "deepseek_v2_mscale": Fixture(
        "DeepseekV2",
        deepseek(
            topk_method="greedy",
            max_position_embeddings=10_240,
            rope_parameters=SHORT_YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
        ),
        without=[
            {"rope_parameters": SHORT_YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
            {"rope_parameters": SHORT_YARN | {"mscale": 0.5, "mscale_all_dim": 0.5}},
        ],
        layout="released",
    ),
    "deepseek_v3_tiny": Fixture(
        "DeepseekV3",
        deepseek(
            q_lora_rank=12,
            n_group=4,
            topk_group=2,
            norm_topk_prob=True,
            routed_scaling_factor=2.5,
            max_position_embeddings=163_840,
            rope_parameters=DEEPSEEK_YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
        ),
        without=[{"topk_group": 4}, {"norm_topk_prob": False}, {"rope_parameters": DEFAULT_ROPE}],
    ),
    "deepseek_v3_halves": Fixture(
        "DeepseekV3",
        deepseek(
            n_group=2,
            topk_group=1,
            norm_topk_prob=False,
            routed_scaling_factor=2.5,
            rope_interleave=False,
        ),
        without=[{"rope_interleave": True}, {"topk_group": 2}, {"norm_topk_prob": True}],
    ),
    "qwen3_moe_tiny": Fixture(
        "Qwen3Moe", qwen3(mlp_only_layers=[1]), without=[{"norm_topk_prob": False}]
    ),
    "qwen3_moe_sparse_step": Fixture(
        "Qwen3Moe",
        qwen3(num_hidden_layers=4, decoder_sparse_step=2, norm_topk_prob=False, tie_word_embeddings=True),
        without=[{"norm_topk_prob": True}],
    ),
    "qwen3_moe_yarn": Fixture(
        "Qwen3Moe",
        qwen3(
            num_hidden_layers=2,
            max_position_embeddings=1024,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 256,
            },
        ),
        without=[{"rope_parameters": DEFAULT_ROPE}],
    ),
    "qwen3_moe_bf16": Fixture("Qwen3Moe", qwen3(num_hidden_layers=2), dtype=torch.bfloat16),
    "qwen3_moe_fused": Fixture("Qwen3Moe", qwen3(num_hidden_layers=2), layout="fused"),
    "qwen3_vl_moe_tiny": Fixture(
        "Qwen3VLMoe", qwen3_vl(), model_class="ForConditionalGeneration"
    ),
    "qwen3_vl_moe_released": Fixture(
        "Qwen3VLMoe", qwen3_vl(), layout="released", model_class="ForConditionalGeneration"
    ),
    "olmoe_tiny": Fixture("Olmoe", olmoe(), without=[{"norm_topk_prob": True}]),
    "olmoe_clip": Fixture(
        "Olmoe",
        olmoe(num_key_value_heads=2, clip_qkv=0.8, norm_topk_prob=True),
        without=[{"clip_qkv": None}, {"norm_topk_prob": False}],
    ),
    "mixtral_tiny": Fixture("Mixtral", mixtral()),
    "mixtral_window": Fixture(
        "Mixtral", mixtral(sliding_window=5), without=[{"sliding_window": None}, {"sliding_window": 6}]
    ),
    "mixtral_f16": Fixture("Mixtral", mixtral(), dtype=torch.float16),
    "mixtral_fused": Fixture("Mixtral", mixtral(), layout="fused"),
}


def randomise(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Draws every weight, rounded to what `dtype` can hold."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms: around one, not exactly one
                parameter.copy_(1.0 + 0.2 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
            parameter.copy_(parameter.to(dtype))
        for name, bias in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                bias.copy_(0.2 * torch.randn_like(bias))


def routers(model: PreTrainedModel) -> list[torch.nn.Module]:
    return [module for module in model.modules() if type(module).__name__.lower().endswith("topkrouter")]


def choices(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """The experts of every token, ascending, `[layers, tokens, experts per token]`."""
    chosen = []
    hooks = [
        router.register_forward_hook(lambda _module, _input, output: chosen.append(output[2].sort(-1).values))
        for router in routers(model)
    ]
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack(chosen)


def logits_of(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def weakness(fixture: Fixture, model: PreTrainedModel, ids: torch.Tensor) -> str | None:
    """Why this draw would make a bad fixture, if it would."""
    chosen = choices(model, ids)
    for layer in chosen:
        if layer.unique().numel() < routers(model)[0].num_experts:
            return "an expert is never visited"
    noise = torch.Generator().manual_seed(1)
    shaken = copy.deepcopy(model)
    for _ in range(8):
        shaken.load_state_dict(model.state_dict())
        with torch.no_grad():
            for parameter in shaken.parameters():
                parameter.mul_(1.0 + NOISE * torch.randn(parameter.shape, generator=noise))
        if not torch.equal(choices(shaken, ids), chosen):
            return "a choice hangs by a thread"

    logits = logits_of(model, ids)
    plain = copy.deepcopy(model)
    for name, buffer in plain.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.zero_()
            if (logits_of(plain, ids) - logits).abs().max() < 0.1:
                return f"{name} changes nothing"
    for changes in fixture.without:
        other = fixture.new_model(changes)
        other.load_state_dict(model.state_dict())
        if (logits_of(other, ids) - logits).abs().max() < 0.1:
            return f"{changes} changes nothing"
    return None


def draw(fixture: Fixture) -> tuple[PreTrainedModel, torch.Tensor]:
    """The model and the ids of the first seed that makes a good fixture."""
    for seed in range(SEED, SEED + 100):
        torch.manual_seed(seed)
        model = fixture.new_model()
        randomise(model, fixture.dtype)
        vocabulary = model.config.get_text_config().vocab_size
        ids = torch.randint(0, vocabulary, (SEQUENCES, LENGTH))
        weak = weakness(fixture, model, ids)
        if weak is None:
            return model, ids
        print(f"  seed {seed}: {weak}")
    sys.exit("no seed makes a good fixture")


def rewrite_as_released(folder: Path) -> None:
    """Spells `config.json` as before transformers 5 and turns fused experts to `[experts, in, out]`."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["torch_dtype"] = values.pop("dtype")
    text = values.get("text_config", values)
    scaling = text.pop("rope_parameters")
    text["rope_theta"] = scaling.pop("rope_theta")
    if "text_config" not in values:
        scaling["type"] = scaling.pop("rope_type")
    text["rope_scaling"] = scaling
    if "num_local_experts" in text:
        text["num_experts"] = text.pop("num_local_experts")
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")

    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if name.endswith(FUSED):
            tensors[name] = tensor.transpose(1, 2).contiguous()
    save_file(tensors, file, {"format": "pt"})


def as_stored(stored: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A fused expert tensor, or its gradient, in the names and shapes of the file."""
    if name in stored:
        turned = tensor.shape != stored[name].shape
        return {name: tensor.transpose(1, 2) if turned else tensor}
    parent, matrix = name.rsplit(".", 1)
    spelled = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    if f"{parent}.0.gate_proj.weight" not in stored:  # Mixtral
        parent = parent.replace(".mlp.", ".block_sparse_moe.")
        spelled = {"gate": "w1", "up": "w3", "down": "w2"}
    parts = {}
    for expert, rows in enumerate(tensor):
        if matrix == "gate_up_proj":
            gate, up = rows.chunk(2, dim=0)
            parts[f"{parent}.{expert}.{spelled['gate']}.weight"] = gate
            parts[f"{parent}.{expert}.{spelled['up']}.weight"] = up
        else:
            parts[f"{parent}.{expert}.{spelled['down']}.weight"] = rows
    return parts


def expert_gradients(model: PreTrainedModel, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    gradients = {}
    for name, parameter in model.named_parameters():
        if not name.endswith(FUSED):
            continue
        for part, weight in as_stored(stored, name, parameter.detach()).items():
            assert torch.equal(weight, stored[part].float()), f"{part} is not stored as assumed"
        for part, gradient in as_stored(stored, name, parameter.grad).items():
            gradients[f"gradient.{part}"] = gradient.contiguous().clone()
    return gradients


def load(folder: Path) -> PreTrainedModel:
    """The model in a folder, in f32; anything missing or left over ends the program."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, loading = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    problems = {key: sorted(value) for key, value in loading.items() if value}
    if problems:
        sys.exit(f"{folder} does not load cleanly: {problems}")
    model.set_experts_implementation("eager")
    return model.eval()


def record(fixture: Fixture, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model, ids = draw(fixture)
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()

    file = folder / "model.safetensors"
    stored = copy.deepcopy(model).to(fixture.dtype)
    stored.save_pretrained(folder, save_original_format=fixture.layout != "fused")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if fixture.layout == "released":
        rewrite_as_released(folder)

    logits = output.logits.detach()
    expected = {"ids": ids, "logits": logits, "loss": output.loss.detach().reshape(1)}
    expected |= expert_gradients(model, load_file(file))
    # One key: safetensors writes several in random order, and the same numbers should be the same bytes.
    versions = f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    save_file(expected, folder / "expected.safetensors", {"versions": versions})
    assert torch.equal(logits_of(load(folder), ids), logits), "the folder is not the model"
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: loss {output.loss.item():.7f}, {size / 1000:.0f} kB")


def check(folder: Path) -> None:
    model = load(folder)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for sequence in json.loads((folder / "sequences.json").read_text()):
            ids = torch.tensor([sequence])
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss.item()
            total, tokens = total + loss * (len(sequence) - 1), tokens + len(sequence) - 1
    print(f"{total / tokens:.7f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="load FOLDER and print its mean loss instead")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="fixtures to record; all of them by default")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    if arguments.check:
        check(arguments.folder)
        return
    for name in arguments.names or FIXTURES:
        record(FIXTURES[name], arguments.folder / name)


if __name__ == "__main__":
    main()
