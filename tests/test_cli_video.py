"""`mres ask` about clips with the later generations, out of directories of tiny random models."""

import json

import pytest
from PIL import Image

from mres_jax.cli import main
from mres_jax.models.registry import LoadedModel, export_hf
from mres_jax.testing import tiny_clip, tiny_qwen2_5_vl, tiny_qwen3_vl, tiny_smolvlm
from mres_jax.testing.clips import write_video

TIMES = {  # of two views in two seconds
    tiny_qwen2_5_vl: [0.25, 1.25],
    tiny_qwen3_vl: [0.3, 1.6],
    tiny_smolvlm: [0.0, 1.9],
}


@pytest.mark.slow
@pytest.mark.parametrize("make", TIMES)
def test_files_and_folders_are_asked_about_and_bad_ones_are_one_line(make, tmp_path, capsys):
    pytest.importorskip("av")
    made = make()
    loaded = LoadedModel(**made._asdict())
    export_hf(loaded, tmp_path / "model")
    write_video(tmp_path / "clip.mkv", tiny_clip(0, 16, 24, frames=20).frames)
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(tiny_clip(1, 24, 16, frames=5).frames):
        Image.fromarray(frame).save(tmp_path / f"frames/{i}.png")
    words = ["-q", "what is the total", "-m", str(tmp_path / "model"), "--max-new-tokens", "4"]
    paths = [str(tmp_path / name) for name in ("clip.mkv", "frames")]
    assert main(["ask", *paths, *words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["visual_tokens"] == sum(view["tokens"] for view in content["views"])
    first, second = ([v for v in content["views"] if v["item"] == item] for item in (0, 1))
    assert [view["time_s"] for view in first] == pytest.approx(TIMES[make])
    pairs, singles = [[0, 1], [2, 3], [4, 4]], [[i] for i in range(5)]
    assert [view["frames"] for view in second] == (singles if make is tiny_smolvlm else pairs)
    half = (tmp_path / "clip.mkv").read_bytes()[:2_000]
    (tmp_path / "clip.mkv").write_bytes(half)
    assert main(["ask", paths[0], *words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "damaged or truncated" in line


def test_a_clip_for_a_model_of_pictures_is_named(tmp_path, capsys):
    for i, frame in enumerate(tiny_clip(1, 24, 16, frames=2).frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    assert main(["ask", str(tmp_path), "-q", "x", "-m", "mres-tiny"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mres: ask: {tmp_path}: policy: the model takes image, tile, no clips.")
