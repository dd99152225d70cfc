"""MLflow: one of its runs for each run, in a store of its own or on a server."""

import contextlib
import time
from pathlib import Path

from filelock import FileLock

from fa_jax.loggers.logger import NUMBER, Opener, Tracker, needed, number_of
from fa_jax.records.conditions import options

NUMBERS, PARAMS = 1000, 100
"""How many of each MLflow takes in one call."""
LONGEST = 500
"""Letters of a param that it keeps."""


def mlflow(*, uri: str, experiment: str) -> Opener:
    """Returns what opens a `Tracker` that makes one run of the tracker's, with the options as its params.

    A run that is resumed goes on in the same one.

    Args:
      uri: of the store: `sqlite:///PATH`, or a server's.
      experiment: the one it belongs to there, made where it is not.

    Raises:
      BadOption: if mlflow is not installed.
    """
    package, entities = needed("mlflow", "mlflow"), needed("mlflow", "mlflow.entities")

    def start(folder, config):
        scheme, _, path = uri.partition(":///")
        local = Path(path).absolute() if scheme == "sqlite" else None
        if local is not None:
            local.parent.mkdir(parents=True, exist_ok=True)
        # Of jobs that run side by side, one makes the store and the experiment.
        with contextlib.nullcontext() if local is None else FileLock(local.with_suffix(".lock")):
            client = package.MlflowClient(tracking_uri=uri)
            there = client.get_experiment_by_name(experiment)
            artifacts = None if local is None else local.with_name("mlartifacts").as_uri()
            number = there.experiment_id if there else client.create_experiment(experiment, artifact_location=artifacts)

        def make():
            return client.create_run(number, run_name=str(folder)).info.run_id

        run = number_of(folder, make)
        try:
            client.update_run(run, status="RUNNING")
        except package.exceptions.MlflowException:  # it is not in this store, or not any more
            (folder / NUMBER).unlink()
            run = number_of(folder, make)
        chosen = {**config["choices"], **options(config)}
        params = [entities.Param(key, value[:LONGEST]) for key, value in chosen.items() if value]
        for i in range(0, len(params), PARAMS):
            client.log_batch(run, params=params[i : i + PARAMS])

        def scalars(examples, values):
            now = int(1000 * time.time())
            metrics = [entities.Metric(name, value, now, examples) for name, value in values.items()]
            for i in range(0, len(metrics), NUMBERS):
                client.log_batch(run, metrics=metrics[i : i + NUMBERS])

        def close(finished):
            client.set_terminated(run, "FINISHED" if finished else "FAILED")

        return Tracker(scalars, lambda path: client.log_artifact(run, str(path)), close)

    return start
