"""Options that every command has, and what every command does with errors."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from recalib.cli.config import read_config
from recalib.cli.output import Output
from recalib.errors import RecalibError

INTERRUPTED = 130

Model = Annotated[
    str | None,
    typer.Option(help="Folder or Hub id of the model.", show_default="the gate's, else the embedded one"),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Prompts: organism, starter, a PolyRefuse folder, a JSONL/CSV/Parquet file, or a Hub data set id.",
        show_default="organism for the embedded model, else starter",
    ),
]
Columns = Annotated[
    str,
    typer.Option(help="Column names of a table or data set, as prompt=text,label=unsafe.", show_default=False),
]
GatePath = Annotated[
    Path | None,
    typer.Option(
        "--gate",
        envvar="RECALIB_GATE",
        help="The gate.",
        show_default="artifacts/gate.safetensors, else the embedded model's",
    ),
]
Activations = Annotated[
    Path | None, typer.Option(help="Folder of extracted activations, instead of running the model.")
]
Limit = Annotated[int, typer.Option(min=0, help="At most N prompts per language and class; 0: all.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Prompts generated at a time.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest completion, in tokens.")]


@dataclass(frozen=True)
class Common:
    """The values of the options that every command has."""

    output: Output
    seed: int
    device: str
    dtype: str
    revision: str | None


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options, and turn what users can mend into a line and an exit code.

    The command declares a parameter `common: Common` in their place.
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.name != "common"]
    shared = list(inspect.signature(_options).parameters.values())

    @functools.wraps(function)
    def run(**values: Any) -> None:
        options = {p.name: values.pop(p.name) for p in shared}
        output = Output(options["json"], options["quiet"])
        common = Common(output, options["seed"], options["device"], options["dtype"], options["revision"])
        try:
            function(common=common, **values)
        except RecalibError as error:
            output.error(error)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            output.error(_from_os(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            output.warn("interrupted; what was finished is kept")
            raise typer.Exit(INTERRUPTED) from None

    run.__signature__ = signature.replace(parameters=own + shared)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in own + shared}
    return run


def _options(
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with option values; a table [COMMAND] is for one command.",
            is_eager=True,
            callback=read_config,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(help="auto (the checkpoint's; float32 on CPU), float32, bfloat16 or float16."),
    ] = "auto",
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub model.", show_default=False)
    ] = None,
) -> None:
    """The common options, written once as a signature."""


def _from_os(error: OSError) -> RecalibError:
    name = f"{error.filename}: " if error.filename else ""
    return RecalibError(f"{name}{error.strerror or error}", fix="check the path, its permissions and the free space")
