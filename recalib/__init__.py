"""recalib: few-shot safety recalibration of language models (method: arXiv 2606.01196).

gate = recalib.Gate.load("gate.safetensors")
with recalib.steering(model, tokenizer, gate, languages=["sw", "en"]) as routed:
    output = model.generate(**inputs)
routed.decisions
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recalib.gate.gate import Gate
    from recalib.routing.steering import steering

__version__ = "0.1.0"
__all__ = ["Gate", "steering"]


def __getattr__(name: str) -> Any:
    # imported when asked for, because torch takes seconds and `recalib --help` has half a one
    if name == "Gate":
        from recalib.gate.gate import Gate

        return Gate
    if name == "steering":
        from recalib.routing.steering import steering

        return steering
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
