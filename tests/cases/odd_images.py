"""One file of each odd kind that people have in folders of images: odd_images.py FOLDER writes them.

What is in IMAGES is an image wherever images are taken; what is in REFUSED is refused everywhere, as what it is.
"""

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin


def picture(height: int = 40, width: int = 32, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 256, (height, width))
    return np.stack([(x * 7 + seed * 31) % 256, (y * 5 + seed * 17) % 256, noise], -1).astype(np.uint8)


def photograph(height: int = 480, width: int = 640) -> np.ndarray:
    """Smooth colour, as a phone takes it."""
    y, x = np.mgrid[0:height, 0:width]
    red = 128 + 90 * np.sin(x / 37) + 20 * np.sin(y / 3)
    return np.stack([red, 128 + 80 * np.cos(y / 29), 128 + 70 * np.sin((x + y) / 53)], -1).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *more: bytes, interlaced: bool = False) -> bytes:
    """A PNG as Pillow cannot write it: `raw` is the rows with their filters, `more` other chunks before the data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"".join([PNG, chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")])


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def rows(pixels: np.ndarray, dtype: str = ">u1") -> bytes:
    return b"".join(b"\0" + row.astype(dtype).tobytes() for row in pixels)


def _text(size: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * size, zip=True)
    return info


def exif(orientation: int, order: str = "<", kind: str = "H") -> bytes:
    """EXIF that says how the camera was held; `order` and `kind` are struct's, SHORT or LONG of either byte order."""
    start, code = (b"II*\0" if order == "<" else b"MM\0*"), {"H": 3, "I": 4}[kind]
    value = struct.pack(order + kind, orientation).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHHI", 1, 0x0112, code, 1)
    return start + struct.pack(f"{order}I", 8) + entry + value + bytes(4)


