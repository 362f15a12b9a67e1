"""Places as models write them, where a task of a harness reads shares of the picture's sides."""

import dataclasses

import numpy as np
import pytest

from mres_jax.errors import ConfigError
from mres_jax.geometry import Box, Size, View
from mres_jax.harness.places import check_space, for_task, kind_for
from mres_jax.protocols import Answer
from mres_jax.testing import said

PICTURE = np.zeros((100, 200, 3), np.uint8)
WHOLE = View(item=0, crop=Box(0, 0, 100, 200), size=Size(56, 112))
RIGHT_HALF = View(item=0, crop=Box(0, 100, 100, 200), size=Size(56, 56))


def seen(text: str, *, frame="relative_1000", view=WHOLE) -> Answer:
    return said(text, views=[view], coord_frame=frame)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (seen("(250, 500)"), "point", "[0.250000, 0.500000]"),
        (seen("(28, 14)", frame="resized_px"), "point", "[0.250000, 0.250000]"),
        (seen("[0.3, 0.4]"), "point", "[0.300000, 0.400000]"),  # it did as the task asked
        (seen("[0.5, 0.5]", view=RIGHT_HALF), "point", "[0.750000, 0.500000]"),
        (seen("(500, 500)", view=RIGHT_HALF), "point", "[0.750000, 0.500000]"),
        (seen('{"bbox_2d": [100, 200, 300, 400]}'), "point", "[0.200000, 0.300000]"),
        (
            seen("<|box_start|>(100,200),(300,400)<|box_end|>"),
            "box",
            "[0.100000, 0.200000, 0.300000, 0.400000]",
        ),
        (seen("click (100, 200)"), "box", "click (100, 200)"),  # a point is no box
        (seen("in the menu"), "point", "in the menu"),
        (seen("(2000, 100)"), "point", "(2000, 100)"),  # outside: nothing is clipped
    ],
)
def test_the_first_place_is_written_as_the_task_reads_it(answer, kind, text):
    assert for_task(answer, [PICTURE], kind) == text


def test_answers_about_several_views_or_clips_stay_as_they_are():
    two = dataclasses.replace(seen("(250, 500)"), views=[WHOLE, WHOLE])
    moving = seen("(250, 500)", view=dataclasses.replace(WHOLE, frames=(0, 1), time=0.0))
    for answer in (two, moving):
        assert for_task(answer, [PICTURE], "point") == "(250, 500)"


def test_tasks_are_known_by_how_their_names_begin():
    kinds = {
        "screenspot_pro_local": "point",
        "screenspot_v2": "point",
        "screenspot_rec_test": "box",
    }
    kinds |= {"refcoco_bbox_rec_val": "box", "refcoco_bbox_val": None, "hrbench4k": None}
    assert {task: kind_for(task) for task in kinds} == kinds
    with pytest.raises(ConfigError, match="have task, model"):
        check_space("px")
