"""Frames that are stored one by one, as JPEG or other images."""

import numpy as np

from data_pipelines.errors import VideoError
from data_pipelines.flow import opencv

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_TAIL = 64  # bytes in which a JPEG file ends; some have more behind its end


def image_size(content: bytes, name: str) -> tuple[int, int]:
    """(height, width) of an image; raises VideoError if it is none."""
    return _decoded(content, name).shape[:2]


def cut_out(content: bytes, box: tuple[int, int, int, int], size: tuple[int, int], name: str) -> np.ndarray:
    """A part of an image, resized: uint8 `[H, W, 3]`, RGB.

    Args:
      content: of the file.
      box: (top, left, height, width) in its pixels.
      size: (height, width) to resize it to, bilinearly, or by areas where it shrinks.
      name: to call it by in errors.

    Raises:
      VideoError: it cannot be decoded, or is smaller than the box.
    """
    cv2, image = opencv(), _decoded(content, name)
    top, left, height, width = box
    part = image[top : top + height, left : left + width]
    if part.shape[:2] != (height, width):
        raise VideoError(f"{name}: has {image.shape[0]} x {image.shape[1]} pixels, fewer than the frames before")
    if size != (height, width):
        shrinks = size[0] < height or size[1] < width
        part = cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return part


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """An image, uint8 `[H, W, 3]`, RGB, as JPEG of a quality from 1 to 100."""
    cv2 = opencv()
    done, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"no JPEG can be made of an array {image.shape}")
    return content.tobytes()


def _decoded(content: bytes, name: str) -> np.ndarray:
    cv2 = opencv()
    if content[:2] == _JPEG_START and _JPEG_END not in content[-_TAIL:]:
        raise VideoError(f"{name}: is cut short")  # OpenCV would fill it up with grey
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # also of an empty file
        image = None
    if image is None:
        raise VideoError(f"{name}: is no image that can be decoded")
    return image
