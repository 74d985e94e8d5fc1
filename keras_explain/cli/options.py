"""The command line. It is read without any heavy library."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from keras_explain.cli.calls import calls
from keras_explain.cli.errors import APPLICATION, DONE, PROGRAM

_EXIT_CODES = """\
exit codes: 0 done; 1 failed, with the reason on stderr; 2 the command line can't be meant"""


_EXAMPLES = f"""\
examples:
  {PROGRAM} explain model.keras photo.jpg --preprocess 0..1
  {PROGRAM} explain {APPLICATION}MobileNetV2 photos/ -m grad_cam -m integrated_gradients
  {PROGRAM} methods grad_cam
  {PROGRAM} report logs -o report.html

`{PROGRAM} COMMAND --help` says more about a command.

{_EXIT_CODES}"""


_EXPLAIN_EXAMPLES = f"""\
a model of your own; its pictures were scaled to 0..1 in training:
  {PROGRAM} explain model.keras cat.jpg dog.jpg --preprocess 0..1 -o out

a network with ImageNet weights; what speaks for the three likeliest classes, by two methods:
  {PROGRAM} explain {APPLICATION}ResNet50 photos/ --target top3 \\
      -m grad_cam -m "integrated_gradients(steps=64, baseline=Blur(sigma=20))"

without a network connection, with weights that are on the disk:
  {PROGRAM} explain {APPLICATION}MobileNetV2 cat.jpg --weights mobilenet_v2.h5

a table, as the model takes it, against 100 rows of the training data:
  {PROGRAM} explain model.keras rows.npy -m "kernel_shap(background=train100.npy)" \\
      --feature-names columns.txt --class-names classes.txt --target yes

what is written:
  out/cat.png        the picture, with the map of each method beside it
  out/grad_cam.npz   the raw values of all inputs: keras_explain.Explanation.load(path)
  out/scores.csv     a row for each input, method and class
  out/scores.json    the same, with the predictions and how all was made

how a method is written:
  its name, and the parameters that are not to have their defaults: "occlusion(patch=32, stride=8)".
  Words need no quotes (layer=conv5, method=quickshift), others do (layer='conv-5'). What is a class
  in Python can be named: explainer=saliency, baseline=Blur(10), features=Grid(cells=6). Arrays
  and backgrounds are files: background=train100.npy, background='some/photos/'.

{_EXIT_CODES}"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. `command` is None where none is given."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Why did the model say that? Explains the predictions of Keras models, and "
        "writes what was logged in training as one page.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for add in (_add_explain, _add_methods, _add_report):
        add(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version, which is read when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, help="print the version and exit", **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from keras_explain import __version__

        print(f"{PROGRAM} {__version__}")
        parser.exit(DONE)


def _command(commands: Any, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    troubles = command.add_argument_group("when something goes wrong")
    troubles.add_argument("--debug", action="store_true", help="show Python's traceback")
    troubles.add_argument("--verbose", action="store_true", help="show TensorFlow's own messages")
    return command


def _add_explain(commands: Any) -> None:
    command = _command(
        commands, "explain", "explain what a model makes of inputs", _EXPLAIN_EXAMPLES
    )
    command.add_argument(
        "model",
        metavar="MODEL",
        help=f"a .keras file, or {APPLICATION}NAME such as {APPLICATION}MobileNetV2",
    )
    command.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a picture, a folder of pictures, or a .npy array of samples as the model takes them",
    )
    _add_what(command.add_argument_group("what is explained, and how"))
    _add_model(command.add_argument_group("the model"))
    _add_pictures(command.add_argument_group("pictures as inputs"))
    _add_written(command.add_argument_group("what is written"))


def _add_what(group: Any) -> None:
    group.add_argument(
        "-m",
        "--method",
        action="extend",
        type=calls,
        metavar="METHOD",
        help='such as grad_cam or "integrated_gradients(steps=64)"; may be given more than once. '
        f"`{PROGRAM} methods` lists all. By default grad_cam for pictures, integrated_gradients "
        "for anything else",
    )
    group.add_argument(
        "-t",
        "--target",
        action="append",
        metavar="CLASS",
        help="the class to explain: a number, a name, top3 (the three likeliest) or predicted "
        "(the default); several with commas, or by several --target",
    )
    group.add_argument(
        "--output-name",
        metavar="OUTPUT",
        help="which output is explained, where the model has several: its name or position",
    )
    group.add_argument(
        "--batch-size", type=_at_least(1), metavar="N", help="how many rows run at once"
    )
    group.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="the same seed gives the same values (default: %(default)s)",
    )


def _add_model(group: Any) -> None:
    group.add_argument(
        "--weights",
        metavar="FILE",
        help=f"of {APPLICATION}NAME: imagenet (the default; Keras downloads them once), a file, "
        "or none for random ones",
    )
    group.add_argument(
        "--classes",
        type=_at_least(1),
        metavar="N",
        help=f"of {APPLICATION}NAME with a file of weights: the number of classes (default: 1000)",
    )
    group.add_argument(
        "--class-names", metavar="FILE", help="a text file with a name a line, or a JSON list"
    )
    group.add_argument(
        "--data-format",
        choices=("channels_last", "channels_first", "no_channels"),
        help="where the channels of the input are; by default the model's layers say (pictures are "
        "given to it with the channels last)",
    )
    _add_import(group)
    group.add_argument(
        "--trust",
        action="store_true",
        help="also load files with Python code in them (Lambda layers); never a stranger's",
    )


def _add_import(group: Any) -> None:
    group.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module to import first, which registers layers or explainers of your own",
    )


def _add_pictures(group: Any) -> None:
    group.add_argument(
        "--preprocess",
        metavar="HOW",
        help="what the model takes: 0..1 or any such range, none (bytes, 0..255), or what a "
        "network of keras.applications does, such as ResNet50. By default that of MODEL; a "
        ".keras file needs it, unless it has a Rescaling or Normalization layer",
    )
    group.add_argument(
        "--size",
        type=_size,
        metavar="HxW",
        help="for models that take any size: the size of the pictures, as in 224x224",
    )
    group.add_argument(
        "--crop",
        action="store_true",
        help="cut off what does not fit the model's proportions; by default pictures are stretched",
    )


def _add_written(group: Any) -> None:
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="the folder for all that is written (default: %(default)s)",
    )
    group.add_argument(
        "--force", action="store_true", help="replace files that are there; by default it stops"
    )
    group.add_argument(
        "--figures",
        choices=("grid", "each", "none"),
        default="grid",
        help="pictures: one figure an input with all methods (grid), or one a method (each); "
        "anything else has one a method (default: %(default)s)",
    )
    group.add_argument(
        "--max-figures",
        type=_at_least(1),
        default=64,
        metavar="N",
        help="how many inputs have figures; the values of all are written (default: %(default)s)",
    )
    group.add_argument(
        "--show",
        choices=("overlay", "map", "signed", "masked", "waterfall"),
        help="how pictures, or tables (waterfall), are drawn (default: overlay, and bars)",
    )
    group.add_argument(
        "--feature-names", metavar="FILE", help="of tables and series: a name a line"
    )
    group.add_argument(
        "--vocabulary", metavar="FILE", help="of token ids: the word of id n in line n"
    )


def _add_methods(commands: Any) -> None:
    epilog = f"examples:\n  {PROGRAM} methods\n  {PROGRAM} methods grad_cam\n\n{_EXIT_CODES}"
    command = _command(commands, "methods", "list the methods, with their parameters", epilog)
    command.add_argument("name", metavar="NAME", nargs="?", help="one method, of which all is told")
    _add_import(command)


def _add_report(commands: Any) -> None:
    epilog = f"example:\n  {PROGRAM} report logs -o report.html\n\n{_EXIT_CODES}"
    summary = "write what was logged in training as one HTML file that opens offline"
    command = _command(commands, "report", summary, epilog)
    command.add_argument(
        "log_dir", metavar="LOGDIR", type=Path, help="the log_dir of ExplanationLogger"
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the file to write (default: %(default)s)",
    )
    command.add_argument(
        "--max-steps",
        type=_at_least(2),
        metavar="N",
        help="keep at most so many steps of each run, evenly spaced, with the first and the last "
        "(default: all)",
    )
    command.add_argument("--force", action="store_true", help="replace the file if it is there")


def joined(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--preprocess -1..1` as one, for argparse takes `-1..1` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--preprocess":
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of {least} or more, received {text!r}"
            )
        return int(text)

    return number


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected height and width as in 224x224, received {text!r}"
        )
    return int(found[1]), int(found[2] or found[1])
