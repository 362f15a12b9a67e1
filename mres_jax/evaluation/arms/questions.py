"""One question of any task, and where its pictures come from."""

import dataclasses
from collections.abc import Callable, Sequence

from mres_jax.data.spec import ProcessorSpec
from mres_jax.geometry import Box, Size, View
from mres_jax.protocols import Answer, Item

Open = Callable[[ProcessorSpec | None], list[Item]]
Grade = Callable[[Answer], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """One question, its pictures still closed.

    Attributes:
      id: unique in its task.
      text: the question with its options, as it is asked.
      answers: that are right.
      metric: name of the rule of `grade`.
      grade: answer -> score, 0 to 1.
      open: gives pictures and clips; called when they are needed, with the model's processor, which
        samples clips.
      type: what it is counted under; may be empty.
      group: of questions that stand or fall together, such as those about one picture; the
        bootstrap draws groups.
      sizes: of its pictures, px.
      cell: area and ratio bin of its largest picture; None without one.
      text_height: of the capitals to be read, px of the picture; 0 where nobody says.
      box: what the answer stands in, px of the first picture; None where it has no place.
      made_of: of a picture's file, so that a change of it is seen.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    metric: str
    grade: Grade
    open: Open
    type: str = ""
    group: str = ""
    sizes: tuple[Size, ...] = ()
    cell: tuple[str, str] | None = None
    text_height: float = 0.0
    box: Box | None = None
    made_of: str = ""

    def facts(self) -> list:
        """What makes it this question: a change of any of it is another one."""
        sizes = [list(size) for size in self.sizes]
        return [self.id, self.text, list(self.answers), self.metric, sizes, self.made_of]

    def seen_height(self, views: Sequence[View]) -> float:
        """Height of the capitals to be read in the view that shows them, px; 0 if none does.

        Of several views that show all of its box (of any, where it has no box) the largest counts.
        """
        return max(
            (
                self.text_height * view.size.height / view.crop.size.height
                for view in views
                if self.text_height and _shows(view, self.box)
            ),
            default=0.0,
        )


def _shows(view: View, box: Box | None) -> bool:
    crop = view.crop
    return view.item == 0 and (
        box is None
        or (
            crop.top <= box.top
            and crop.left <= box.left
            and box.bottom <= crop.bottom
            and box.right <= crop.right
        )
    )
