"""Write the golden gate's inputs as a folder of activations, so that recalib's commands run on them.

python examples/bench/golden_activations.py SHARED/golden/gate.safetensors OUT
recalib fit-gate --activations OUT --out OUT/gate.safetensors
recalib eval --gate OUT/gate.safetensors --activations OUT --langs low --study shots --out OUT/study
"""

import sys
from pathlib import Path

from safetensors.numpy import load_file

from recalib import artifact
from recalib.activations import SCHEMA, ActivationsMeta


def main(source: Path, out: Path) -> None:
    """Tensors `{language}.{split}.{label}` [n, hidden] become cells of one layer and position."""
    for name, rows in load_file(source).items():
        parts = name.split(".")
        if parts[0] == "out" or len(parts) != 3:
            continue  # what the released implementation answered
        language, split, label = parts
        meta = ActivationsMeta((0,), ("t_post_inst",), language=language, split=split, label=label, count=len(rows))
        path = out / language / split / f"{label}.safetensors"
        artifact.write(path, SCHEMA, {"activations": rows[:, None, None]}, meta)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
