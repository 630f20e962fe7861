"""Frames of videos, by torchcodec, which needs FFmpeg's libraries.

Shapes: H W pixels.
"""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from polyteach.ground.images import MIN_SIDE

_MISSING = 0.95
"""Share of the frames that a duration stands for, below which a video has lost some: its sound may be longer."""
_NO_FFMPEG = "videos are decoded with FFmpeg, which is not there: install it, such as with apt install ffmpeg"


def frames(
    path: str, every: int, most: int, done: Collection[str] = (), name: Callable[[int], str] = str
) -> Iterator[tuple[int, UInt8[Tensor, "3 H W"] | str | None]]:
    """Every N-th frame of a video from its first on, by its index; or the reason why there are no more of them.

    A video that breaks off gives the frames before that, and then says where. most: pixels of a frame. done: names
    of frames that need not be decoded, of which there is nothing to see (None).
    """
    index = 0
    try:
        from torchcodec.decoders import VideoDecoder  # which looks for FFmpeg

        video = VideoDecoder(path)
        about = video.metadata
        pixels = (about.height or 0) * (about.width or 0)
        if pixels > most or min(about.height or 0, about.width or 0) < MIN_SIDE:
            yield 0, f"its frames are of {about.height} x {about.width}, of at most {most:,} pixels"
            return
        count, promised = len(video), _promised(about)
        for index in range(0, count, every):
            yield index, None if name(index) in done else video.get_frame_at(index).data
        if promised is not None and count < promised:
            yield count, f"breaks off: {count:,} of its {promised:,} frames are there"
        elif not count:
            yield 0, "has no frame"
    except ImportError:
        yield 0, _NO_FFMPEG
    except MemoryError:
        yield index, "there is not enough memory to decode it"
    except Exception as e:  # whatever torchcodec raises of broken files and of FFmpeg that is not there
        lost = isinstance(e, OSError | RuntimeError) and "libtorchcodec" in str(e)
        # where in torchcodec's source it was raised says nothing to whoever has the video
        why = re.sub(r"^\S+, \S+:\d+, ", "", str(e).strip().split("\n")[0])[:200]
        yield index, _NO_FFMPEG if lost else f"breaks off at frame {index:,}: {why}"


def _promised(about: Any) -> int | None:
    """How many frames a video's header says that there are, or its duration, where that is far more than are there."""
    if about.num_frames_from_header is not None:
        return int(about.num_frames_from_header)
    seconds, rate = about.duration_seconds_from_header, about.average_fps
    expected = round(seconds * rate) if seconds and rate else 0
    return expected if (about.num_frames_from_content or 0) < _MISSING * expected - 1 else None
