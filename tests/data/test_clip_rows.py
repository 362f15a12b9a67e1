"""Rows about clips: sizes from headers are those of examples, dirt is counted, nothing is stale."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mres_jax.data.packing import pack, plan_packs
from mres_jax.data.rows import open_rows
from mres_jax.data.rows.forms import parse_row
from mres_jax.data.rows.report import quantiles
from mres_jax.data.rows.types import Fault, Moving
from mres_jax.data.types import Rung
from mres_jax.errors import BadRowError, ConfigError, MresError
from mres_jax.geometry import ClipSize, Size
from mres_jax.models.registry import FAMILIES
from mres_jax.protocols import Clip
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_clip, tiny_config, tiny_smolvlm, tiny_spec, tiny_tokenizer
from mres_jax.testing.clips import write_video
from mres_jax.testing.tiny import LIMITS

pytest.importorskip("av", reason="PyAV reads video files")
TOKENIZER = tiny_tokenizer()
KINDS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
NATIVE = parse_policy("native")
SAID = {"from": "gpt", "value": "red"}


LIMITS_OF_CLIPS = {"min_pixels": 8 * 8, "max_pixels": 1_000 * 8 * 8}  # of all their frames


def spec_of(kind):
    limits = LIMITS if kind != "qwen3_vl" else LIMITS | {"video_processor": LIMITS_OF_CLIPS}
    config = tiny_config(kind, TOKENIZER)
    return FAMILIES[kind].make_spec(config, TOKENIZER.token_id, preprocessor=limits)


def row(name, value="<video>\nwhat is the total", **named):
    return {"id": name, "conversations": [{"from": "human", "value": value}, SAID]} | named


def chat(*parts):
    asked = {"role": "user", "content": list(parts)}
    return {"id": "chat", "messages": [asked, {"role": "assistant", "content": "red"}]}


FRAMES = ["shots/1.png", "shots/2.png", "shots/10.png"]
USABLE = [
    row("file", video="clip.mkv"),
    row("folder", video="shots"),
    row("frames", frames=FRAMES, fps=0.5),
    row("both", "<image> is <video> or <image>", video="clip.mkv", images=["a.png", "a.png"]),
    row("llava", "<image>\nwhat", video="clip.mkv"),  # as LLaVA-Video marks its clips
    row("unmarked", "what", videos=["clip.mkv", "shots"]),
    {"id": "ours", "video": "long.mkv", "question": "what", "answer": "red"},
    chat({"type": "text", "text": "what"}, {"type": "video", "video": "clip.mkv"}),
    row("text", "what is <video>"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos, a folder of frames, a picture."""
    folder = tmp_path_factory.mktemp("rows")
    write_video(folder / "clip.mkv", tiny_clip(0, 24, 40, frames=20).frames)  # 2 s
    write_video(folder / "long.mkv", tiny_clip(1, 16, 16, frames=240).frames)  # 24 s
    (folder / "shots").mkdir()
    for i, frame in zip((1, 2, 10), tiny_clip(2, 32, 16, frames=3).frames, strict=True):
        Image.fromarray(frame).save(folder / f"shots/{i}.png")
    Image.fromarray(tiny_clip(3, 16, 24).frames[0]).save(folder / "a.png")
    return folder


@pytest.fixture
def opened(folder, tmp_path):
    """Opens rows about the files of `folder`."""

    def open_(rows=USABLE, *, spec=None, images=None, tokenizer=TOKENIZER, **kwargs):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        return open_rows(
            path,
            spec=spec or spec_of("qwen2_vl"),
            tokenizer=tokenizer,
            images=images or folder,
            **kwargs,
        )

    return open_


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_from_headers_are_those_of_assembled_examples(opened, kind):
    """Under rules of each family: the texts of times count too, `<9.8 seconds>` and `<10.2 ..>`."""
    rows = opened(spec=spec_of(kind))
    assert len(rows) == len(USABLE)
    for text in ("native", "budget:32", "fixed:16"):
        measured = rows.measure(parse_policy(text))
        assert measured.refused is None
        examples = [rows.example(i, parse_policy(text)) for i in range(len(rows))]
        assert [example.size for example in examples] == list(map(tuple, measured.sizes))
    assert examples[-1].still is None
    assert all(example.still is not None for example in examples[:-1])
    rung = Rung(max_patches=512, max_tokens=768, max_views=32, max_examples=8)
    for plan in plan_packs(measured.sizes, [rung]):
        packed = pack([examples[i] for i in plan.indices], rung)
        sizes = measured.sizes[list(plan.indices)].sum(0)
        assert ((packed.patch_segment_ids > 0).sum(), (packed.segment_ids > 0).sum()) == (
            sizes[0],
            sizes[1],
        )


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_sizes_count_what_a_template_writes_about_clips(opened, template):
    """SmolVLM2 tells frames, length and times, and encodes them with the texts beside them."""
    tiny = tiny_smolvlm()
    asked = [one for one in USABLE if template == "chat" or one["id"] in ("file", "folder")]
    rows = opened(asked, spec=tiny.spec, tokenizer=tiny.tokenizer, template=template)
    for text in ("split", "fixed:24"):
        measured = rows.measure(parse_policy(text))
        assert measured.refused is None
        examples = [rows.example(i, parse_policy(text)) for i in range(len(rows))]
        assert [example.size for example in examples] == list(map(tuple, measured.sizes))
    words = tiny.tokenizer.decode(examples[0].tokens.tolist(), skip_special=False)
    assert "two frames from a 0:00:02 [H:MM:SS] video" in words


