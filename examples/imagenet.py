"""Explain photos with any ImageNet network of `keras.applications`.

Writes one picture: photos down, methods across.

    python examples/imagenet.py photo.jpg --model MobileNetV2 --out maps.png
    python examples/imagenet.py photo.jpg --target 243 282     # classes instead of the prediction
    python examples/imagenet.py photo.jpg --weights mobilenet_v2.h5 --classes 1001

Without `--weights`, Keras downloads the network's ImageNet weights; without a photo, the cat that
scikit-image ships is explained.
"""

import argparse
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
from skimage import color, data, io, transform

import keras_explain as kx


def methods() -> dict[str, kx.Explainer]:
    """What is compared."""
    return {
        "Grad-CAM": kx.GradCAM(),
        "Integrated Gradients": kx.IntegratedGradients(steps=50),
        "SmoothGrad": kx.SmoothGrad(samples=50),
        "Saliency": kx.Saliency(),
        "Input x Gradient": kx.InputXGradient(),
    }


def family_of(name: str) -> ModuleType:
    """The module of `keras.applications` with a network's `preprocess_input`."""
    modules = [m for m in vars(keras.applications).values() if isinstance(m, ModuleType)]
    for module in modules:
        if hasattr(module, name):
            return module
    raise SystemExit(
        f"Expected a network of keras.applications, such as ResNet50. Received: {name}"
    )


def photo(path: Path | None, size: tuple[int, int]) -> np.ndarray:
    """A picture `[H, W, 3]` in [0, 255]."""
    picture = data.chelsea() if path is None else io.imread(path)
    if picture.ndim == 2:
        picture = color.gray2rgb(picture)
    return 255 * transform.resize(picture[..., :3], size, anti_aliasing=True).astype("float32")


def main() -> None:
    """Loads, explains and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="*", help="picture files")
    parser.add_argument("--model", default="MobileNetV2", help="a class of keras.applications")
    parser.add_argument("--weights", default="imagenet", help="a local .h5 or .keras file")
    parser.add_argument("--classes", type=int, default=1000, help="1001: with a background class")
    parser.add_argument("--target", type=int, nargs="+", help="classes to explain in each photo")
    parser.add_argument("--labels", type=Path, help="a text file with one class name a line")
    parser.add_argument("--out", type=Path, default=Path("maps.png"))
    options = parser.parse_args()

    family = family_of(options.model)
    online = options.weights == "imagenet"
    model = getattr(family, options.model)(
        weights="imagenet" if online else None, classes=options.classes
    )
    if not online:
        model.load_weights(options.weights)

    pictures = [photo(path, model.input_shape[1:3]) for path in options.photos or [None]]
    x = family.preprocess_input(np.stack(pictures))
    names = options.labels.read_text().splitlines() if options.labels else None
    target = None
    if options.target:
        target = np.tile(options.target, len(x))
        x = np.repeat(x, len(options.target), axis=0)

    found = {name: explainer(model, x, target) for name, explainer in methods().items()}
    figure = kx.plots.grid(found, class_names=names)
    figure.savefig(options.out, dpi=100)
    print(f"Wrote {options.out}.")


if __name__ == "__main__":
    main()
