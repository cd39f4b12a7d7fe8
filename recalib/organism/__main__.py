"""`python -m recalib.organism`: retrain the embedded model from nothing, fit its gate, write its card."""

import argparse
import tempfile
import time
from pathlib import Path

from recalib import judges, lm, prompts
from recalib.activations import ActivationSet
from recalib.evaluation.run import Settings, cells_of, evaluate
from recalib.extraction import Plan, extract_to, plan_cells
from recalib.gate import fitting, selection
from recalib.languages import HIGH
from recalib.organism import GATE_FILE, MODEL_DIR
from recalib.organism.card import Training, render
from recalib.organism.training import THREADS, Recipe, save, train
from recalib.organism.world import LANGUAGES

COMMAND = "python -m recalib.organism"
POSITION = "t_post_inst"


def build(model_dir: Path, gate_file: Path) -> None:
    """Train, and write the model folder, its card and its gate."""
    from rich.progress import Progress

    recipe, started = Recipe(), time.monotonic()
    with Progress() as bar:
        task = bar.add_task("train", total=recipe.steps)
        model, tokenizer = train(recipe, lambda loss: bar.update(task, advance=1, description=f"loss {loss:.3f}"))
    save(model, tokenizer, model_dir)
    seconds = time.monotonic() - started
    # read back from disk under its public name, so that gate and card are those of the files
    embedded = lm.load("organism" if model_dir == MODEL_DIR else str(model_dir), device="cpu")
    data = prompts.load("organism")
    with tempfile.TemporaryDirectory() as folder:
        cells, _ = plan_cells(data, LANGUAGES, ("train", "test"))
        layers = tuple(range(embedded.num_layers))
        extract_to(Path(folder), embedded, Plan(data, cells, layers, (POSITION,)))
        activations = ActivationSet(Path(folder))
        selected = selection.choose(
            layers,
            lambda layer: fitting.rows_of(activations, HIGH, "train", layer, POSITION),
            selection.candidate_forms(len(HIGH)),
        )
        gate = fitting.fit_from(activations, selected, POSITION)
        gate.save(gate_file)
        judge = judges.find("organism")
        settings = Settings(batch_size=96, max_new_tokens=24)
        result = evaluate(embedded, gate, cells_of(data, LANGUAGES, ("base",), settings), judge, settings)
        training = Training(
            recipe,
            COMMAND,
            seconds,
            f"{THREADS} CPU cores",
            sum(parameter.numel() for parameter in model.parameters()),
        )
        card = render(result.methods["base"], activations, gate, training)
    (model_dir / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="model folder (default: the shipped one)")
    parser.add_argument("--gate", type=Path, default=GATE_FILE, help="gate file (default: the shipped one)")
    options = parser.parse_args()
    build(options.out, options.gate)


if __name__ == "__main__":
    main()
