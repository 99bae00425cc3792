"""Which files are images: the one list, for ingest, the exported model and the model server; and what others are.

Two formats are images, PNG and JPEG, whatever a file's ending says. TensorFlow's decoders in a graph, the server's
without TensorFlow, and every browser have these two, and the tests hold the decoders to each other bit for bit. A
format that only some of them have would be trained and then refused, or served and never trained.
"""

import re

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
# What a file of these formats is usually called. The content decides: a PNG that ends in .jpg is read.
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")

# How other files begin that are found where images are expected; `.` is any byte.
_OTHERS = (
    (rb"GIF8[79]a", "a GIF image"),
    (rb"BM", "a BMP image"),
    (rb"RIFF....WEBP", "a WebP image"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF image, or a camera's raw file"),
    (rb"....ftypavi[fs]", "an AVIF image"),
    (rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC image"),
    (rb"....ftyp", "a video"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL image"),
    (rb"\0\0[\x01\x02]\0", "an icon"),
    (rb"8BPS", "a Photoshop file"),
    (rb"P[1-7]\s", "a Netpbm image"),
    (rb"%PDF", "a PDF"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive"),
    (rb"\0\x05\x16\x07", "what macOS keeps beside a file on other disks"),
    (rb"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the image)"),
    (rb"(?i:\s*<(\?xml[^>]*>\s*<)?(!doctype svg|svg))", "an SVG drawing"),
    (rb"(?i:\s*<(!doctype|html))", "a web page"),
)
_CONVERTIBLE = re.compile(r"image|raw|Photoshop|icon|drawing")


def is_image(content: bytes) -> bool:
    """Whether a file begins as an image does; it may still be damaged."""
    return content.startswith((PNG_START, JPEG_START))


def what_it_is(content: bytes) -> str:
    """What a file is that could not be decoded: words that follow "it is".

    Args:
        content: Of the file; its first 64 bytes are enough.
    """
    if not content:
        return "empty"
    if content.startswith(PNG_START):
        return "a damaged PNG, or one that was not copied to its end"
    if content.startswith(JPEG_START):
        return "a damaged JPEG, or one that was not copied to its end"
    for start, name in _OTHERS:
        if re.match(start, content[:64], re.DOTALL):
            return name
    return f"neither PNG nor JPEG (it begins with {content[:12]!r})"


def remedy(content: bytes) -> str:
    """What to do about a file that could not be decoded."""
    convertible = not is_image(content) and _CONVERTIBLE.search(what_it_is(content))
    return "convert it to PNG or JPEG, or remove it" if convertible else "replace or remove it"
