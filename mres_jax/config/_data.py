"""What a run can be trained on. Units are in the comments."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from mres_jax.config._checks import check_weights, require
from mres_jax.config._values import did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents:
    """Generated documents, new ones in every epoch; weights need not sum to 1."""

    examples: int = 4_096  # conversations of an epoch
    kinds: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"invoice": 1.0, "table": 1.0, "sign": 1.0, "screen": 1.0}
    )  # of document -> weight; `page` too
    questions: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"rc": 0.75, "sc": 0.25}
    )  # to read, to see, or `point`, where something is -> weight
    images_per_prompt: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"1": 1.0}
    )  # -> weight
    area_bins: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys("ABCDEFG", 1.0)
    )  # of the unit 128**2 px, as in RC-Bench
    cap_heights: tuple[int, int] = (8, 16)  # px of a capital, lowest and highest; shrinks to fit
    pairs_per_page: int = 16  # most key-value pairs of a picture of kind `page`
    questions_per_image: int = 4  # turns of one conversation that share their picture
    hard_share: float = 0.0  # of the documents: capitals of 8 and 9 px, never on a plain ground
    min_text_height: float = 0.0  # px of a capital as the model sees it; smaller text is not asked
    min_name_height: float = 0.0  # likewise of the names of values that are to be pointed at
    place_step: int = 1  # thousandths that answers to `point` tell apart; above 1 no box is asked
    policies: Mapping[str, float] | None = None  # in place of the run's -> weight
    clip_frames: Mapping[str, float] | None = None  # frames -> weight: clips of which a part tells

    def __post_init__(self):
        for name in ("kinds", "questions", "images_per_prompt", "area_bins"):
            check_weights("Documents", name, getattr(self, name))
        for name in ("policies", "clip_frames"):
            if getattr(self, name) is not None:
                check_weights("Documents", name, getattr(self, name))
        for name in ("images_per_prompt", "clip_frames"):
            for key in getattr(self, name) or {}:
                is_count = key.isdigit() and int(key) >= 1
                require(is_count, "Documents", f"{name}: {key!r} is no number from 1 on.")
        for name, known in _KNOWN.items():
            for key in getattr(self, name):
                have = f"{did_you_mean(key, known)} Have {', '.join(known)}."
                require(key in known, "Documents", f"{name}: unknown {key!r}.{have}")
        for name in ("examples", "questions_per_image", "pairs_per_page", "place_step"):
            value = getattr(self, name)
            require(value >= 1, "Documents", f"{name}={value} must be at least 1.")
        ok = len(self.cap_heights) == 2 and 8 <= self.cap_heights[0] <= self.cap_heights[1]
        wanted = "must be the lowest and the highest, px, from 8 on."
        require(ok, "Documents", f"cap_heights={list(self.cap_heights)} {wanted}")
        ok = 0 <= self.hard_share <= 1
        require(ok, "Documents", f"hard_share={self.hard_share} must be in [0, 1].")
        for name in ("min_text_height", "min_name_height"):
            value = getattr(self, name)
            require(value >= 0, "Documents", f"{name}={value} must be at least 0.")


_MOST_FPS = 1_000.0
_KNOWN = {
    "kinds": ("page", "invoice", "table", "sign", "screen", "desktop", "scene"),
    "questions": ("rc", "sc", "point"),
    "area_bins": tuple("ABCDEFG"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Conversations in a file, LLaVA JSON or JSONL, with a folder of pictures and clips; or shards
    of `mres data prepare`, which hold these themselves."""

    path: str  # .json or .jsonl, a directory of `mres data prepare`, or `tfds:NAME@DIRECTORY`
    images: str = ""  # folder that the paths of a file's rows start from; empty: the file's own
    weight: float = 1.0  # times that an epoch has each row; a fraction draws one or more anew
    held_out: int = 0  # rows kept from training, for `Run.evaluate`: the same for all seeds
    template: Literal["chat", "plain"] = "chat"  # plain: pictures, caption, line break
    on_bad: Literal["skip", "raise"] = "skip"  # rows that cannot be read are counted and named
    fps: float | None = None  # frames per second of video files; None: as the model takes them
    max_frames: int | None = None  # of a clip; None: as the model takes them

    def __post_init__(self):
        require(bool(self.path), "Rows", "path is empty; name a file of rows or a directory.")
        ok = math.isfinite(self.weight) and self.weight > 0
        require(ok, "Rows", f"weight={self.weight} must be finite and above 0.")
        require(self.held_out >= 0, "Rows", f"held_out={self.held_out} must be at least 0.")
        ok = self.fps is None or 0 < self.fps <= _MOST_FPS
        require(ok, "Rows", f"fps={self.fps} must be above 0, and {_MOST_FPS:.0f} at most.")
        ok = self.max_frames is None or self.max_frames >= 2
        require(ok, "Rows", f"max_frames={self.max_frames} must be at least 2.")
        for name, known in (("template", ("chat", "plain")), ("on_bad", ("skip", "raise"))):
            value = getattr(self, name)
            require(value in known, "Rows", f"{name}={value!r}; have {', '.join(known)}.")
