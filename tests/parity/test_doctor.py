"""The doctor's verdict about logits, against live transformers."""

import pathlib

import pytest

from mres_jax.inference import load
from mres_jax.inference.oracle import check_parity
from mres_jax.models.registry import LoadedModel, export_hf
from mres_jax.testing.tiny import tiny_nativeres_llava, tiny_qwen2_vl

pytestmark = pytest.mark.parity


@pytest.fixture(autouse=True)
def oracle():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


def export(made, path: pathlib.Path) -> pathlib.Path:
    loaded = LoadedModel(**made._asdict())
    export_hf(loaded, path)
    return path


def test_the_same_weights_agree_and_weights_off_by_a_percent_are_found(tmp_path):
    directory = export(tiny_qwen2_vl(), tmp_path / "m")
    answerer = load(directory).answerer
    check = check_parity(directory, answerer)
    assert check.state == "ok", check
    scale = answerer.model.vision.merger.norm.scale
    scale.set_value(scale.get_value() * 1.01)
    check = check_parity(directory, answerer)
    assert check.state == "failed", check


def test_a_family_that_transformers_lacks_is_skipped_with_its_reason(tmp_path):
    directory = export(tiny_nativeres_llava(), tmp_path / "m")
    check = check_parity(directory, load(directory).answerer)
    assert check.state == "skipped"
    assert "transformers has no NativeResLlava" in check.detail
