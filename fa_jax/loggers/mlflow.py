"""MLflow: one MLflow run for each run, in a local store or on a server."""

import contextlib
import time
from pathlib import Path

from filelock import FileLock

from fa_jax.loggers.logger import RUN_ID, Logger, OpenLogger, import_package, run_id
from fa_jax.records.options import options

METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100
"""MLflow's limits on one call."""
PARAM_LENGTH = 500
"""MLflow's limit on the characters of a param."""


def mlflow(*, uri: str, experiment: str) -> OpenLogger:
    """Returns a function that opens an MLflow run, with the options as its params; a resumed run continues it.

    Args:
      uri: of the store, `sqlite:///PATH`, or of a server.
      experiment: the name of the MLflow experiment, created if it does not exist.

    Raises:
      BadOption: if mlflow is not installed.
    """
    package, entities = import_package("mlflow", "mlflow"), import_package("mlflow", "mlflow.entities")

    def open_logger(folder, config):
        scheme, _, path = uri.partition(":///")
        local = Path(path).absolute() if scheme == "sqlite" else None
        if local is not None:
            local.parent.mkdir(parents=True, exist_ok=True)
        # One of several parallel jobs creates the store and the experiment.
        with contextlib.nullcontext() if local is None else FileLock(local.with_suffix(".lock")):
            client = package.MlflowClient(tracking_uri=uri)
            existing = client.get_experiment_by_name(experiment)
            artifacts = None if local is None else local.with_name("mlartifacts").as_uri()
            experiment_id = (
                existing.experiment_id
                if existing
                else client.create_experiment(experiment, artifact_location=artifacts)
            )

        def create():
            return client.create_run(experiment_id, run_name=str(folder)).info.run_id

        run = run_id(folder, create)
        try:
            client.update_run(run, status="RUNNING")
        except package.exceptions.MlflowException:  # the run is not in this store
            (folder / RUN_ID).unlink()
            run = run_id(folder, create)
        params = [
            entities.Param(key, value[:PARAM_LENGTH])
            for key, value in {**config["choices"], **options(config)}.items()
            if value
        ]
        for i in range(0, len(params), PARAMS_PER_CALL):
            client.log_batch(run, params=params[i : i + PARAMS_PER_CALL])

        def scalars(examples, values):
            now = int(1000 * time.time())
            metrics = [entities.Metric(name, value, now, examples) for name, value in values.items()]
            for i in range(0, len(metrics), METRICS_PER_CALL):
                client.log_batch(run, metrics=metrics[i : i + METRICS_PER_CALL])

        def close(finished):
            client.set_terminated(run, "FINISHED" if finished else "FAILED")

        return Logger(scalars, lambda path: client.log_artifact(run, str(path)), close)

    return open_logger
