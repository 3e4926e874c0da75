"""Write rendered frames as a video: mp4 with the optional extra `video` installed, otherwise a GIF."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.common.errors import UserError
from agent.common.files import could_not_write, make_folder, new_file

DEFAULT_FPS, MAX_FPS = 30, 1_000
GIF_MAX_FPS = 25  # more frames only make a GIF larger: viewers lengthen very short delays
GIF_COLORS = 128
MAX_BYTES = 512 << 20  # of a film, which is held in memory until it is written: 746 frames of 600 × 400 pixels
MAX_SIDE = 8_192  # pixels: the codecs take no more, and one larger frame could fill the memory
MIN_SIDE, ENLARGED_SIDE = 32, 160  # pixels: images below the first, such as MinAtar's, are enlarged to the second

Frame = NDArray[np.uint8]


def frames_per_second(value: Any) -> int:
    """An environment's frame rate, from 1 to `MAX_FPS`; `DEFAULT_FPS` if it states none."""
    try:
        fps = float(value)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_FPS
    return max(1, min(round(fps), MAX_FPS)) if math.isfinite(fps) and fps > 0.0 else DEFAULT_FPS


class Film:
    """Frames uint8 [H, W, 3] of episodes, held until a video is made of them; `full` from `MAX_BYTES` on."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more frames should be added, as a long episode would fill the memory."""
        return self._bytes >= MAX_BYTES

    def add(self, image: object) -> None:
        """Adds a copy of `as_frame` of a rendered image, as an environment may draw the next one into the same array.

        Raises:
            UserError: it is not an image, or has another size than the earlier ones.
        """
        frame = as_frame(image).copy()
        if self.frames and frame.shape != self.frames[0].shape:
            sizes = " and ".join(str(picture.shape[:2]) for picture in (self.frames[0], frame))
            raise UserError(f"the frames of a film must have one size, not {sizes}")
        self.frames.append(frame)
        self._bytes += self.frames[-1].nbytes


def write_video(frames: Sequence[Frame], path_without_suffix: Path, fps: int) -> Path:
    """Write frames to `<path_without_suffix>.mp4`, or `.gif` if imageio with ffmpeg is not installed.

    Args:
        frames: RGB images [H, W, 3], uint8 or brightness from 0 to 1, all of one size. An mp4 needs even sizes: odd
            ones get one more row or column, a copy of the last.
        path_without_suffix: where to write; the folder is made if needed.
        fps: frames per second. A GIF drops frames above 25 per second and keeps the speed of the motion.

    Returns:
        The path of the file written.

    Raises:
        UserError: there is no frame, one is not an image or has another size, or the disk refuses; no file is left.
    """
    if len(frames) == 0:
        raise UserError("There is no frame to make a video of; use an environment that can render rgb_array.")
    frames = [as_frame(frame) for frame in frames]
    if len(shapes := {frame.shape for frame in frames}) > 1:
        raise UserError(f"the frames of a video must have one shape, not {' and '.join(map(str, sorted(shapes)))}")
    write, suffix = (_write_mp4, ".mp4") if _has_ffmpeg() else (_write_gif, ".gif")
    path = path_without_suffix.with_name(path_without_suffix.name + suffix)
    try:
        make_folder(path.parent)
        with new_file(path) as file:
            write(frames, Path(file.name), fps)
    except OSError as error:
        raise could_not_write(path, error) from error
    return path


def as_frame(image: object) -> Frame:
    """A rendered image [H, W, 3] as bytes: numbers from 0 to 1 are brightness; a tiny image is enlarged.

    Raises:
        UserError: it is something else, or larger than `MAX_SIDE`.
    """
    array = np.asarray(image)
    if array.ndim == 3 and max(array.shape) > MAX_SIDE:
        raise UserError(f"a frame must have at most {MAX_SIDE:,} pixels a side, not {list(array.shape)}")
    frame = array
    if np.issubdtype(array.dtype, np.floating) and array.size and array.min() >= 0.0 and array.max() <= 1.0:
        frame = (array * 255.0).round().astype(np.uint8)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        description = "nothing" if image is None else f"{list(array.shape)} of {array.dtype}"
        raise UserError(f"a frame must be a picture [height, width, 3] of uint8, not {description}")
    if max(frame.shape[:2]) >= MIN_SIDE:
        return frame
    factor = ENLARGED_SIDE // max(frame.shape[:2])
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def _has_ffmpeg() -> bool:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return False
    import imageio_ffmpeg  # type: ignore[import-untyped, import-not-found, unused-ignore]

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:  # a platform without the bundled program
        return False
    return True


def _write_mp4(frames: Sequence[Frame], path: Path, fps: int) -> None:
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    size = (width + width % 2, height + height % 2)
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, codec="libx264", macro_block_size=1)
    writer.send(None)  # start ffmpeg
    for frame in frames:
        writer.send(np.ascontiguousarray(np.pad(frame, padding, mode="edge")))
    writer.close()


def as_gif(path: Path) -> tuple[bytes, int, int]:
    """A video file as a GIF, with its height and width in pixels, for viewers that show no mp4."""
    if path.suffix != ".gif":
        frames, fps = _read_mp4(path)
        buffer = BytesIO()
        _write_gif(frames, buffer, fps)
        return buffer.getvalue(), *frames[0].shape[:2]
    from PIL import Image

    with Image.open(path) as image:
        return path.read_bytes(), image.height, image.width


def _read_mp4(path: Path) -> tuple[list[Frame], int]:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    metadata = next(reader)
    width, height = metadata["size"]
    return [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader], max(1, round(metadata["fps"]))


def _write_gif(frames: Sequence[Frame], file: Path | BytesIO, fps: int) -> None:
    from PIL import Image

    stride = -(-fps // GIF_MAX_FPS)
    # One palette for the whole video avoids flicker, and takes a fifth of the time of one per frame.
    sample = np.concatenate([frame[::2, ::2] for frame in frames[:: -(-len(frames) // 16)]])
    palette = Image.fromarray(sample).quantize(GIF_COLORS)
    kept_frames = frames[::stride]
    images = (Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept_frames)
    # Delays are whole centiseconds. Each is the difference of rounded times, so that errors do not add up.
    ends = [round(100 * stride * i / fps) for i in range(len(kept_frames) + 1)]
    delays = [10 * (end - start) for start, end in pairwise(ends)]
    next(images).save(file, "GIF", save_all=True, append_images=images, duration=delays, loop=0)