def segment(marker: int, content: bytes) -> bytes:
    """A part of a JPEG's head."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_exif(file: bytes, content: bytes) -> bytes:
    """The same PNG or JPEG, with EXIF."""
    if file.startswith(PNG):
        return file[:33] + chunk(b"eXIf", content) + file[33:]
    return file[:2] + segment(0xE1, b"Exif\0\0" + content) + file[2:]


PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR = Image.fromarray(picture())
_GREY = _COLOUR.convert("L")
_DEEP = np.random.default_rng(4).integers(0, 65536, (40, 32, 3))
_CMYK = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 32, 4), np.uint8), "CMYK")
_JPEG, _WHOLE_PNG = encoded(_COLOUR, "JPEG", quality=90), encoded(_COLOUR, "PNG")
_PHOTO = Image.fromarray(photograph())
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_CMYK_JPEG = encoded(_CMYK, "JPEG", quality=95)
_INDICES = np.random.default_rng(6).integers(0, 16, (40, 32))
_ANIMATION = {"save_all": True, "append_images": [Image.fromarray(picture(seed=1))]}

IMAGES = {
    "rgb.png": _WHOLE_PNG,
    "grey.png": encoded(_GREY, "PNG"),
    "bit1.png": encoded(_GREY.convert("1"), "PNG"),
    "bits2.png": png(32, 40, 2, 0, b"".join(b"\0" + bytes([27 * (y % 9)] * 8) for y in range(40))),
    "bits4.png": png(32, 40, 4, 0, b"".join(b"\0" + bytes([(y * 7) % 256] * 16) for y in range(40))),
    "rgba.png": encoded(Image.fromarray(np.dstack([picture(), picture(seed=2)[..., 2]])), "PNG"),
    "la.png": encoded(Image.merge("LA", (_GREY, _COLOUR.split()[2])), "PNG"),
    "palette.png": encoded(_COLOUR.quantize(64), "PNG"),
    "palette_transparent.png": encoded(_COLOUR.quantize(64), "PNG", transparency=3),
    "palette_short.png": png(32, 40, 8, 3, rows(_INDICES), chunk(b"PLTE", bytes(range(50, 74)))),
    "grey16.png": png(32, 40, 16, 0, rows(_DEEP[..., 0], ">u2")),
    "grey_alpha16.png": png(32, 40, 16, 4, rows(_DEEP[..., :2], ">u2")),
    "rgb16.png": png(32, 40, 16, 2, rows(_DEEP, ">u2")),
    "rgba16.png": png(32, 40, 16, 6, rows(np.dstack([_DEEP, _DEEP[..., :1]]), ">u2")),
    "interlaced.png": png(1, 1, 8, 2, b"\0\1\2\3", interlaced=True),
    "black_rows.png": encoded(Image.fromarray(np.vstack([picture(20), np.zeros((20, 32, 3), np.uint8)])), "PNG"),
    "black.png": encoded(Image.new("RGBA", (9, 9)), "PNG"),
    "grey_transparent.png": encoded(_GREY, "PNG", transparency=7),
    "rgb_transparent.png": encoded(_COLOUR, "PNG", transparency=(1, 2, 3)),
    "animated.png": encoded(_COLOUR, "PNG", duration=100, **_ANIMATION),
    "one_pixel.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "wide.png": encoded(Image.fromarray(picture(1, 3000)), "PNG"),
    "profile.png": encoded(_COLOUR, "PNG", icc_profile=b"\0" * 4000),
    "gamma.png": png(32, 40, 8, 2, rows(picture().reshape(40, -1)), chunk(b"gAMA", struct.pack(">I", 100_000))),
    "much_text.png": encoded(_COLOUR, "PNG", pnginfo=_text(3_000_000)),
    "bad_text_checksum.png": _WHOLE_PNG[:33] + chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0" + _WHOLE_PNG[33:],
    "bytes_after_its_end.png": _WHOLE_PNG + b"more" * 50,
    "jpeg_named.png": _JPEG,
    "rgb.jpg": _JPEG,
    "UPPER.JPG": encoded(_COLOUR, "JPEG"),
    "mixed.JpEg": encoded(_COLOUR, "JPEG"),
    "png_named.jpg": _WHOLE_PNG,
    "grey.jpg": encoded(_GREY, "JPEG"),
    "progressive.jpg": encoded(_COLOUR, "JPEG", progressive=True),
    "restarts.jpg": encoded(_COLOUR, "JPEG", restart_marker_blocks=1),
    "stored_as_rgb.jpg": encoded(_COLOUR, "JPEG", keep_rgb=True),
    "several_pictures.jpg": encoded(_COLOUR, "MPO", **_ANIMATION),
    "lying.jpg": with_exif(_JPEG, exif(6)),
    "lying.png": with_exif(_WHOLE_PNG, exif(8, ">", "I")),
    "broken_exif.jpg": with_exif(_JPEG, exif(6)[:17]),
    "broken_exif.png": with_exif(_WHOLE_PNG, b"II*\0\xff\xff\xff\xff"),
    "bytes_after_its_end.jpg": _JPEG + b"trailing" * 50,
    "photograph_q75_420.jpg": encoded(_PHOTO, "JPEG", quality=75, subsampling=2),
    "photograph_q90_422.jpg": encoded(_PHOTO, "JPEG", quality=90, subsampling=1),
    "photograph_q95_444.jpg": encoded(_PHOTO, "JPEG", quality=95, subsampling=0),
}

# TensorFlow reads these where the model has colour, and not where it is grey.
COLOUR_ONLY = {
    "cmyk.jpg": _CMYK_JPEG,
    "cmyk_of_adobe.jpg": _CMYK_JPEG[:2] + _ADOBE + _CMYK_JPEG[2:],
}

REFUSED = {
    "gif_named.png": (encoded(_COLOUR, "GIF"), "a GIF image"),
    "animated_gif_named.jpg": (encoded(_COLOUR, "GIF", **_ANIMATION), "a GIF image"),
    "bmp_named.png": (encoded(_COLOUR, "BMP"), "a BMP image"),
    "grey_bmp_named.jpg": (encoded(_GREY, "BMP"), "a BMP image"),
    "webp_named.jpg": (encoded(_COLOUR, "WEBP"), "a WebP image"),
    "tiff_named.jpg": (encoded(_COLOUR, "TIFF"), "a TIFF image"),
    "avif_named.jpg": (encoded(_COLOUR, "AVIF"), "an AVIF image"),
    "jpeg2000_named.jpg": (encoded(_COLOUR, "JPEG2000"), "a JPEG 2000 image"),
    "icon_named.png": (encoded(_COLOUR, "ICO"), "an icon"),
    "heic_named.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
    "jpegxl_named.png": (b"\xff\x0a" + b"\0" * 20, "a JPEG XL image"),
    "svg_named.png": (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "an SVG drawing"),
    "pdf_named.jpg": (b"%PDF-1.7\n", "a PDF"),
    "truncated.jpg": (_JPEG[: len(_JPEG) * 2 // 3], "a damaged JPEG, or one that was not copied to its end"),
    "without_its_end.jpg": (_JPEG[:-2], "a damaged JPEG"),
    "start_alone.jpg": (_JPEG[:3], "a damaged JPEG"),
    "truncated.png": (_WHOLE_PNG[: len(_WHOLE_PNG) * 2 // 3], "a damaged PNG, or one that was not copied to its end"),
    "without_its_end.png": (_WHOLE_PNG[:-12], "a damaged PNG"),
    "bad_checksum.png": (_WHOLE_PNG[:-20] + b"\1\2\3\4" + _WHOLE_PNG[-16:], "a damaged PNG"),
    "data_without_end.png": (
        _WHOLE_PNG[:33] + chunk(b"IDAT", zlib.compress(rows(picture().reshape(40, -1)))[:-4]) + _WHOLE_PNG[-12:],
        "a damaged PNG",
    ),
    "broken_inside.jpg": (_JPEG[:900] + b"\xff\xe1\xff\xff" + _JPEG[900:], "a damaged JPEG"),
    "rows_missing.png": (png(32, 80, 8, 2, rows(picture().reshape(40, -1))), "a damaged PNG"),
    "without_palette.png": (png(32, 40, 8, 3, rows(_INDICES)), "a damaged PNG"),
    "start_alone.png": (PNG, "a damaged PNG"),
    "bytes_before.jpg": (b"\r\n" + _JPEG, "neither PNG nor JPEG"),
    "empty.jpg": (b"", "empty"),
    "page_named.jpg": (b"<html>403 Forbidden</html>\n", "a web page"),
    "lfs_named.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a pointer of Git LFS"),
    "of_macos.jpg": (b"\0\5\x16\7" + b"\0" * 200, "what macOS keeps beside a file"),
}


def _without_last_scans(file: bytes, kept: int) -> bytes:
    """A progressive JPEG as it is after so many scans, with an end: as a server that hands on parts writes it."""
    scans = [at for at in range(len(file)) if file[at : at + 2] == b"\xff\xda"]
    return file[: scans[kept]] + b"\xff\xd9"


# TensorFlow makes pixels of these, and others make other ones; so ingest and the server refuse them.
UNFINISHED = {
    f"{kept}_scans.jpg": _without_last_scans(encoded(_COLOUR, "JPEG", progressive=True), kept) for kept in (1, 2, 5, 8)
}


def write(folder: Path) -> dict[str, Path]:
    """Writes them all, and returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {**IMAGES, **COLOUR_ONLY, **UNFINISHED, **{name: content for name, (content, _) in REFUSED.items()}}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


if __name__ == "__main__":
    for name, path in write(Path(sys.argv[1])).items():
        print(f"{path.stat().st_size:9d} {name}")
