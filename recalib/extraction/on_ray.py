"""The shards of an extraction as a Ray Data pipeline: actors hold the model, each takes one shard after the other."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recalib import lm
from recalib.errors import RecalibError, UsageError
from recalib.extraction.plan import Plan
from recalib.extraction.store import extract_to
from recalib.lm.batching import Advance
from recalib.shards import Shard


@dataclass(frozen=True)
class Job:
    """What every actor needs: the model, as for `lm.load`, the plan, and what `extract_to` takes."""

    model: str
    revision: str | None
    device: str
    dtype: str
    trust_remote_code: bool
    plan: Plan
    out: Path
    batch_tokens: int | None
    overwrite: bool


def extract_on_ray(job: Job, shards: int, advance: Advance = lambda n: None) -> int:
    """Extract all shards on the cluster that RAY_ADDRESS names, or on this machine.

    As many shards as the cluster has GPUs (nodes, if it has none) where `shards` is 0; each actor gets one GPU.
    Every node must see `job.out` and have recalib installed.

    Returns the number of files skipped. Raises what `extract_to` raises, UsageError without the extra.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--engine ray needs Ray", fix="pip install 'recalib[ray]'") from error
    ray.init(log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = shards or gpus or len(ray.nodes())
    pipeline = ray.data.from_items([{"index": k, "count": count} for k in range(count)], override_num_blocks=count)
    done = pipeline.map_batches(
        _Extractor,
        fn_constructor_args=(job,),
        batch_size=1,
        num_gpus=1 if gpus else 0,
        compute=ray.data.ActorPoolStrategy(size=min(count, gpus or count)),
    )
    skipped = 0
    for row in done.iter_rows():
        if row["error"]:
            raise RecalibError(row["error"], fix=row["fix"] or None)
        advance(int(row["prompts"]))
        skipped += int(row["skipped"])
    return skipped


class _Extractor:
    """An actor: loads the model once, and extracts the shards that it is given."""

    def __init__(self, job: Job):
        self.job = job
        self.lm = lm.load(
            job.model,
            revision=job.revision,
            device=job.device,
            dtype=job.dtype,
            trust_remote_code=job.trust_remote_code,
            blocks=max(job.plan.layers) + 1,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        rows = [self._extract(Shard(int(k), int(n))) for k, n in zip(batch["index"], batch["count"], strict=True)]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _extract(self, shard: Shard) -> dict[str, Any]:
        plan = replace(self.job.plan, shard=shard)
        try:
            skipped = extract_to(self.job.out, self.lm, plan, self.job.batch_tokens, self.job.overwrite)
        except RecalibError as error:
            # as data: Ray would wrap the exception, and try the shard again
            return {"prompts": 0, "skipped": 0, "error": str(error), "fix": error.fix or ""}
        return {"prompts": plan.count, "skipped": skipped, "error": "", "fix": ""}
