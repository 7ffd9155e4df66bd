from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from xaikit.images.decoding import BadImage, decode, decode_path, image_suffixes

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
CORNERS = np.array([[RED, GREEN], [BLUE, GREY]], dtype=np.uint8)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(io.BytesIO(data), "x")
    assert image.mode == "RGB"
    return np.asarray(image)


def noise(height: int = 40, width: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def with_exif(image: Image.Image, orientation: int) -> Image.Exif:
    exif = image.getexif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_rgb_files_keep_their_pixels(format):
    image = noise()
    np.testing.assert_array_equal(pixels(encoded(image, format)), np.asarray(image))


def test_jpeg_equals_pil():
    data = encoded(noise(), "JPEG")
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


def test_webp_and_one_pixel():
    assert pixels(encoded(noise(), "WEBP", lossless=True)).shape == (40, 60, 3)
    assert pixels(encoded(Image.new("RGB", (1, 1), RED), "PNG")).tolist() == [[list(RED)]]


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(encoded(image, "JPEG")).astype(int) - RED).max() < 8


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_becomes_rgb(mode):
    image = Image.new(mode, (3, 2), 255)
    assert pixels(encoded(image, "PNG")).tolist() == [[[255] * 3] * 3] * 2


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    got = pixels(encoded(image.convert(mode), "PNG"))
    assert got[0, :, 0].tolist() == [255, 0, 204]


def test_palette_with_transparent_entry():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image, "PNG")).tolist() == [[list(RED), list(BLUE)]]
    assert pixels(encoded(image, "PNG", transparency=0)).tolist() == [[[255] * 3, list(BLUE)]]
    both = encoded(image, "PNG", transparency=bytes([0, 255]))
    assert pixels(both).tolist() == [[[255] * 3, list(BLUE)]]


def test_colour_key_of_an_rgb_png():
    image = Image.fromarray(CORNERS)
    got = pixels(encoded(image, "PNG", transparency=RED))
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[1, 0].tolist() == list(BLUE)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bits_are_scaled_not_clipped(mode):
    values = np.array([[0, 257 * 100, 65535]])
    if mode == "I":
        image = Image.fromarray(values.astype(np.int32))
    else:
        dtype = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (3, 1), values.astype(dtype).tobytes())
    got = pixels(encoded(image, "TIFF"))
    assert got[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_16_bit_png():
    image = Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.uint16))
    assert pixels(encoded(image, "PNG"))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.2, 1.0], [0, 51, 255]),
        ([0.0, 51.0, 200.0], [0, 51, 200]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([1000.0, 2000.0, 3000.0], [0, 128, 255]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
    ],
)
def test_float_tiff_ranges(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == expected


def test_32_bit_integers_beyond_16_bits_are_stretched():
    image = Image.fromarray(np.array([[-100_000, 0, 100_000]], dtype=np.int32))
    assert pixels(encoded(image, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


def test_float_tiff_with_nan_is_bad():
    image = Image.fromarray(np.array([[0, np.nan]], dtype=np.float32))
    with pytest.raises(BadImage, match="not finite"):
        decode(io.BytesIO(encoded(image, "TIFF")), "x")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(format, orientation):
    # Orientation n means that row 0 and column 0 of the file are these sides of the picture:
    # 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top, ...
    upright = np.asarray(noise(2, 3))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    data = encoded(image, format, exif=with_exif(image, orientation), **options)
    np.testing.assert_array_equal(pixels(data), upright)


def test_exif_orientation_of_a_jpeg():
    image = Image.new("RGB", (30, 10), RED)
    image.paste(BLUE, (20, 0, 30, 10))
    got = pixels(encoded(image, "JPEG", exif=with_exif(image, 6)))
    assert got.shape == (30, 10, 3)
    assert got[0, 5, 0] > 200
    assert got[-1, 5, 2] > 200


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_damaged_exif_is_no_bad_image(exif, recwarn):
    warnings.simplefilter("always")
    image = noise()
    got = pixels(encoded(image, "JPEG", exif=exif))
    np.testing.assert_array_equal(got, pixels(encoded(image, "JPEG")))
    assert not recwarn.list


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == list(RED)


def _tiff_of_many_samples() -> bytes:
    data = bytearray(encoded(noise(), "TIFF"))
    entry = data.index(struct.pack("<HHIH", 277, 3, 1, 3))
    data[entry + 8 : entry + 10] = struct.pack("<H", 2048)
    return bytes(data)


def _damaged() -> dict[str, tuple[bytes, str]]:
    jpeg, png = encoded(noise(), "JPEG"), encoded(noise(), "PNG")
    return {
        "empty": (b"", "empty file"),
        "text": (b"this is no picture\n", "known format"),
        "cut jpeg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut png": (png[: len(png) // 2], "truncated"),
        "jpeg header only": (jpeg[:4], "known format"),
        "png with a wrong checksum": (png[:-40] + bytes(20) + png[-20:], "broken"),
        "tiff that PIL logs": (_tiff_of_many_samples(), "known format"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
    }


@pytest.mark.parametrize("name", list(_damaged()))
def test_damaged_files_are_bad_with_a_short_reason(name):
    data, words = _damaged()[name]
    with pytest.raises(BadImage, match=words) as caught:
        decode(io.BytesIO(data), "folder/x.jpg")
    assert caught.value.id == "folder/x.jpg"
    assert str(caught.value) == f"folder/x.jpg: {caught.value.reason}"
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 100


@pytest.mark.parametrize("limit", [1000, 1500])
def test_decompression_bombs_are_bad_at_pils_warning_and_at_its_error(limit, monkeypatch, recwarn):
    # 2400 pixels: twice 1000 is PIL's error, between one and two times 1500 its warning.
    data = encoded(noise(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BadImage, match="too many"):
        decode(io.BytesIO(data), "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert pixels(data).shape == (40, 60, 3)
    assert not recwarn.list


def test_paths_that_are_no_readable_file(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, words in {
        "x.jpg": "folder",
        "missing.jpg": "no such file",
        "loop.jpg": "symbolic links",
        "pipe.jpg": "not a regular file",
    }.items():
        with pytest.raises(BadImage, match=words):
            decode_path(tmp_path / name, name)


def test_every_usual_suffix_of_a_format_is_known():
    usual = "jpg jpeg jpe jfif png webp gif bmp dib tif tiff ppm pgm pbm pnm tga ico"
    assert image_suffixes() >= {f".{suffix}" for suffix in usual.split()}


def test_unreadable_file(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(noise(), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(BadImage, match="permission denied"):
        decode_path(path, "x.png")


def test_nothing_is_printed_and_no_filter_stays(tmp_path):
    for number, (data, _) in enumerate(_damaged().values()):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    code = """
import sys, warnings
from contextlib import suppress
from pathlib import Path
from PIL import Image
from xaikit.images.decoding import BadImage, decode_path
Image.MAX_IMAGE_PIXELS = 1500
before = list(warnings.filters), dict(vars(Image))["MAX_IMAGE_PIXELS"]
for path in sorted(Path(sys.argv[1]).iterdir()):
    with suppress(BadImage):
        decode_path(path, path.name)
assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_threads_leave_the_warning_filters_alone():
    data = _damaged()["text"][0]
    before = list(warnings.filters)

    def work() -> None:
        for _ in range(50):
            with pytest.raises(BadImage):
                decode(io.BytesIO(data), "x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
