"""Videos read back: number of frames, size, speed, colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import envs.video
from agent.common.errors import UserError
from envs.video import Frame, as_frame, frames_per_second, write_video


def moving_square(count: int, height: int, width: int) -> list[Frame]:
    """A red square that moves to the right on a light ground, so that no two frames are equal."""
    frames = []
    for i in range(count):
        frame = np.full((height, width, 3), 230, np.uint8)
        frame[10:30, 2 * i : 2 * i + 20] = (200, 30, 40)
        frames.append(frame)
    return frames


@pytest.fixture
def gif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envs.video, "_has_ffmpeg", lambda: False)


@pytest.mark.parametrize(("fps", "stride"), [(4, 1), (15, 1), (25, 1), (30, 2), (50, 2), (60, 3)])
def test_a_gif_plays_at_the_right_speed(fps: int, stride: int, tmp_path: Path, gif: None) -> None:
    frames = moving_square(60, 41, 181)
    path = write_video(frames, tmp_path / "v1.5", fps)
    assert path == tmp_path / "v1.5.gif"
    with Image.open(path) as image:
        shown = [(f.info["duration"], np.asarray(f.convert("RGB"))) for f in ImageSequence.Iterator(image)]
        assert image.size == (181, 41)
        assert image.info["loop"] == 0
    assert len(shown) == 60 // stride
    assert sum(duration for duration, _ in shown) == pytest.approx(1000 * 60 / fps, abs=10)
    assert all(duration % 10 == 0 and duration >= 40 for duration, _ in shown)
    for (_, got), wanted in zip(shown, frames[::stride], strict=True):
        assert np.abs(got.astype(int) - wanted).max() <= 8


def test_a_gif_keeps_colours_that_come_late(tmp_path: Path, gif: None) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(40, axis=0)
    late = ramp.copy()
    late[:, 100:140] = (250, 120, 0)
    path = write_video([ramp] * 30 + [late] * 10, tmp_path / "x", 10)
    with Image.open(path) as image:
        last = np.asarray(list(ImageSequence.Iterator(image))[-1].convert("RGB"))
    assert np.abs(last[20, 120].astype(int) - (250, 120, 0)).max() <= 24


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (1, 47)])
def test_an_mp4_has_every_frame_even_sizes_and_the_right_pixels(height: int, width: int, tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = moving_square(35, height, width)
    path = write_video(frames, tmp_path / "new" / "v", 30)
    assert path == tmp_path / "new" / "v.mp4"
    reader = ffmpeg.read_frames(str(path))
    head = next(reader)
    assert head["size"] == (width + width % 2, height + height % 2)
    assert head["fps"] == 30
    shape = (height + height % 2, width + width % 2, 3)
    decoded = [np.frombuffer(data, np.uint8).reshape(shape) for data in reader]
    assert len(decoded) == 35
    for got, wanted in zip(decoded, frames, strict=True):
        assert np.abs(got[:height, :width].astype(int) - wanted).mean() < 4.0  # 4:2:0 colours blur edges


def test_no_ffmpeg_program_means_a_gif(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")

    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(ffmpeg, "get_ffmpeg_exe", missing)
    assert write_video(moving_square(3, 40, 60), tmp_path / "v", 30).suffix == ".gif"


def test_one_frame_is_a_video(tmp_path: Path, gif: None) -> None:
    with Image.open(write_video(moving_square(1, 40, 60), tmp_path / "v", 30)) as image:
        assert image.size == (60, 40)


def test_bad_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frame"):
        write_video([], tmp_path / "v", 30)
    frames = moving_square(3, 40, 60)
    for bad in (frames[0].astype(np.float32), frames[0][..., 0], frames[0][:30]):
        with pytest.raises(UserError, match=r"picture|one shape"):
            write_video([frames[0], bad], tmp_path / "v", 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_a_full_disk_is_told_with_the_name_of_the_file(
    ffmpeg: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(frames: object, path: Path, fps: int) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(envs.video, "_has_ffmpeg", lambda: ffmpeg)
    monkeypatch.setattr(envs.video, "_write_mp4" if ffmpeg else "_write_gif", write)
    with pytest.raises(UserError, match=r"could not write .*/v\.(mp4|gif) \(No space left on device\)"):
        write_video(moving_square(3, 40, 60), tmp_path / "new" / "v", 30)
    assert list((tmp_path / "new").iterdir()) == []


def test_brightness_becomes_bytes_and_a_tiny_picture_is_enlarged() -> None:
    """MinAtar's pictures are ten by ten numbers from 0 to 1."""
    picture = np.zeros((10, 10, 3))
    picture[2, 3] = (1.0, 0.5, 0.0)
    frame = as_frame(picture)
    assert (frame.shape, frame.dtype) == ((160, 160, 3), np.uint8)
    assert (frame[32:48, 48:64] == (255, 128, 0)).all()
    assert frame.sum() == 16 * 16 * (255 + 128)
    large = np.full((40, 33, 3), 7, np.uint8)
    assert as_frame(large) is large


@pytest.mark.parametrize(
    ("named", "fps"),
    [
        *[
            (value, 30)
            for value in (None, "", "fast", float("nan"), float("inf"), -1, 0, 0.0, [], {}, object(), 10**400)
        ],
        *[(30, 30), (60.0, 60), ("15", 15), (29.97, 30), (0.2, 1), (np.int64(50), 50), (np.float32(12.5), 12)],
        *[(10**6, 1_000), (1e300, 1_000)],
    ],
)
def test_the_speed_of_a_film_may_be_named_in_any_way(named: object, fps: int, tmp_path: Path) -> None:
    assert frames_per_second(named) == fps
    write_video(moving_square(3, 40, 60), tmp_path / "film", frames_per_second(named))


@pytest.mark.parametrize("shape", [(2, 70_000, 3), (60_000, 60_000, 3)])
def test_a_frame_that_no_codec_takes_is_refused_before_it_is_copied(shape: tuple[int, ...]) -> None:
    """A copy of the second frame would take 10.8 GB; this view of it takes one byte."""
    with pytest.raises(UserError, match=r"at most 8,192 pixels a side, not \[\d+, \d+, 3\]"):
        as_frame(np.broadcast_to(np.uint8(3), shape))


@pytest.mark.parametrize("side", [8, 40])
def test_an_environment_may_draw_every_frame_into_one_array(side: int) -> None:
    picture, film = np.zeros((side, side, 3), np.uint8), envs.video.Film()
    for brightness in (10, 20, 30):
        picture[:] = brightness
        film.add(picture)
    assert [frame.max() for frame in film.frames] == [10, 20, 30]
