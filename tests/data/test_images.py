"""Every kind of file becomes the pixels that a person would see, or one `BadImageError`."""

import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageFile, ImageOps

from mres_jax.data import images
from mres_jax.data.images import decode_image, decode_pillow, read_header, read_size
from mres_jax.errors import BadImageError
from mres_jax.geometry import Size

ORIENTATION = 0x0112
WHITE, INK = [255, 255, 255], (10, 20, 30)


def picture(height=6, width=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image, kind="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, content):
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(height, width, samples=b"", *, depth=8, colour=2, before=b"", behind=b""):
    """A PNG with all its chunks in our hands; `samples` without the filter byte of each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    step = len(samples) // height if height else 0
    rows = b"".join(b"\0" + samples[i * step : (i + 1) * step] for i in range(height * bool(step)))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    end = behind + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + end


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


# What a person would see


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_files_keep_every_pixel(kind, tmp_path):
    image, path = picture(), tmp_path / "a.picture"
    path.write_bytes(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode_image(source), image)
        assert read_size(source) == Size(6, 10)


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_lossy_files_have_the_pixels_that_pillow_gives(kind):
    content = encode(picture(), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(content), expected)


def test_a_file_is_what_it_holds_whatever_it_is_called(tmp_path):
    path = tmp_path / "scan.jpg"
    path.write_bytes(encode(picture(), "PNG"))
    np.testing.assert_array_equal(decode_image(path), picture())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_made_upright(kind, orientation):
    content = encode(picture(), kind, exif=exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    image = decode_image(content)
    np.testing.assert_array_equal(image, np.asarray(expected))
    assert read_size(content) == image.shape[:2]
    assert image.shape[:2] == ((6, 10) if orientation < 5 else (10, 6))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_pixels_left_in_pillow_are_those_of_the_array(mode, orientation):
    grey16 = Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10) * 1_000)
    image = grey16 if mode == "I;16" else Image.fromarray(picture()).convert(mode)
    content = encode(image, "JPEG" if mode == "CMYK" else "PNG", exif=exif(orientation))
    pillow = decode_pillow(content, background=INK)
    assert pillow.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(pillow), decode_image(content, background=INK))


def test_orientation_6_turns_the_first_row_into_the_last_column():
    image = decode_image(encode(picture(), exif=exif(6)))
    np.testing.assert_array_equal(image[:, -1], picture()[0])


@pytest.mark.parametrize("orientation", [0, 9, 1000, 65_535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    content = encode(picture(), exif=exif(orientation))
    np.testing.assert_array_equal(decode_image(content), picture())
    assert read_size(content) == Size(6, 10)


@pytest.mark.parametrize(
    "metadata", [b"", b"II*\0\xff\xff\xff\xff", b"nonsense", exif(6).tobytes()[:9]]
)
def test_unreadable_metadata_does_not_spoil_a_picture(metadata):
    content = png(6, 10, picture().tobytes(), before=chunk(b"eXIf", metadata))
    np.testing.assert_array_equal(decode_image(content), picture())
    assert read_size(content) == Size(6, 10)


def test_an_orientation_behind_the_pixels_is_seen_by_both_readers():
    text = chunk(b"tEXt", b"date\0" + bytes(100))
    behind = text + chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))
    content = png(6, 10, picture().tobytes(), behind=behind)
    assert read_size(content) == Size(10, 6)
    np.testing.assert_array_equal(decode_image(content), np.rot90(picture(), -1))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_hidden_colour_is_not_seen(kind):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = encode(Image.new("RGBA", (2, 1), (255, 0, 0, 0)), kind, **options)
    assert decode_image(content).tolist() == [[WHITE, WHITE]]
    assert decode_image(content, background=INK).tolist() == [[list(INK)] * 2]


def test_half_transparent_pixels_are_mixed_with_the_background():
    content = encode(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))
    assert decode_image(content).tolist() == [[[255, 127, 127]]]


KEY = {"height": 1, "width": 3}
PALETTE = chunk(b"PLTE", bytes(range(9)))
DEEP = struct.pack(">9H", 40000, 0, 65535, 255, 256, 257, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encode(Image.new("LA", (1, 1), (0, 0))), [[10, 20, 30]]),
        (
            png(**KEY, samples=b"\0\1\2", colour=3, before=PALETTE + chunk(b"tRNS", b"\0\xff")),
            [[10, 20, 30], [3, 4, 5], [6, 7, 8]],
        ),
        (
            png(**KEY, samples=b"\7\6\7", colour=0, before=chunk(b"tRNS", b"\0\7")),
            [[10, 20, 30], [6, 6, 6], [10, 20, 30]],
        ),
        (
            png(**KEY, samples=b"\xa0", depth=1, colour=0, before=chunk(b"tRNS", b"\0\1")),
            [[10, 20, 30], [0, 0, 0], [10, 20, 30]],
        ),
        (
            png(**KEY, samples=b"\x24", depth=2, colour=0, before=chunk(b"tRNS", b"\0\1")),
            [[0, 0, 0], [170, 170, 170], [10, 20, 30]],
        ),
        (
            png(**KEY, samples=b"\x12\x30", depth=4, colour=0, before=chunk(b"tRNS", b"\0\2")),
            [[17, 17, 17], [10, 20, 30], [51, 51, 51]],
        ),
        (
            png(**KEY, samples=DEEP[:6], depth=16, colour=0, before=chunk(b"tRNS", DEEP[:2])),
            [[10, 20, 30], [0, 0, 0], [255, 255, 255]],
        ),
        (
            png(**KEY, samples=DEEP, depth=16, before=chunk(b"tRNS", DEEP[:6])),
            [[10, 20, 30], [0, 1, 1], [0, 0, 0]],
        ),
        (encode(Image.new("P", (1, 1)), "GIF", transparency=0), [[10, 20, 30]]),
    ],
    ids=["LA", "P", "L", "1-bit", "2-bit", "4-bit", "16-bit grey", "16-bit colour", "GIF"],
)
def test_transparency_shows_the_background_in_every_mode(content, expected):
    assert decode_image(content, background=INK).tolist() == [expected]


@pytest.mark.parametrize("orientation", [1, 6])
def test_16_bit_grey_keeps_its_upper_byte_and_does_not_saturate(orientation):
    samples = np.array([[0, 255, 256, 40000], [65535, 257, 300, 32768]], np.uint16)
    content = encode(Image.fromarray(samples), exif=exif(orientation))
    expected = np.repeat((samples >> 8).astype(np.uint8)[..., None], 3, axis=2)
    expected = np.rot90(expected, -1) if orientation == 6 else expected
    np.testing.assert_array_equal(decode_image(content), expected)


def test_8_bit_pictures_stored_in_16_bits_keep_every_pixel():
    grey = picture()[..., 0]
    deep = decode_image(encode(Image.fromarray(grey.astype(np.uint16) * 257)))
    np.testing.assert_array_equal(deep, decode_image(encode(grey)))
    colour = (picture().astype(">u2") * 257).tobytes()
    np.testing.assert_array_equal(decode_image(png(6, 10, colour, depth=16)), picture())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), [255, 0, 0]),
        (encode(Image.new("1", (8, 8), 1)), [255, 255, 255]),
        (encode(Image.new("L", (8, 8), 77)), [77, 77, 77]),
        (encode(Image.new("P", (8, 8), 0), "BMP"), [0, 0, 0]),
    ],
    ids=["CMYK", "1-bit", "grey", "palette"],
)
def test_other_modes_become_rgb(content, expected):
    image = decode_image(content)
    assert (image == expected).all()
    assert image.dtype == np.uint8


@pytest.mark.parametrize("size", [(1, 1), (1, 201), (201, 1), (3, 3), (3, 22)])
def test_tiny_pictures_and_strips_are_pictures(size):
    np.testing.assert_array_equal(decode_image(encode(picture(*size))), picture(*size))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken_with_a_warning(kind, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    path = tmp_path / "moving.bin"
    path.write_bytes(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    with pytest.warns(UserWarning, match=re.escape(f"picture {path}: it is animated")) as caught:
        assert (decode_image(path) == 255).all()
    assert len(caught) == 1


def test_a_photograph_with_a_preview_behind_it_is_no_animation():
    photograph, preview = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (4, 4))
    content = encode(photograph, "MPO", save_all=True, append_images=[preview])
    assert decode_image(content).shape == (8, 8, 3)
    assert read_header(content) == (Size(8, 8), "JPEG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "GIF"])
def test_a_header_tells_the_kind_by_content(kind, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(picture(), kind.upper()))
    assert read_header(tmp_path / "a.jpg") == (Size(6, 10), kind)


def test_decoded_pixels_are_read_only():
    for orientation in (1, 6):
        assert not decode_image(encode(picture(), exif=exif(orientation))).flags.writeable


# What is refused

BOMB = b"a\0\0" + zlib.compress(bytes(100_000_000), 9)
ONLY = "only JPEG, PNG, WebP, BMP, GIF are read. Convert it first."
REFUSED = {
    "HTML": (b"<!DOCTYPE html>\n<html><body>404</body></html>", f"it is HTML; {ONLY}"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="x">', f"it is SVG; {ONLY}"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", f"it is EPS; {ONLY}"),
    "PSD": (b"8BPS\0\1" + bytes(40), f"it is PSD; {ONLY}"),
    "FITS": (b"SIMPLE  =                    T" + bytes(80), f"it is FITS; {ONLY}"),
    "JPEG 2000": (encode(picture(), "JPEG2000"), f"it is JPEG 2000; {ONLY}"),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(20), f"it is HEIF or AVIF; {ONLY}"),
    "MP4": (b"\0\0\0\x20ftypisom" + bytes(20), f"it is MP4 or MOV; {ONLY}"),
    "TIFF": (encode(picture(), "TIFF"), f"it is TIFF; {ONLY}"),
    "TIFF of I": (encode(Image.new("I", (4, 4), 70_000), "TIFF"), f"it is TIFF; {ONLY}"),
    "TIFF of F": (encode(Image.new("F", (4, 4), 0.5), "TIFF"), f"it is TIFF; {ONLY}"),
    "ICO": (encode(picture(64, 48), "ICO"), f"it is ICO; {ONLY}"),
    "text": (b"no picture at all", f"its contents are no known picture; {ONLY}"),
    "50000 x 50000": (
        png(50_000, 50_000),
        "50000 x 50000 = 2500000000 px, more than max_pixels=64000000. Make it smaller, or raise "
        "max_pixels.",
    ),
    "9000 x 9000": (
        png(9_000, 9_000, depth=1, colour=0),
        "9000 x 9000 = 81000000 px, more than max_pixels=64000000. Make it smaller, or raise "
        "max_pixels.",
    ),
    "zTXt bomb": (
        png(1, 1, b"abc", before=chunk(b"zTXt", BOMB)),
        "damaged or truncated (Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK).",
    ),
    "zero side": (png(0, 5), "damaged or truncated (not identified by this driver)."),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_must_not_be_decoded_are_refused_by_name_and_reason(kind, tmp_path):
    content, reason = REFUSED[kind]
    path = tmp_path / "invoice.png"
    path.write_bytes(content)
    for read in (decode_image, read_size):
        with pytest.raises(BadImageError, match=f"^{re.escape(f'picture {path}: {reason}')}$"):
            read(path)
        with pytest.raises(BadImageError, match=re.escape(f"picture 2 of request 7: {reason}")):
            read(content, name="2 of request 7")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.97])
def test_truncated_files_are_refused(kind, kept):
    content = encode(picture(40, 40), kind)
    with pytest.raises(BadImageError, match=r"^picture of \d+ bytes: damaged or truncated \(.+\)"):
        decode_image(content[: int(len(content) * kept)])


@pytest.mark.parametrize("where", ["header", "pixels"])
def test_a_png_with_a_flipped_bit_is_refused(where):
    content = bytearray(encode(picture(40, 40)))
    content[20 if where == "header" else len(content) // 2] ^= 1
    with pytest.raises(BadImageError, match="damaged or truncated"):
        decode_image(bytes(content))


def test_what_is_not_a_file_is_refused_by_name(tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source, reason in (
        (tmp_path / "absent.png", "no such file or directory."),
        (tmp_path, "it is a directory. Give a file in it."),
        (empty, "the file is empty."),
        (pipe, "it is not a regular file."),
        ("a\0b.png", "damaged or truncated (embedded null byte)."),
        ("https://example.org/a.png", "it is a URL, but pictures are read from files. Download"),
        ("file:///etc/passwd", "it is a URL, but pictures are read from files. Download it first."),
        ("data:image/png;base64,iVBO", "it is a URL, but pictures are read from files."),
        (b"", "it has no bytes."),
    ):
        with pytest.raises(BadImageError, match=r"picture .*: " + re.escape(reason)) as caught:
            decode_image(source)
        assert "\n" not in str(caught.value)


def test_a_name_with_line_breaks_stays_on_one_line():
    with pytest.raises(BadImageError, match=r"^picture a\?b\?\[31m: no such file or directory\.$"):
        decode_image("a\nb\x1b[31m")


def test_what_is_neither_path_nor_bytes_is_refused():
    """In a process of its own, where no test harness checks the annotations first."""
    code = (
        "from mres_jax.data.images import *\n"
        "for source in (None, [], 3.5):\n"
        "    try: decode_image(source)\n"
        "    except BadImageError as error: print(error)\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"picture given: a picture is a path or bytes, got {kind}."
        for kind in ("NoneType", "list", "float")
    ]


def test_memory_addresses_in_a_parsers_complaint_are_left_out(monkeypatch):
    def parser(stream):
        raise SyntaxError(f"cannot identify {object()!r}\nat 0x7f00deadbeef")

    monkeypatch.setitem(images._PLUGINS, "PNG", parser)
    message = "picture x: damaged or truncated (cannot identify at)."
    with pytest.raises(BadImageError, match=f"^{re.escape(message)}$"):
        decode_image(encode(picture()), name="x")


def test_the_pixel_cap_is_exact_and_can_be_raised_above_pillows_own(monkeypatch):
    content = encode(picture(6, 10))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow refuses from 41 px on
    assert decode_image(content, max_pixels=60).shape == (6, 10, 3)
    for read in (decode_image, read_size):
        with pytest.raises(BadImageError, match="10 x 6 = 60 px, more than max_pixels=59"):
            read(content, max_pixels=59)


def test_the_size_is_read_without_the_pixels():
    content = encode(picture(300, 200))
    assert read_size(content[:200]) == Size(300, 200)


SEEDS = [
    encode(picture(20, 20), kind, exif=exif(6)) if kind != "GIF" else encode(picture(20, 20), kind)
    for kind in ("JPEG", "PNG", "WEBP", "GIF")
] + [encode(picture(20, 20), "BMP"), encode(Image.new("LA", (9, 9)))]


@settings(max_examples=600)
@given(st.sampled_from(SEEDS), st.data())
def test_hostile_bytes_become_pixels_or_one_bad_image_error(content, data):
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(1, len(content)))])
    for read in (decode_image, read_size):
        refusal = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(content, max_pixels=1_000_000)
        except BadImageError as error:
            refusal = error
        if refusal:
            assert not re.search("0x|\n", str(refusal))
            assert refusal.__suppress_context__  # nor does a traceback show Pillow's own text


def test_pillows_settings_are_left_alone():
    def settings_of_pillow():
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    before = settings_of_pillow()
    decode_image(encode(picture()))
    with pytest.raises(BadImageError):
        decode_image(png(50_000, 50_000))
    assert settings_of_pillow() == before
