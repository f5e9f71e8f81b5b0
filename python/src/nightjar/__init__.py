"""Look after a Nightjar run: its curves, devices and invites, and the model at the end.

>>> from nightjar import Run
>>> run = Run("http://127.0.0.1:8433")
>>> run.status().heldout_loss
2.41
"""

from nightjar._http import ApiError, Unreachable
from nightjar.coordinator import Coordinator, Device, ProgramError
from nightjar.run import (
    DeviceInfo,
    Devices,
    Invite,
    Loss,
    Metrics,
    Run,
    Status,
    Version,
)

__all__ = [
    "ApiError",
    "Coordinator",
    "Device",
    "DeviceInfo",
    "Devices",
    "Invite",
    "Loss",
    "Metrics",
    "ProgramError",
    "Run",
    "Status",
    "Unreachable",
    "Version",
]
