"""Removes a secret from text of others, such as the answer of a server that quotes the request."""

import base64
import html
import json
import math
import re
from collections.abc import Iterator
from itertools import groupby
from urllib.parse import quote

MASK = "***"
# Any part of the secret that is this long is removed: text can be cut in the middle of the secret.
_PART_LENGTH = 8


class Mask:
    """Replaces a secret by `***`, in upper and lower case, and also escaped, as hexadecimal or as base64."""

    def __init__(self, secret: str) -> None:
        parts = {part for form in _forms(secret) for part in _parts(form)}
        longest_first = sorted(parts, key=len, reverse=True)
        # A lookahead finds parts that overlap.
        self._part = re.compile(f"(?=({'|'.join(map(re.escape, longest_first))}))", re.IGNORECASE)

    def __call__(self, text: str) -> str:
        is_secret = bytearray(len(text))
        for match in self._part.finditer(text):
            start, end = match.span(1)
            is_secret[start:end] = b"\1" * (end - start)
        runs = groupby(zip(text, is_secret, strict=True), key=lambda pair: pair[1])
        return "".join(MASK if secret else "".join(letter for letter, _ in run) for secret, run in runs)


def _forms(secret: str) -> Iterator[str]:
    data = secret.encode()
    yield from (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    yield from (html.escape(secret), quote(secret, safe=""), data.hex())
    for shift in range(3):  # base64 depends on what stands before
        encoded = base64.b64encode(bytes(shift) + data).decode()
        own = encoded[math.ceil(shift * 8 / 6) : (shift + len(data)) * 8 // 6]
        yield from (own, own.translate(str.maketrans("+/", "-_")))


def _parts(form: str) -> Iterator[str]:
    for start in range(max(1, len(form) - _PART_LENGTH + 1)):
        if part := form[start : start + _PART_LENGTH]:
            yield part
