"""The pictures of a request -> pixels, within what the server takes upon itself."""

from collections.abc import Collection, Sequence

import numpy as np

from mres_jax.data.images import decode_image, read_size
from mres_jax.data.wire import is_data_url, read_data_url
from mres_jax.errors import MresError
from mres_jax.serving.errors import ApiError
from mres_jax.serving.fetch import fetch
from mres_jax.serving.limits import Limits, Place


def load_pictures(
    urls: Sequence[str], *, place: Place, limits: Limits, hosts: Collection[str] = ()
) -> list[np.ndarray]:
    """Returns upright pictures, `uint8 [h w 3]`; sizes are read off headers before any decoding.

    Args:
      urls: data URLs, or addresses on `hosts`.
      place: takes the pixels.
      limits: on count, bytes and pixels.
      hosts: that may be fetched from.

    Raises:
      ApiError: 400 names the picture that cannot be used, 429 where others fill the room.
    """
    if len(urls) > limits.max_pictures:
        message = f"messages: {len(urls)} pictures, at most {limits.max_pictures} are taken."
        raise ApiError(400, message, param="messages", code="too_many_pictures")
    try:
        files = [_read(url, i, limits, hosts) for i, url in enumerate(urls)]
        areas = [
            read_size(file, max_pixels=limits.max_pixels, name=str(i)).area
            for i, file in enumerate(files)
        ]
        if sum(areas) > limits.max_pixels:
            raise MresError(
                f"messages: {len(areas)} pictures of {sum(areas)} px together, at most "
                f"{limits.max_pixels} are taken. Send fewer or smaller ones."
            )
        place.take(sum(areas))
        return [decode_image(file, name=str(i)) for i, file in enumerate(files)]
    except MresError as error:
        raise ApiError(400, str(error), param="messages", code="invalid_image") from None


def _read(url: str, i: int, limits: Limits, hosts: Collection[str]) -> bytes:
    if is_data_url(url):
        return read_data_url(url, name=str(i))
    return fetch(url, hosts, max_bytes=limits.max_body_bytes, name=str(i))
