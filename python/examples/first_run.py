"""From a folder of text to a model, in one script: a coordinator, an anchor node and a volunteer on this computer.

    python examples/first_run.py texts/ experiment/

Needs the programs `nightjar-coordinator` and `nightjar` in the path, or in the folder that NIGHTJAR_BIN names.
"""

# %% What to train, and where
import sys
from pathlib import Path

from nightjar import Coordinator, Device

texts, folder = (Path(word) for word in (sys.argv[1:] + ["texts", "experiment"])[:2])

# %% A run of a small model: `new` prepares the text and writes run.toml, which explains every key
coordinator = Coordinator.new(folder / "run", data=[texts], model="1M", context=64, tokens="200k")

# %% Serve it, let two devices join, and wait
with coordinator:
    run = coordinator.run
    volunteer = run.invite(coordinator.address, devices=1)
    anchor = run.invite(coordinator.address, role="anchor", devices=1)
    with (
        Device(folder / "anchor", anchor.link, name="anchor", anchor=True),
        Device(folder / "owl", volunteer.link, name="owl"),
    ):
        for status, losses, versions in run.follow(poll_s=1.0):
            for loss in losses:
                print(f"{status.progress:6.1%}  version {loss.version:<4} {loss.loss:.4f} nats a byte")
    for device in run.devices():
        print(f"{device.name}: {device.tokens} tokens")

    # %% Take the model home: the average of the last four versions, as transformers loads it
    newest = run.status().version or 0
    model = coordinator.export(folder / "model", "--average", str(min(4, newest + 1)))
    print(f"written to {model}")
