"""Adapters and position tables against live `peft` and torch."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn, ops
from mres_jax.errors import CheckpointError
from mres_jax.inference import VLM, load, oracle
from mres_jax.models.registry import LoadedModel, export_hf, family_of, load_adapter, save_adapter
from mres_jax.testing import tiny_llava, tiny_llava_next, tiny_qwen2_vl

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, raised by peft
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),  # no hub to look a base model up
]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-4  # of logits up to about 20 in float32, through four layers
NAMES = (
    "vision.blocks.attn.qkv",
    "vision.blocks.mlp.fc1",
    "text.layers.attn.q",
    "text.layers.mlp.up",
)
PART = "vision.merger.up"  # trained whole


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> pathlib.Path:
    made = tiny_qwen2_vl(spread=2.0)  # at 4 rounding grows to 1e-3 and hides what is asked
    path = tmp_path_factory.mktemp("base") / "base"
    export_hf(LoadedModel(**made._asdict()), path)
    return path


def table(vlm: VLM):
    return family_of(vlm.model.config).key_table(vlm.model.config)


def our_logits(vlm: VLM) -> np.ndarray:
    return oracle._our_logits(vlm.model, oracle._example(vlm.answerer))


def their_logits(vlm: VLM, model) -> np.ndarray:
    return oracle.torch_logits(model, oracle._example(vlm.answerer), vlm.spec)


def base_of(directory: pathlib.Path):
    cls = transformers.Qwen2VLForConditionalGeneration
    return cls.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()


def test_peft_loads_our_adapter_and_gives_the_same_logits(directory, peft, tmp_path):
    vlm = load(directory)
    plain = our_logits(vlm)
    nn.add_lora(vlm.model, NAMES, rank=3, scale=0.5, rngs=nnx.Rngs(1))
    draw = np.random.default_rng(2)
    layers = nn.linear_layers(vlm.model)
    for name in NAMES:
        factor = layers[name].lora_b
        factor[...] = jnp.asarray(0.1 * draw.normal(size=factor.shape), jnp.float32)
    kernel = layers[PART].kernel
    kernel[...] = kernel[...] + jnp.asarray(0.02 * draw.normal(size=kernel.shape), jnp.float32)
    save_adapter(vlm.model, tmp_path / "a", table(vlm), base=str(directory), full=[PART])
    wrapped = peft.PeftModel.from_pretrained(base_of(directory), tmp_path / "a").eval()
    ours, theirs = our_logits(vlm), their_logits(vlm, wrapped)
    print(
        f"largest logit difference {np.abs(ours - theirs).max():.3g} of {np.abs(theirs).max():.3g}"
    )
    assert np.abs(ours - plain).max() > 50 * TOLERANCE
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    merged = their_logits(vlm, wrapped.merge_and_unload())
    nn.fold_lora(vlm.model)
    np.testing.assert_allclose(our_logits(vlm), merged, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("make", "architecture"),
    [
        (tiny_llava, "LlavaForConditionalGeneration"),
        (tiny_llava_next, "LlavaNextForConditionalGeneration"),
    ],
)
def test_peft_merges_our_adapter_of_a_llava_to_what_we_merge(make, architecture, peft, tmp_path):
    """Tower, decoder, and projector and positions whole: every weight of the merged models."""
    export_hf(LoadedModel(**make()._asdict()), tmp_path / "base")
    vlm = load(tmp_path / "base")
    names = ["vision.blocks.attn.q", "vision.blocks.attn.o", "text.layers.attn.v"]
    nn.add_lora(vlm.model, names, rank=3, scale=0.5, rngs=nnx.Rngs(1))
    draw, layers = np.random.default_rng(2), nn.linear_layers(vlm.model)
    for name in names:
        factor = layers[name].lora_b
        factor[...] = jnp.asarray(0.1 * draw.normal(size=factor.shape), jnp.float32)
    for array in (layers["projector.up"].kernel, vlm.model.vision.positions):
        array[...] = array[...] + 0.25
    full = ["projector", "vision.positions"]
    save_adapter(vlm.model, tmp_path / "a", table(vlm), base="base", full=full)
    nn.fold_lora(vlm.model)
    merged = LoadedModel(model=vlm.model, spec=vlm.spec, tokenizer=vlm.tokenizer)
    export_hf(merged, tmp_path / "merged")
    cls = getattr(transformers, architecture)
    base, ours = (
        cls.from_pretrained(tmp_path / name, dtype=torch.float32, local_files_only=True)
        for name in ("base", "merged")
    )
    before = {name: value.numpy().copy() for name, value in base.state_dict().items()}
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "a").merge_and_unload().state_dict()
    changed = set()
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value.numpy(), theirs[name].numpy(), atol=1e-6, err_msg=name)
        changed |= {name} if np.abs(value.numpy() - before[name]).max() > 1e-3 else set()
    for part in ("q_proj", "out_proj", "v_proj", "linear_1", "position_embedding"):
        assert any(part in name for name in changed), part


@pytest.mark.parametrize("rslora", [False, True])
def test_we_load_what_peft_saved_and_give_the_same_logits(directory, peft, tmp_path, rslora):
    """With layers left out where the scale is the newer one."""
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["qkv", "attn.proj", "q_proj", "v_proj", "down_proj"],
        use_rslora=rslora,
        layers_to_transform=[1] if rslora else None,
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(base_of(directory), config).eval()
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            value.mul_(0.3 if "lora_B" in name else 1.0)
    wrapped.save_pretrained(tmp_path / "a")
    vlm = load(directory)
    plain = our_logits(vlm)
    load_adapter(vlm.model, tmp_path / "a", table(vlm))
    ours, theirs = our_logits(vlm), their_logits(vlm, wrapped)
    print(
        f"largest logit difference {np.abs(ours - theirs).max():.3g} of {np.abs(theirs).max():.3g}"
    )
    assert np.abs(ours - plain).max() > 50 * TOLERANCE
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_of_changed_weights_loads_once_peft_has_converted_it(
    directory, peft, tmp_path, start
):
    """As it is saved first, it is one of other weights than those of the directory."""
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], init_lora_weights=start
    )
    wrapped = peft.get_peft_model(base_of(directory), config).eval()
    wrapped.peft_config["default"].init_lora_weights = True  # as peft asks before the first save
    wrapped.save_pretrained(tmp_path / "first")
    wrapped.peft_config["default"].init_lora_weights = start
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            value.mul_(1.3 if "lora_B" in name else 1.0)
    wrapped.save_pretrained(tmp_path / "a")
    wrapped.save_pretrained(
        tmp_path / "b", path_initial_model_for_weight_conversion=str(tmp_path / "first")
    )
    vlm = load(directory)
    with pytest.raises(CheckpointError, match=f"init_lora_weights is '{start}'"):
        load_adapter(vlm.model, tmp_path / "a", table(vlm))
    plain = our_logits(vlm)
    load_adapter(vlm.model, tmp_path / "b", table(vlm))
    ours, theirs = our_logits(vlm), their_logits(vlm, wrapped)
    assert np.abs(ours - plain).max() > 50 * TOLERANCE
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("new", [(16, 16), (32, 32), (48, 48), (24, 24), (17, 40)])
def test_position_tables_are_resized_as_torch_does_it(new):
    """CLIP's table at 336 px: a class row and 24 x 24, to 224, 448 and 672 px and to a strip."""
    draw = np.random.default_rng(0)
    table = draw.normal(size=(1 + 24 * 24, 64)).astype(np.float32)
    grid = torch.from_numpy(table[1:]).reshape(1, 24, 24, 64).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    theirs = theirs.permute(0, 2, 3, 1).reshape(-1, 64).numpy()
    for ours in (table, jnp.asarray(table)):
        resized = ops.resize_position_table(ours, old=(24, 24), new=new, prefix=1)
        np.testing.assert_allclose(np.asarray(resized)[1:], theirs, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(resized)[0], table[0])
