"""Every kind of picture that people have, with the colour that it should come to; read by all readers alike."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tamp_lightning.data.media import BadMedia, read_frames, read_picture
from tamp_lightning.models.videollama2.frames import to_picture
from tamp_lightning.models.videollama2.media import read_image, read_video
from tamp_lightning.pictures import to_rgb

from .fixtures import media

RAMP = np.linspace(0, 65535, 256).reshape(16, 16).round().astype(np.uint16)
GREY = np.rint(RAMP / 257).astype(np.uint8)


def sixteen_bit_png(samples):
    """A PNG of uint16 [h,w] or [h,w,channels], written by hand: Pillow writes no 16-bit colours."""
    height, width = samples.shape[:2]
    kind = {2: 0, 3: {3: 2, 4: 6}.get(samples.shape[-1])}[samples.ndim]

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encoded(picture, kind, **options):
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


WIDE = {
    "png, 16-bit grey": sixteen_bit_png(RAMP),
    "tiff, 16-bit grey": encoded(Image.fromarray(RAMP), "TIFF"),
    "tiff, 16-bit grey, other byte order": encoded(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "pgm, 16-bit grey": b"P5\n16 16\n65535\n" + RAMP.astype(">u2").tobytes(),
    "png, 16-bit colours": sixteen_bit_png(np.stack([RAMP] * 3, -1)),
    "png, 16-bit colours and alpha": sixteen_bit_png(np.stack([RAMP] * 4, -1)),
}


@pytest.mark.parametrize("kind", WIDE)
def test_sixteen_bits_are_scaled_not_clipped(kind, tmp_path):
    (tmp_path / "wide").write_bytes(WIDE[kind])
    for picture in (read_picture(WIDE[kind]), read_picture(tmp_path / "wide"), read_image(tmp_path / "wide")):
        found = np.asarray(picture).astype(int)
        assert picture.mode == "RGB"
        assert np.abs(found - GREY[..., None]).max() <= 1  # Pillow takes the high byte of colours
        assert found.mean() == pytest.approx(127.5, abs=0.6)


def test_a_wide_picture_in_memory_is_scaled_too():
    assert np.array_equal(np.asarray(to_picture(Image.fromarray(RAMP)))[..., 0], GREY)


@pytest.mark.parametrize(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_numbers_without_a_scale_are_refused_by_name(dtype, mode, tmp_path):
    picture = Image.fromarray(RAMP.astype(dtype))
    (tmp_path / "a.tif").write_bytes(encoded(picture, "TIFF"))
    for read in (read_picture, read_image):
        with pytest.raises(ValueError, match=rf"a\.tif.*mode {mode} \(.*says not which value is white") as error:
            read(tmp_path / "a.tif")
        assert "\n" not in str(error.value)
    with pytest.raises(BadMedia):
        read_picture(encoded(picture, "TIFF"))


def corners(picture):
    width, height = picture.size
    return [
        min(media.COLOURS, key=lambda n: np.abs(np.subtract(media.COLOURS[n], picture.getpixel(at))).sum())
        for at in ((4, 4), (width - 5, 4), (4, height - 5))
    ]


def four_corners():
    """Red at the upper left, green at the upper right, blue at the lower left."""
    picture = Image.new("RGB", (48, 32), media.COLOURS["grey"])
    for colour, at in (("red", (0, 0)), ("green", (24, 0)), ("blue", (0, 16))):
        picture.paste(media.COLOURS[colour], (*at, at[0] + 24, at[1] + 16))
    return picture


# what stands stored; orientation 6: turn by 90 degrees to the right to see it upright
TURNED = {1: (48, 32), 3: (48, 32), 6: (32, 48), 8: (32, 48)}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_is_turned_as_its_exif_says(orientation, tmp_path):
    upright = four_corners()
    stored = upright.rotate({1: 0, 3: 180, 6: 90, 8: -90}[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(encoded(stored, "JPEG", exif=exif, quality=95))
    ours = (read_picture(tmp_path / "a.jpg"), read_image(tmp_path / "a.jpg"), to_rgb(Image.open(tmp_path / "a.jpg")))
    for picture in ours:
        assert picture.size == (48, 32)
        assert corners(picture) == ["red", "green", "blue"]
    assert stored.size == TURNED[orientation]


def test_our_rule_is_that_of_datasets_and_transformers(tmp_path):
    from datasets import Image as Feature
    from transformers.image_utils import load_image

    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(four_corners().rotate(90, expand=True), "JPEG", exif=exif))
    ours = read_picture(path)
    assert ours.tobytes() == load_image(str(path)).tobytes()
    assert ours.tobytes() == Feature().decode_example({"path": str(path), "bytes": None}).convert("RGB").tobytes()


def palette_with_hole():
    picture = media.picture("blue").convert("P")
    picture.info["transparency"] = b"\x00" + b"\xff" * 255
    return encoded(picture, "PNG")


def animation():
    first, *others = (media.picture(colour) for colour in ("blue", "red", "green"))
    return encoded(first, "GIF", save_all=True, append_images=others)


KINDS = {
    "palette with transparency": palette_with_hole(),
    "animated gif, first frame": animation(),
    "animated webp, first frame": encoded(
        media.picture("blue"), "WEBP", save_all=True, append_images=[media.picture("red")], lossless=True
    ),
    "cmyk jpeg": encoded(media.picture("blue").convert("CMYK"), "JPEG", quality=95),
    "webp": encoded(media.picture("blue"), "WEBP"),
    "tiff": encoded(media.picture("blue"), "TIFF"),
    "bmp": encoded(media.picture("blue"), "BMP"),
    "png with alpha": encoded(media.picture("blue").convert("RGBA"), "PNG"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_kind_keep_their_colour(kind):
    picture = read_picture(KINDS[kind])
    assert (picture.mode, picture.size) == ("RGB", (24, 18))
    assert np.abs(np.asarray(picture).astype(int) - media.COLOURS["blue"]).max() < 40


@pytest.mark.parametrize(("mode", "expected"), [("1", 255), ("L", 128), ("LA", 128)])
def test_greys_keep_their_brightness(mode, expected):
    picture = Image.new("L", (8, 8), 128 if mode != "1" else 255).convert(mode)
    assert set(np.asarray(read_picture(encoded(picture, "PNG"))).ravel()) == {expected}


def turn(path, degrees):
    """Write into an mp4's track header that it is to be shown turned to the right, as telephones do."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [v << 16 for v in (cosine, sine, 0, -sine, cosine, 0, 0, 0)] + [1 << 30]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    content[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_video_of_a_telephone_is_turned_as_it_says(degrees, tmp_path):
    av = pytest.importorskip("av")
    stored = four_corners().rotate(degrees, expand=True)  # to the left, as stored
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *stored.size, "yuv420p", 2_000_000
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_image(stored)))
        container.mux(stream.encode())
    if degrees:
        turn(path, degrees)
    for frames in (read_frames(path, 2).pictures, read_video(path, 2)):
        assert frames[0].size == (48, 32)
        assert corners(frames[0]) == ["red", "green", "blue"]
