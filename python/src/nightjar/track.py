"""Follow a run, and log it where a lab looks: MLflow, Weights & Biases.

    python -m nightjar.track --mlflow sqlite:///mlflow.db --experiment stories
    python -m nightjar.track --wandb stories --wandb-mode offline --dir runs/

It runs until the run is over. Started again, it goes on in the same MLflow or W&B run, and logs what is new.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nightjar._http import ApiError, Unreachable
from nightjar.run import Loss, Run, Status, Version


class Sink(Protocol):
    """Where numbers go. `step` is the tokens merged, so that runs can be laid over each other."""

    def log(self, numbers: dict[str, float], step: int, unix_ms: int) -> None: ...


class Mlflow:
    """A run of MLflow, under the run's name in an experiment."""

    def __init__(self, uri: str, experiment: str, name: str, run_id: str | None = None) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(experiment)
        where = known.experiment_id if known else self._client.create_experiment(experiment)
        self.run_id: str = run_id or self._client.create_run(where, run_name=name).info.run_id

    def log(self, numbers: dict[str, float], step: int, unix_ms: int) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(key, value, unix_ms, step) for key, value in numbers.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")


class Wandb:
    """A run of Weights & Biases, in a project."""

    def __init__(self, project: str, mode: str, folder: Path, name: str, run_id: str | None = None) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project=project, name=name, mode=mode, dir=str(folder), id=run_id, resume="allow")  # type: ignore[arg-type]
        self._run.define_metric("tokens")
        self._run.define_metric("*", step_metric="tokens")
        self.run_id: str = self._run.id

    def log(self, numbers: dict[str, float], step: int, unix_ms: int) -> None:
        self._run.log(numbers | {"tokens": step, "unix_ms": unix_ms})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def of_loss(loss: Loss) -> dict[str, float]:
    """A measurement as numbers by name, the names being those of `[track]` in run.toml."""
    return {"heldout/loss": loss.loss, "heldout/version": loss.version}


def of_version(version: Version) -> dict[str, float]:
    """A version as numbers by name."""
    numbers: dict[str, float] = {"version/number": version.version, "version/update_bytes": version.update_bytes}
    if version.round_ms is not None:
        numbers["version/round_s"] = version.round_ms / version.versions / 1000
    if version.agreement is not None:
        numbers["version/agreement"] = version.agreement
    return numbers


def follow(
    run: Run, sinks: Sequence[Sink], *, after: dict[str, int] | None = None, poll_s: float = 5.0
) -> Iterator[dict[str, int]]:
    """Logs what is new until the run is over. After each turn it tells how far it is: give that as `after` to go on."""
    done = {"loss": -1, "version": -1} | (after or {})
    for _, losses, versions in run.follow(poll_s=poll_s):
        for loss in (loss for loss in losses if loss.wall > done["loss"]):
            for sink in sinks:
                sink.log(of_loss(loss), loss.tokens, loss.wall)
            done["loss"] = loss.wall
        for version in (version for version in versions if version.version > done["version"]):
            for sink in sinks:
                sink.log(of_version(version), version.tokens, version.wall)
            done["version"] = version.version
        yield dict(done)


class Memory:
    """What was logged, and where: a small file, so that a start goes on where the one before ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def keep(self, **more: Any) -> None:
        self.kept |= more
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.kept), "utf-8")
        new.replace(self.path)


@contextmanager
def _sinks(given: argparse.Namespace, status: Status, memory: Memory) -> Iterator[list[Sink]]:
    sinks: list[Any] = []
    finished = False
    try:
        if given.mlflow:
            sinks.append(Mlflow(given.mlflow, given.experiment, status.run, memory.kept.get("mlflow")))
            memory.keep(mlflow=sinks[-1].run_id)
        if given.wandb:
            folder = given.dir / "wandb"
            sinks.append(Wandb(given.wandb, given.wandb_mode, folder, status.run, memory.kept.get("wandb")))
            memory.keep(wandb=sinks[-1].run_id)
        yield sinks
        finished = True
    finally:
        for sink in sinks:
            sink.close(finished)


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m nightjar.track", description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8433", help="where the coordinator's page is")
    parser.add_argument("--mlflow", metavar="URI", help="a server of MLflow, or sqlite:///FILE, or a folder")
    parser.add_argument("--experiment", default="nightjar", help="the experiment of MLflow")
    parser.add_argument("--wandb", metavar="PROJECT", help="a project of Weights & Biases")
    parser.add_argument("--wandb-mode", choices=["online", "offline"], default="online")
    parser.add_argument("--dir", type=Path, default=Path("."), help="where files are written")
    parser.add_argument("--poll-s", type=float, default=5.0, help="seconds between two looks")
    given = parser.parse_args(words)
    if not (given.mlflow or given.wandb):
        parser.error("name --mlflow or --wandb; TensorBoard and CSV need a line in run.toml only: [track]")
    given.dir.mkdir(parents=True, exist_ok=True)
    run = Run(given.url)
    try:
        status = run.status()
        memory = Memory(given.dir / ".nightjar-track.json")
        if memory.kept.setdefault("run", status.run) != status.run:
            parser.error(f"{memory.path} is of the run {memory.kept['run']!r}: choose another --dir")
        with _sinks(given, status, memory) as sinks:
            while True:
                try:
                    for done in follow(run, sinks, after=memory.kept.get("done"), poll_s=given.poll_s):
                        memory.keep(run=status.run, done=done)
                    return 0
                except Unreachable as error:
                    # It is started again, perhaps.
                    print(f"{error}; trying again", file=sys.stderr)
                    time.sleep(given.poll_s)
    except (ApiError, Unreachable, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
