"""An RC-Bench set as a data set of TensorFlow Datasets; needs the extra `tfds`, no TensorFlow.

Reference:
  tensorflow-datasets 4.9.10, `GeneratorBasedBuilder`: with `file_format="array_record"` and with
  pictures as encoded files nothing of TensorFlow is needed, neither to write nor to read.
"""

import contextlib
import io
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from mres_jax.errors import MresError
from mres_jax.evaluation.rc_bench.cuts import AREAS, RATIOS
from mres_jax.evaluation.rc_bench.folders import RCSet, open_set

NAME, VERSION = "mres_rc_set", "1.0.0"


def write_tfds(folder: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes a set as `data_dir/mres_rc_set/NAME/1.0.0`, its one split `test`.

    Each item is a row `{id, image, question, answers, scorer, type, area_bin, ratio_bin, source}`;
    NAME is that of the folder. `tfds:mres_rc_set/NAME@data_dir` names its rows, and
    `tfds.builder_from_directory` opens it anywhere.

    Args:
      folder: of `mres rcbench make`.
      data_dir: where prepared data sets stand.

    Returns:
      The directory of the version.

    Raises:
      MresError: the package is missing; no set there, or a damaged one; it is written already.
    """
    rc_set = open_set(folder)
    name = _plain_name(rc_set.folder.absolute().name)
    directory = pathlib.Path(data_dir, NAME, name, VERSION)
    if directory.exists():
        raise MresError(f"set {folder}: {directory} is there already. Remove it to write it anew.")
    builder = _builder_class(rc_set, name)(
        config=name, data_dir=os.fspath(data_dir), file_format="array_record"
    )
    with contextlib.redirect_stdout(sys.stderr):  # it says what it does; stdout is for results
        builder.download_and_prepare()
    return directory


def _plain_name(name: str) -> str:
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower()).strip("_")
    return plain or "set"


def _builder_class(rc_set: RCSet, name: str) -> Any:
    """A builder of this set; a class, as the library wants it."""
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports], an extra
    except ImportError:
        raise MresError(
            f"set {rc_set.folder}: needs tensorflow-datasets. pip install 'mres-jax[tfds]'."
        ) from None
    text = tfds.features.Text

    class MresRcSet(tfds.core.GeneratorBasedBuilder):
        """Questions about pictures in the 35 cells of area and ratio."""

        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name)]  # noqa: RUF012, the library's way
        pkg_dir_path = pathlib.Path(__file__).parent

        def _info(self) -> Any:
            card = rc_set.card
            features = {
                "id": text(),
                "image": tfds.features.Image(shape=(None, None, None)),
                "question": text(),
                "answers": tfds.features.Sequence(text()),
                "scorer": text(),
                "type": text(),
                "area_bin": tfds.features.ClassLabel(names=list(AREAS)),
                "ratio_bin": tfds.features.ClassLabel(names=list(RATIOS)),
                "source": text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{card['num_items']} questions, {card['origin']}.",
                features=tfds.features.FeaturesDict(features),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"test": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
            for number in range(len(rc_set)):
                item, picture = rc_set[number]
                yield (
                    item.id,
                    {
                        "id": item.id,
                        "image": io.BytesIO(picture),
                        "question": item.question,
                        "answers": list(item.answers),
                        "scorer": item.metric,
                        "type": item.type,
                        "area_bin": item.area_bin,
                        "ratio_bin": item.ratio_bin,
                        "source": item.source,
                    },
                )

    return MresRcSet
