"""`mres ask` of a served model, with a zoom: both passes in the result and on disk."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import mres_jax
from mres_jax import nn
from mres_jax.cli import main
from mres_jax.models.registry import family_of, save_adapter
from mres_jax.testing import Reply, serve_script


@pytest.fixture
def picture(tmp_path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def script(received):
    return "(750, 250)" if "centre" in received.text else Reply(text="B", probabilities=None)


def test_a_zoom_tells_both_passes_their_cost_and_saves_the_window(picture, tmp_path, capsys):
    words = ["-p", "zoom,coarse=20", "-p", "budget:20", "--json", "--save", str(tmp_path / "saw")]
    with serve_script(script) as server:
        assert main(["ask", picture, "-q", "What?", "-m", server.address, *words]) == 0
    zoomed, plain = json.loads(capsys.readouterr().out)["rows"]
    assert zoomed["answer"] == "B"
    first, second = zoomed["passes"]
    assert first["answer"] == "(750, 250)"
    assert first["views"][0]["crop_px"] == [0, 0, 300, 400]
    assert second["views"] == zoomed["views"]
    assert zoomed["views"][0]["crop_px"] == [38, 250, 113, 350]  # 75 x 100 px around y 75, x 300
    assert zoomed["visual_tokens"] == first["visual_tokens"] + second["visual_tokens"]
    assert set(zoomed["ms"]) == {"host", "server"}
    assert "passes" not in plain
    sent = [received.images[0] for received in server.received]
    for name, pixels in zip(("pass1", "pass2"), sent[:2], strict=True):
        stem = f"zoom-coarse-20-{name}-item0"
        with Image.open(tmp_path / "saw" / f"{stem}-view.png") as view:
            np.testing.assert_array_equal(np.asarray(view), pixels)
        assert (tmp_path / "saw" / f"{stem}-crop.png").exists()


def test_a_zoom_that_found_nothing_says_so(picture, capsys):
    with serve_script(lambda received: "there") as server:
        assert main(["ask", picture, "-q", "What?", "-m", server.address, "-p", "zoom"]) == 0
    captured = capsys.readouterr()
    assert "no window: no box and no point in 'there'; the whole picture was taken" in captured.err


def test_the_processor_of_the_served_model_counts_what_it_sees(picture, capsys):
    """A token of `mres-tiny` has 16 px a side: 300 x 400 px in at most 60 are 96 x 128 px."""
    words = ["-p", "budget:60", "--json", "--processor", "mres-tiny"]
    count = {"tokens": 77}
    with serve_script(lambda r: Reply(text="B", prompt_tokens=count["tokens"])) as server:
        ask = ["ask", picture, "-q", "Read the total.", "-m", server.address, *words]
        assert main(ask) == 1
        wrong = "it counts 77 prompt tokens, we 72: 48 visual ones of 1 pictures, 24 of text"
        assert wrong in capsys.readouterr().err
        count["tokens"] = 72
        assert main(ask) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["views"][0]["size_px"], row["visual_tokens"]) == ([96, 128], 48)
    assert row["text_tokens"] == 24
    assert row["retention_ratio"] == pytest.approx(48 / (19 * 25), abs=1e-6)
    assert "note" not in row


def test_counts_of_a_server_whose_model_nobody_named_carry_a_note(picture, capsys):
    with serve_script(lambda received: "B") as server:
        assert main(["ask", picture, "-q", "What?", "-m", server.address, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "28 px a side of each, and the server does not tell its own" in json.loads(out)["note"]
    assert "note: visual tokens and retention ratio are counted by" in err


@pytest.mark.parametrize("words", [["ask"], ["eval", "generated", "-o", "x"], ["resolution"]])
def test_options_of_servers_and_of_models_here_are_told_apart(words, picture, tmp_path, capsys):
    more = {"ask": [picture, "-q", "x"], "resolution": ["--task", str(tmp_path)], "eval": []}
    row = {"images": ["a.png"], "question": "x", "answer": "y"}
    lines = [json.dumps(row | {"id": f"{i}"}) for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    for option, value in (("--processor", "mres-tiny"), ("--timeout", "60.0")):
        assert main([*words, *more[words[0]], option, value]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith(
            f"mres: {words[0]}: {option} {value} is of a server, and -m names none"
        )
        assert err.count("\n") == 1
    server = ["-m", "http://127.0.0.1:9/v1#x", "--adapter", "folder"]
    assert main([*words, *more[words[0]], *server]) == 2
    assert "--adapter folder is of models here; http" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("zoom,window=1024", "1024 x 1024 px is larger than picture 0 of 400 x 300"),
        ("zoom,prompts=qwen", "no prompts 'qwen'"),
        ("zoom,fallback=error", "no box and no point in 'there'"),
    ],
)
def test_a_zoom_that_cannot_be_is_one_line(policy, message, picture, capsys):
    with serve_script(lambda received: "there") as server:
        assert main(["ask", picture, "-q", "What?", "-m", server.address, "-p", policy]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_server_that_is_not_there_fails_in_one_line(picture, capsys, monkeypatch):
    monkeypatch.setattr("mres_jax.inference.http.FIRST_PAUSE", 0.001)
    assert main(["ask", picture, "-q", "What?", "-m", "http://127.0.0.1:9/v1#m"]) == 1
    assert "connection refused (4 tries)" in capsys.readouterr().err


def test_adapters_go_onto_the_model_that_is_asked_served_or_evaluated(picture, tmp_path, capsys):
    vlm = mres_jax.load()
    layers = [name for name in nn.linear_layers(vlm.model) if name.startswith("text.layers.mlp")]
    nn.add_lora(vlm.model, layers, rank=2, scale=1.0, rngs=nnx.Rngs(0))
    for name in layers:
        factor = nn.linear_layers(vlm.model)[name].lora_b
        factor[...] = jnp.asarray(np.random.default_rng(1).normal(size=factor.shape), factor.dtype)
    directory = tmp_path / "adapter"
    save_adapter(vlm.model, directory, family_of(vlm.model.config).key_table(vlm.model.config))
    few = ["--max-new-tokens", "6"]
    said = []
    for more in ([], ["--adapter", str(directory)]):
        assert main(["ask", picture, "-q", "x", "--json", "-p", "budget:16", *few, *more]) == 0
        said.append(json.loads(capsys.readouterr().out)["answer"])
        out = tmp_path / f"out{len(more)}"
        assert main(["eval", "generated:1", "-o", str(out), *few, *more]) == 0
        capsys.readouterr()
    expected = vlm.answer(picture, "x", policy="budget:16", max_new_tokens=6).text.strip()
    assert said[1] == expected != said[0]
    arms = [json.loads((tmp_path / f"out{i}/summary.json").read_text())["arms"][0] for i in (0, 2)]
    plain, adapted = (arm["identity"]["model"]["fingerprint"] for arm in arms)
    assert plain != adapted
