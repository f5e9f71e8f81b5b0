"""Reads a folder as TensorBoard does: prints each name's points as JSON, [step, wall_time, value] each."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
names = events.Tags()["scalars"]
print(json.dumps({name: [[e.step, e.wall_time, e.value] for e in events.Scalars(name)] for name in names}))