def test_items_stand_in_the_order_of_their_marks(opened):
    rows = opened()
    picture, clip, again = rows.images(3)
    assert isinstance(clip, Clip)
    np.testing.assert_array_equal(picture, again)
    assert rows.row(3).images == ("a.png", Moving(video="clip.mkv"), "a.png")
    assert rows.messages(3)[0].parts == (0, " is ", 1, " or ", 2)
    assert rows.sizes(3) == (Size(16, 24), clip.extent, Size(16, 24))
    assert rows.messages(4)[0].parts == (0, "what")
    assert rows.messages(5)[0].parts == (0, 1, "what")
    assert rows.messages(7)[0].parts == (0, "what")  # as pictures, before the text
    assert rows.messages(8)[0].parts == ("what is <video>",)  # no clip: it is text


def test_frames_are_those_that_the_row_names_at_its_rate(opened):
    rows = opened()
    assert rows.sizes(2) == (ClipSize(Size(32, 16), (0.0, 2.0, 4.0), 6.0),)
    (named,), (whole,) = rows.images(2), rows.images(1)
    np.testing.assert_array_equal(named.frames, whole.frames)
    np.testing.assert_array_equal(whole.frames, tiny_clip(2, 32, 16, frames=3).frames)
    assert whole.times == (0.0, 0.5, 1.0)


def test_the_model_or_the_run_says_which_frames_are_looked_at(opened):
    (clip,) = opened().sizes(0)
    assert clip[:2] == (Size(24, 40), (0.0, 0.5, 1.0, 1.5))
    assert clip.length == pytest.approx(2.0)
    (ends,) = opened(spec=spec_of("qwen3_vl")).sizes(0)
    assert (len(ends.times), ends.times[0], ends.times[-1]) == (4, 0.0, 1.9)
    assert len(opened(fps=5).sizes(0)[0].times) == 10
    assert len(opened(fps=5, max_frames=4).sizes(0)[0].times) == 4
    assert len(opened(max_frames=2).sizes(2)[0].times) == 2
    with pytest.raises(ConfigError, match="fps=0"):
        opened(fps=0)


def test_an_index_that_is_opened_again_knows_the_same_times(opened):
    made, lines = opened(), []
    kept = opened(index="refuse", log=lines.append)
    for rows in (kept, pickle.loads(pickle.dumps(kept))):
        assert [rows.sizes(i) for i in range(len(rows))] == [
            made.sizes(i) for i in range(len(made))
        ]
    assert lines[0].startswith("rows.json: 9 rows, 1 text only, 9 clips, 0 bad; noted: ")
    assert quantiles(kept)["frames of a clip"]["largest"] == 48
    assert quantiles(kept)["frame height"]["largest"] == 32
    assert quantiles(kept)["picture width"]["mean"] == 24


