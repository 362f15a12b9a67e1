"""All words: keys, values, questions, answers. A small tokenizer is built from these lists."""

import random
import re

from mres_jax.data.documents import grounds, shapes

KINDS = ("invoice", "table", "sign", "screen")
# I and O are left out of the letters: beside 1 and 0 they would be a riddle, not a reading test.
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
CHARSET = "0123456789" + LETTERS + ".-/:"
LABEL_CHARSET = CHARSET + "abcdefghijklmnopqrstuvwxyzIO"  # values first, then what keys add

VALUE_FORMATS: dict[str, tuple[str, ...]] = {  # 9 digit, 8 digit from 1 up, A letter, rest itself
    "total": ("899.99", "8999.99", "8999", "89.99"),
    "tax": ("89.99", "899.99", "8.99"),
    "date": ("D/M/99", "D-M-99"),
    "number": ("8999", "89999", "899999", "A-8999"),
    "order": ("A9999", "AA999", "99-999", "89999"),
    "account": ("899999", "99-9999", "8999999"),
    "balance": ("899.99", "89.99", "8999"),
    "unit price": ("8.99", "89.99", "899"),
    "code": ("A99", "AA99", "A9A9", "AAA", "AA9999"),
    "stock": ("899", "8999", "89999"),
    "weight": ("89.9", "899", "8.99"),
    "batch": ("A999", "A9-99", "99A9", "AA-999"),
    "size": ("899", "89/99", "A-89", "8/99"),
    "gate": ("A89", "A9A", "AA9"),
    "flight": ("899", "AA899", "AA8999"),
    "room": ("899", "8999", "A899", "8.99"),
    "platform": ("89A", "A89", "899"),
    "bus": ("899", "A89", "89-A"),
    "floor": ("A89", "899", "8-A9"),
    "seat": ("89A", "89-A", "A-89"),
    "user": ("AA99", "A9999", "AAAA", "AA-99"),
    "speed": ("899", "89.9", "8999"),
    "version": ("8.9.9", "8.99", "8.99.9"),
    "time": ("H:59", "H:59:59"),
}
KEYS = tuple(VALUE_FORMATS)  # key ids of `patch_labels` are 1 + the index here
KEYS_OF_KIND: dict[str, tuple[str, ...]] = {  # every key in two kinds, so all are as common
    "invoice": (
        *("total", "tax", "date", "number", "order", "account", "balance", "unit price"),
        *("weight", "code", "time", "user"),
    ),
    "table": (
        *("platform", "stock", "weight", "batch", "size", "unit price", "order", "number"),
        *("speed", "version", "tax", "balance"),
    ),
    "sign": (
        *("gate", "flight", "room", "platform", "bus", "floor", "seat", "time"),
        *("stock", "size", "date", "code"),
    ),
    "screen": (
        *("user", "speed", "version", "account", "batch", "room", "floor", "bus"),
        *("flight", "gate", "seat", "total"),
    ),
}
BARE_FORMATS = ("9", "99", "A", "A9", "9A", "999", "A99", "99A", "AA9", "AAA", "9999", "A9999")

RC_TEMPLATES = ("What is the {key}?", "Read the {key}.", "What does the {key} say?")
BARE_TEMPLATES = ("What is written?", "Read the text.", "What does it say?")
POINT_TEMPLATES = ("Point to the {key}.", "Where is the {key}?")
BOX_TEMPLATES = ("Draw a box around the {key}.",)
SC_TEMPLATES: dict[str, tuple[str, ...]] = {
    "colour": ("What colour is the background?", "Name the colour of the background."),
    "ground": ("What is the background like?", "Describe the background."),
    "logo": ("What shape is the logo?", "Name the shape of the logo."),
    "logo side": ("On which side is the logo?", "Which side is the logo on?"),
    "logo colour": ("What colour is the logo?", "Name the colour of the logo."),
    "columns": ("How many columns are there?", "Count the columns."),
    "kind": ("What kind of picture is this?", "Name the kind of picture."),
}
SC_ANSWERS: dict[str, tuple[str, ...]] = {
    "colour": tuple(grounds.COLOURS),
    "ground": ("plain", "striped", "checked", "photo"),
    "logo": shapes.SHAPES,
    "logo side": ("left", "right", "top", "bottom"),
    "logo colour": tuple(grounds.COLOURS),
    "columns": ("one", "two"),
    "kind": KINDS,
}


def words_of(text: str) -> list[str]:
    """Splits question or answer text into the words and marks of `VOCABULARY`.

    Example:
      >>> words_of("What is the unit price?")
      ['What', 'is', 'the', 'unit', 'price', '?']
    """
    return re.findall(r"[A-Za-z]+|[?.,\[\]]", text)


def _vocabulary() -> tuple[str, ...]:
    templates = (*RC_TEMPLATES, *BARE_TEMPLATES, *POINT_TEMPLATES, *BOX_TEMPLATES)
    texts = [t.replace("{key}", "") for t in templates]
    texts += [t for group in SC_TEMPLATES.values() for t in group]
    texts += [*KEYS, *(answer for group in SC_ANSWERS.values() for answer in group)]
    texts.append("[,]")  # around the digits of a box
    return tuple(sorted({word for text in texts for word in words_of(text)}))


VOCABULARY = _vocabulary()


def draw_value(rng: random.Random, formats: tuple[str, ...], max_chars: int, flat: bool) -> str:
    """Draws a value of at most `max_chars` characters; shorter formats are cut to fit.

    Args:
      flat: leaves out J, Q and /, which reach below the line in some fonts.
    """
    fitting = [f for f in formats if len(_expand(f)) <= max_chars]
    if flat:
        fitting = [f for f in fitting if "/" not in f]
    letters = LETTERS.replace("J", "").replace("Q", "") if flat else LETTERS
    template = rng.choice(fitting) if fitting else "89999999"[:max_chars]
    return "".join(_draw_character(rng, c, letters) for c in template)


def _expand(template: str) -> str:
    return template.replace("D", "99").replace("M", "99").replace("H", "99")


def _draw_character(rng: random.Random, mark: str, letters: str) -> str:
    if mark == "9":
        return str(rng.randrange(10))
    if mark == "8":
        return str(rng.randrange(1, 10))
    if mark == "5":
        return str(rng.randrange(6))
    if mark == "A":
        return rng.choice(letters)
    if mark in "DMH":
        low, high = {"D": (1, 28), "M": (1, 12), "H": (0, 23)}[mark]
        return f"{rng.randint(low, high):02d}"
    return mark
