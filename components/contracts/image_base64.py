"""Images as base64, as clients write them into JSON: one decoder, for the model server and for what reads its log."""

import base64
import string

_ALPHABET = frozenset(string.ascii_letters + string.digits + "+/")
_WHITE_SPACE = {ord(sign): None for sign in " \t\n\v\f\r"}


def from_base64(text: str) -> bytes:
    """Decodes an image, and takes what TensorFlow Serving takes.

    That is the standard alphabet with white space anywhere, and with its padding or none, in which a dot stands for an
    equals sign (absl::Base64Unescape, in abseil-cpp's absl/strings/escaping.cc).

    Raises:
        ValueError: When it is something else; the message names it where it is known.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # seldom: the way through is for those who write it otherwise
        compact = text.translate(_WHITE_SPACE)
    digits = compact.rstrip("=.")
    missing = -len(digits) % 4
    if missing < 3 and len(compact) - len(digits) in (0, missing):
        try:
            return base64.b64decode(digits + "=" * missing, validate=True)
        except ValueError:
            pass
    raise ValueError(_what_it_is(compact, digits))


def _what_it_is(compact: str, digits: str) -> str:
    if compact.lower().startswith("data:"):
        return "this is a data URL; send what follows its comma"
    if compact.startswith(("b'", 'b"')):
        return "this is how Python shows bytes; decode them to text before"
    wrong = next((sign for sign in digits if sign not in _ALPHABET), "")
    if wrong and wrong in "-_":
        return "this is the alphabet for URLs, with - and _; send the standard one, with + and /"
    if wrong:
        return f"{wrong!r} is no digit of it"
    return "it is cut off, or its padding is wrong"