@pytest.fixture
def spoiled(folder, tmp_path):
    """A folder of files that are none."""
    spoiled = tmp_path / "spoiled"
    (spoiled / "mixed").mkdir(parents=True)
    content = (folder / "clip.mkv").read_bytes()
    (spoiled / "good.mkv").write_bytes(content)
    (spoiled / "cut.mkv").write_bytes(content[: len(content) // 2])
    (spoiled / "empty.mp4").touch()
    (spoiled / "html.mp4").write_text("<html>404</html>")
    write_video(spoiled / "one.mkv", tiny_clip(0, 16, 16, frames=2).frames[:1])
    for i, (height, width) in enumerate([(16, 16), (16, 24)]):
        Image.fromarray(tiny_clip(i, height, width).frames[0]).save(spoiled / f"mixed/{i}.png")
    return spoiled


@pytest.mark.parametrize(
    ("named", "kind", "reason"),
    [
        ({"video": "gone.mp4"}, "missing video", "video gone.mp4: no such file"),
        ({"video": "cut.mkv"}, "bad video", "video cut.mkv: damaged or truncated"),
        ({"video": "empty.mp4"}, "bad video", "the file is empty"),
        ({"video": "html.mp4"}, "bad video", "its contents are no video that is read"),
        ({"video": "one.mkv"}, "bad video", "of 1 frame none is left after sampling"),
        ({"video": "mixed"}, "bad video", "1.png is 24 x 16 px, but 0.png 16 x 16 px"),
        ({"video": "../clip.mkv"}, "unsafe path", "has .. in it"),
        ({"video": "http://x.org/a.mp4"}, "unsafe path", "is an address; download it first"),
        ({"frames": ["mixed/0.png"]}, "bad video", "1 frames, but a clip has two or more"),
        ({"frames": ["mixed/0.png", "/a.png"]}, "unsafe path", "is absolute"),
        ({"frames": ["mixed/0.png", "gone.png"]}, "missing picture", "gone.png"),
        ({"frames": ["mixed/0.png", "html.mp4"]}, "bad picture", "html.mp4"),
    ],
)
def test_a_clip_that_cannot_be_read_leaves_its_row_out(opened, spoiled, named, kind, reason):
    rows = opened([row("bad", **named), row("good", video="good.mkv")], images=spoiled)
    assert [rows.row(i).id for i in range(len(rows))] == ["good"]
    (finding,) = rows.index.summary.bad
    assert (finding.kind, finding.count) == (kind, 1)
    assert reason in finding.first[0][1]
    with pytest.raises(BadRowError, match="row bad"):
        opened([row("bad", **named)], images=spoiled, on_bad="raise")


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (row("a", video="a", frames=["b"]), "unknown form", "by its file or by its frames"),
        (row("a", frames=300), "unknown form", "frames are names of files"),
        (row("a", frames=[]), "bad video", "'frames' names none"),
        (row("a", frames=["b"], fps=0), "bad video", "fps=0 of its frames must be above 0"),
        (row("a", frames=["b"], fps="2"), "bad video", "fps=2 of its frames"),
        (row("a", frames=["b"], fps=True), "bad video", "fps=True of its frames"),
        (row("a", "<video><video>", video="b"), "placeholder without picture", "0 <image> and 2"),
        (row("a", videos=["b", "c"]), "picture without placeholder", "0 pictures and 2 clips"),
        (
            row("a", "<image> <image>", video="b", image="c"),
            "placeholder without picture",
            "2 <image> and 0 <video> placeholders, but 1 pictures and 1 clips",
        ),
    ],
)
def test_rows_that_do_not_say_what_is_where_are_refused(content, kind, reason):
    with pytest.raises(Fault) as error:
        parse_row(content, 0)
    assert error.value.kind == kind
    assert reason in error.value.reason


def test_frames_of_a_message_are_one_clip():
    part = {"type": "video", "video": ["1.png", "2.png"], "fps": 4}
    (clip,) = parse_row(chat(part), 0)[0].images
    assert clip == Moving(frames=("1.png", "2.png"), fps=4.0)


def test_a_clip_that_changed_since_the_index_is_a_bad_row(opened, spoiled):
    rows = opened([row("a", video="good.mkv")], images=spoiled)
    write_video(spoiled / "good.mkv", tiny_clip(0, 24, 40, frames=20).frames, fps=20)
    with pytest.raises(BadRowError, match=r"px up to 0\.750 s of 1\.000 s, but 4 .* 1\.5"):
        rows.example(0, NATIVE)


def test_a_row_whose_video_is_mended_is_used_again(opened, spoiled, folder):
    rows = [row("a", video="cut.mkv"), row("b", video="good.mkv")]
    assert len(opened(rows, images=spoiled)) == 1
    (spoiled / "cut.mkv").write_bytes((folder / "clip.mkv").read_bytes())
    assert len(opened(rows, images=spoiled)) == 2


def test_a_model_without_clips_refuses_their_rows_by_policy(opened):
    rows = opened(spec=tiny_spec(TOKENIZER))
    measured = rows.measure(NATIVE)
    assert measured.rows.tolist() == [8]
    assert measured.refused.count == 8
    assert "the model takes image, tile, no clips" in measured.refused.first[0][1]


def test_without_pyav_no_row_with_a_video_file_is_silently_left_out(opened, monkeypatch):
    monkeypatch.setattr("mres_jax.data.rows.clips.has_pyav", lambda: False)
    assert len(opened([USABLE[1], USABLE[2]])) == 2
    with pytest.raises(MresError, match="reading video files needs PyAV"):
        opened(USABLE)
