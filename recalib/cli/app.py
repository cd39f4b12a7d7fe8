"""The commands, put together. torch and transformers are imported inside them, so --help is quick."""

from typing import Annotated

import typer

from recalib import __version__
from recalib.cli.calibrate import calibrate
from recalib.cli.check import check
from recalib.cli.demo import demo
from recalib.cli.doctor import doctor
from recalib.cli.evaluate import evaluate
from recalib.cli.extract import extract
from recalib.cli.fit_gate import fit_gate
from recalib.cli.inspect import inspect
from recalib.cli.steer import steer

app = typer.Typer(
    help="Few-shot safety recalibration of language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recalib {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """Few-shot safety recalibration of language models.

    extract activations, fit a gate on high-resource languages, calibrate it with a few examples of a new
    language, then steer the model with it and evaluate what it does.
    """


app.command("extract")(extract)
app.command("fit-gate")(fit_gate)
app.command("calibrate")(calibrate)
app.command("steer")(steer)
app.command("eval")(evaluate)
app.command("check")(check)
app.command("inspect")(inspect)
app.command("doctor")(doctor)
app.command("demo")(demo)
