"""Runs of seconds: four frames of 16 px a question, a random Qwen2-VL, eyes without weights."""

import pytest

from mres_jax.testing import tiny_qwen2_vl
from mres_jax.testing.allocator_runs import (
    FirstFrameReader,
    MeanEyes,
    tiny_allocator_run,
    write_questions,
)
from mres_jax.training.allocator.parts import Parts


@pytest.fixture(scope="session")
def parts():
    # kernels of twice the usual size: at four times rounding alone moves a ratio by 2.4e-4
    tiny = tiny_qwen2_vl(spread=2.0)
    return Parts(tiny.model, tiny.spec, tiny.tokenizer, MeanEyes())


@pytest.fixture
def make_run(tmp_path):
    """A run with changes; `reward` may be the body of a function of (answer, row)."""
    (tmp_path / "data").mkdir()
    rows = write_questions(tmp_path / "data")

    def make(name="run", *, body=None, data=None, **changes):
        if body is not None:
            file = tmp_path / f"{name}_reward.py"
            lines = "".join(f"    {line}\n" for line in body.splitlines())
            file.write_text(f"def pay(answer, row):\n{lines}")
            changes = {"reward": f"{file}:pay", **changes}
        return tiny_allocator_run(tmp_path / name, data or rows, **changes)

    return make


@pytest.fixture
def planted(parts):
    """Parts whose answers cost nothing."""
    return parts._replace(answerer=FirstFrameReader(parts.spec), eyes=MeanEyes())


@pytest.fixture
def write_clips():
    """Writes rows about clips of random frames."""
    return write_questions
