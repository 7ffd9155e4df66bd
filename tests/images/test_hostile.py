"""Files made to cost too much, and whole pictures among broken words."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import time
import zlib
from types import SimpleNamespace as Some

import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from xaikit.images import bounds
from xaikit.images.bounds import Room
from xaikit.images.decoding import BadImage, decode, image_suffixes
from xaikit.images.metadata import without_metadata


def noise(width=60, height=40, mode="RGB"):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(data):
    return np.asarray(decode(io.BytesIO(data), "x"))


def reason(data):
    with pytest.raises(BadImage) as caught:
        decode(io.BytesIO(data), "x")
    assert "\n" not in caught.value.reason
    return caught.value.reason


def with_scans(count, image=None):
    data = encoded(image or noise(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused_unread():
    large = Image.new("RGB", (4000, 3000), "red")
    start = time.process_time()
    assert "101 scans of 12,000,000 pixels are too many" in reason(with_scans(3000, large))
    assert pixels(with_scans(20)).shape == (40, 60, 3)
    assert time.process_time() - start < 5


def test_scans_count_by_the_pixels_they_cost(monkeypatch):
    monkeypatch.setattr(bounds, "_MOST_SCANNED", 2400 * 15)
    assert pixels(encoded(noise(), "JPEG", progressive=True)).shape == (40, 60, 3)
    assert "scans of 2,400 pixels are too many" in reason(with_scans(10))
    assert pixels(encoded(noise(200, 200), "JPEG")).shape == (200, 200, 3)


def test_a_thumbnail_has_scans_of_its_own():
    thumbnail = with_scans(300)
    exif = Image.Exif()
    exif[0x9286] = thumbnail[:60_000]
    data = encoded(noise(), "JPEG", exif=exif)
    assert data.count(b"\xff\xda") > 100
    assert pixels(data).shape == (40, 60, 3)


def png_of_size(width, height):
    data = bytearray(encoded(noise(), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def icon_of(picture):
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22)
    return header + picture


def bitmap_of_size(width, height):
    return struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        png_of_size(50_000, 50_000),
        png_of_size(2**31 - 1, 1),
        png_of_size(9_500, 9_500),
        icon_of(png_of_size(12_000, 12_000)),
        icon_of(bitmap_of_size(12_000, 24_000)),
        b"P6 60000 60000 255 " + bytes(100),
        b"P3 2000 2000 255 1 1 1",
        encoded(noise(), "GIF")[:6] + b"\xff\xff\xff\xff" + encoded(noise(), "GIF")[10:],
    ],
)
def test_sizes_are_believed_before_a_pixel_is_decoded(data):
    start = time.process_time()
    assert "too many" in reason(data)
    assert time.process_time() - start < 1


def test_an_icon_of_its_own_size_is_read():
    assert pixels(encoded(noise(32, 32, "RGBA"), "ICO")).shape == (32, 32, 3)


def test_a_file_of_many_gigabytes_is_not_read(tmp_path):
    from xaikit.images import open_images

    with (tmp_path / "1.png").open("wb") as file:
        file.write(encoded(noise(), "PNG"))
        file.truncate(5 * 2**30)
    source = open_images(images=tmp_path)
    with pytest.raises(BadImage, match=r"a file of 5\.0 GiB"):
        source.load(0)
    assert len(source.digest(0)) == 32


def text(**options):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000, **options)
    return info


@pytest.mark.parametrize(
    "options",
    [
        {"pnginfo": text(zip=True)},
        {"pnginfo": text()},
        {"icc_profile": bytes(3_000_000)},
        {"icc_profile": b"no profile"},
        {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff"},
    ],
)
def test_a_png_of_any_metadata_is_its_pixels(options):
    image = noise()
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", **options)), np.asarray(image))


def chunk(kind, data, checksum=None):
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


@pytest.mark.parametrize("where", ["before the pixels", "after them"])
@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"tEXt", b"a\0b", checksum=1),
        chunk(b"iCCP", b"name\0\0no deflate"),
        chunk(b"iTXt", b"\0\1\0\0\0no deflate"),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"pHYs", b"\0"),
        chunk(b"gAMA", b""),
        chunk(b"cHRM", b"\0\0\0"),
        chunk(b"fcTL", b"\0"),
        chunk(b"eXIf", b"MM", checksum=2),
    ],
)
def test_a_png_whose_metadata_alone_is_broken_is_its_pixels(broken, where):
    image = noise()
    whole = encoded(image, "PNG")
    place = 33 if where == "before the pixels" else whole.rindex(b"IEND") - 4
    data = whole[:place] + broken + whole[place:]
    np.testing.assert_array_equal(pixels(data), np.asarray(image))


def segment(marker, data, length=None):
    return bytes([0xFF, marker]) + struct.pack(">H", length or len(data) + 2) + data


@pytest.mark.parametrize(
    "broken",
    [
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE2, b"ICC_PROFILE\0\xff"),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff"),
        segment(0xFE, bytes(60_000)),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 50_000),
    ],
)
def test_a_jpeg_whose_metadata_alone_is_broken_is_its_pixels(broken):
    whole = encoded(noise(), "JPEG")
    np.testing.assert_array_equal(pixels(whole[:2] + broken + whole[2:]), pixels(whole))


def test_a_webp_whose_metadata_alone_is_broken_is_its_pixels():
    image = noise()
    whole = encoded(image, "WEBP", lossless=True, exif=b"Exif\0\0MM", icc_profile=b"no profile")
    assert b"ICCP" in whole
    assert b"ICCP" not in without_metadata(whole)
    for data in (whole, without_metadata(whole)):
        np.testing.assert_array_equal(pixels(data), np.asarray(image))


def test_pixels_that_are_broken_stay_bad():
    data = encoded(noise(), "PNG", pnginfo=text(zip=True))
    assert "broken" in reason(data[:-60] + bytes(40) + data[-20:])
    assert without_metadata(b"GIF89a") is None
    assert without_metadata(encoded(noise(), "PNG")) is None


def test_what_a_library_thinks_of_a_picture_reaches_no_terminal(capfd):
    whole = encoded(noise(), "TIFF", compression="tiff_lzw")
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 8):
            data[place] ^= 1 << rng.integers(8)
        try:
            decode(io.BytesIO(bytes(data)), "x")
        except BadImage:
            refused += 1
    assert refused
    assert capfd.readouterr() == ("", "")


def test_the_orientation_stays_when_other_metadata_goes():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise(), "PNG", exif=exif, pnginfo=text(zip=True))
    assert pixels(data).shape == (60, 40, 3)


def test_transparency_and_depth_are_the_same_in_bands(monkeypatch):
    from xaikit.images import colour

    images = [
        encoded(noise(mode="RGBA"), "PNG"),
        encoded(noise(mode="L"), "PNG", transparency=3),
        encoded(noise().quantize(16), "PNG", transparency=3),
        encoded(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)), "PNG"),
        encoded(
            Image.fromarray(np.linspace(-3, 9, 2400, dtype=np.float32).reshape(40, 60)), "TIFF"
        ),
    ]
    whole = [pixels(data) for data in images]
    monkeypatch.setattr(colour, "_BAND_PIXELS", 40)
    for data, expected in zip(images, whole, strict=True):
        np.testing.assert_array_equal(pixels(data), expected)


def test_large_pictures_wait_for_each_other_and_small_ones_do_not():
    room, going, most = Room(100), [], []
    lock = threading.Lock()

    def work(pixels):
        with room.of(pixels):
            with lock:
                going.append(pixels)
                most.append(sum(going))
            time.sleep(0.005)
            with lock:
                going.remove(pixels)

    threads = [threading.Thread(target=work, args=(p,)) for p in (30, 1, 2, 50, 3, 4, 20, 1) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads)
    # Ten bytes a pixel; one that is larger than the room is alone in it.
    assert all(total <= 10 or total in (20, 30, 50) for total in most)


def test_room_is_kept_until_the_picture_has_been_used():
    room = Room(100)
    entered = threading.Event()

    def other():
        with room.of(8):
            entered.set()

    with room.kept():
        with room.of(8):
            pass
        with room.of(9):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(10)
    thread.join()
    assert room._used == 0


@pytest.mark.parametrize("kept", [False, True])
def test_room_of_a_picture_that_fails_is_free_again(kept):
    room = Room(100)
    with (
        pytest.raises(ValueError, match="torn"),
        room.kept() if kept else contextlib.nullcontext(),
        room.of(10),
    ):
        raise ValueError("torn")
    # Nobody is asked to wait for it: that would be for ever.
    assert room._used == 0


def test_a_picture_takes_the_room_of_its_pixels(monkeypatch):
    from xaikit.images import decoding

    taken = []
    monkeypatch.setattr(
        decoding, "ROOM", Some(of=lambda n: taken.append(n) or contextlib.nullcontext())
    )
    pixels(encoded(noise(), "PNG"))
    assert taken == [60 * 40]


def test_heic(tmp_path):
    assert ".heic" in image_suffixes()
    pillow_heif.register_heif_opener()
    Image.new("RGB", (64, 48), "red").save(tmp_path / "1.heic")
    from xaikit.images import open_images

    assert open_images(images=tmp_path).load(0).size == (64, 48)


@pytest.mark.skipif(".avif" not in image_suffixes(), reason="this Pillow reads no AVIF")
def test_avif():
    assert pixels(encoded(Image.new("RGB", (64, 48), "red"), "AVIF")).shape == (48, 64, 3)
