"""The lab's side, with a strategy of Flower as it is."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg

from nightjar_app.task import first_weights

app = ServerApp()

STRATEGIES = {
    "fedavg": lambda: FedAvg(),
    "fedadam": lambda: FedAdam(eta=0.01, tau=0.001),
}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains for some rounds, and keeps what comes of it."""
    config = context.run_config
    record = ArrayRecord({name: Array(value) for name, value in first_weights(config).items()})
    strategy = STRATEGIES[config["strategy"]]()
    result = strategy.start(
        grid=grid,
        initial_arrays=record,
        num_rounds=config["num-server-rounds"],
        timeout=3600,
    )
    if config["save"]:
        np.savez(config["save"], **{name: array.numpy() for name, array in result.arrays.items()})
