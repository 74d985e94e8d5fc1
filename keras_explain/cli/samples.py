"""What is explained: pictures or arrays, as the model takes them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from keras_explain.cli.errors import CommandError, UsageError
from keras_explain.cli.files import PICTURES, distinct
from keras_explain.cli.models import Source, preprocessing, scale_of


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """The inputs, with names for what is written of them."""

    names: list[str]
    files: list[Path]
    x: np.ndarray  # [B, ...]
    pictures: np.ndarray | None = None  # uint8 [B, H, W, C]
    scale: str | None = None  # how the pictures were preprocessed

    def to_image(self, first: int) -> Callable[[Any], Any] | None:
        """What gives the figures the pictures from sample `first` on; None without pictures."""
        if self.pictures is None:
            return None
        pictures = self.pictures[first:]
        return lambda x: pictures[: len(x)]


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Makes inputs of a model from files."""

    source: Source
    size: tuple[int, int] | None
    crop: bool
    how: str | None
    channels_first: bool = False

    @classmethod
    def of(cls, source: Source, options: argparse.Namespace) -> Preparation:
        """As the options say."""
        first = options.data_format == "channels_first"
        return cls(source, options.size, options.crop, options.preprocess, first)

    def array(self, path: str) -> np.ndarray:
        """What a file or folder holds, as the model takes it; a .npy file as it is."""
        files = _files([path])
        if files[0].suffix.lower() == ".npy":
            return _array(files[0])
        return self.prepared(self.pictures(files))

    @property
    def scale(self) -> str:
        """How pictures are preprocessed."""
        return scale_of(self.source, self.how)

    def prepared(self, pictures: np.ndarray) -> np.ndarray:
        """The model's input, float32 `[B, H, W, C]` (or `[B, C, H, W]`), of pictures, uint8."""
        prepare = preprocessing(self.scale)
        x = np.asarray(prepare(pictures.astype(np.float32)), np.float32)
        return np.moveaxis(x, -1, 1) if self.channels_first else x

    def pictures(self, files: Sequence[Path]) -> np.ndarray:
        """Pictures of the model's size, uint8 `[B, H, W, C]`."""
        size, mode = self._format()
        pictures = [_picture(file, mode, size, self.crop) for file in files]
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            raise UsageError(
                "Expected --size for pictures of different sizes, since the model takes any. "
                f"Received: pictures of {len(shapes)} sizes."
            )
        return np.stack(pictures)

    def _format(self) -> tuple[tuple[int, int] | None, str]:
        """Height and width, where they are known, and Pillow's mode."""
        shape = self.source.shape or (None, None, None, 3)
        if self.channels_first and len(shape) == 4:
            shape = (shape[0], *shape[2:], shape[1])
        if len(shape) != 4 or shape[-1] not in (1, 3):
            raise CommandError(
                "Expected a model of pictures [B, H, W, 3] or [B, H, W, 1]. Received: one of "
                f"inputs {_shape(shape)}. Of [B, C, H, W], say --data-format channels_first; else "
                "give the input as a .npy array."
            )
        mode = "RGB" if shape[-1] == 3 else "L"
        height, width = shape[1:3]
        if height is None or width is None:
            return self.size, mode
        if self.size not in (None, (height, width)):
            raise UsageError(
                f"Expected --size {height}x{width}, which the model takes. "
                f"Received: {'x'.join(map(str, self.size or ()))}."
            )
        return (height, width), mode


def _shape(shape: Iterable[int | None]) -> str:
    _, *rest = shape
    return f"[{', '.join(['B', *('any' if n is None else str(n) for n in rest)])}]"


def samples_of(inputs: Sequence[str], prepare: Preparation) -> Samples:
    """The samples in files and folders.

    Raises:
        CommandError: They can't be read, or do not suit the model.
    """
    files = _files(inputs)
    arrays = [file.suffix.lower() == ".npy" for file in files]
    if all(arrays):
        return _rows(files, prepare.source.shape)
    if any(arrays):
        raise UsageError(
            "Expected pictures, or .npy arrays. Received: both. Explain them one after the other."
        )
    pictures = prepare.pictures(files)
    names = distinct([file.stem for file in files])
    return Samples(names, files, prepare.prepared(pictures), pictures, prepare.scale)


def _files(inputs: Sequence[str]) -> list[Path]:
    """Files, and the pictures in folders, in the order of their names."""
    files: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            files += _pictures_in(path)
        elif path.is_file():
            files.append(path)
        else:
            raise CommandError(
                f"Expected a picture, a folder or a .npy file. Received: {str(path)!r}, which does "
                "not exist."
            )
    return files


def _pictures_in(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
    found = [path for path in found if path.is_file() and not path.name.startswith(".")]
    if not found:
        raise CommandError(
            f"Expected pictures in the folder {str(folder)!r}. Received: no file that ends in "
            f"{', '.join(PICTURES)}."
        )
    return found


def _picture(path: Path, mode: str, size: tuple[int, int] | None, crop: bool) -> np.ndarray:
    """A picture as it is meant to be seen, uint8 `[H, W, C]`."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
        picture = _plain(picture).convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CommandError(
            f"Expected a picture, as Pillow reads it, or a .npy array. Received: {str(path)!r}: "
            f"{error}"
        ) from error
    if size is not None:
        wanted, bilinear = (size[1], size[0]), Image.Resampling.BILINEAR
        fitted = ImageOps.fit(picture, wanted, bilinear) if crop else None
        picture = fitted or picture.resize(wanted, bilinear)
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _plain(picture: Image.Image) -> Image.Image:
    """A picture of 8 bits, and opaque: on white where it was transparent."""
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    if picture.mode.startswith("I"):  # 16 bits
        return Image.fromarray((np.asarray(picture) / 257).round().clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA"))
    return picture


def _rows(files: Sequence[Path], shape: tuple[int | None, ...] | None) -> Samples:
    """The samples of arrays; one without the axis of samples is one sample."""
    arrays = [_array(file) for file in files]
    if shape is not None:
        arrays = [array[None] if array.ndim == len(shape) - 1 else array for array in arrays]
    _check_alike(arrays, files, shape)
    names, owners = [], []
    for file, array in zip(files, arrays, strict=True):
        digits = len(str(len(array) - 1))
        every = [f"{file.stem}_{i:0{digits}d}" for i in range(len(array))]
        names += every if len(array) > 1 else [file.stem]
        owners += [file] * len(array)
    return Samples(distinct(names), owners, np.concatenate(arrays))


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CommandError(
            "Expected an array of numbers, as numpy.save writes it. "
            f"Received: {str(path)!r}: {error}"
        ) from error


def _check_alike(
    arrays: Sequence[np.ndarray], files: Sequence[Path], shape: tuple[int | None, ...] | None
) -> None:
    for file, array in zip(files, arrays, strict=True):
        expected = shape or (None, *arrays[0].shape[1:])
        fits = array.ndim == len(expected) and all(
            n in (None, m) for n, m in zip(expected[1:], array.shape[1:], strict=True)
        )
        if not fits or array.shape[1:] != arrays[0].shape[1:]:
            raise CommandError(
                f"Expected samples {_shape(expected)}, as the model takes them, of one shape. "
                f"Received: {str(file)!r} of shape {array.shape}."
            )
