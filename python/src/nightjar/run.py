"""A run that is served: how it stands, its curves, its devices, its invites."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote

from nightjar._http import Api, Unreachable, token_from

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")
R = TypeVar("R")


def _of(kind: type[T], answer: dict[str, Any]) -> T:
    """The fields that are known here; a newer coordinator may tell more."""
    return kind(**{each.name: answer[each.name] for each in fields(kind) if each.name in answer})  # type: ignore[arg-type]


def _frame(rows: Sequence[Any]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("dataframes need pandas: pip install 'nightjar-lab[dataframe]'") from error
    return pandas.DataFrame([asdict(row) for row in rows])


@dataclass(frozen=True)
class Status:
    """A run at a glance."""

    run: str
    version: int | None
    heldout_loss: float | None
    tokens: int
    token_budget: int
    tokens_per_s: float
    merged: int
    bytes_up: int
    bytes_down: int
    leases_open: int
    finished: bool
    heldout_version: int | None = None
    paused_unix_ms: int | None = None
    trouble: str | None = None
    states: dict[str, int] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """The share of the token budget that is used up, 0 to 1."""
        return min(self.tokens / max(self.token_budget, 1), 1.0)


@dataclass(frozen=True)
class Loss:
    """A measurement of held-out loss, or several that follow each other: the newest, and how far all of them went."""

    version: int
    tokens: int
    wall: int
    """When it was measured, in milliseconds since 1970."""
    loss: float
    """Nats a byte."""
    loss_min: float
    loss_max: float

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.wall / 1000, tz=timezone.utc)


@dataclass(frozen=True)
class Version:
    """A published version, or several that follow each other: the newest, and their rounds."""

    version: int
    tokens: int
    wall: int
    """When it was published, in milliseconds since 1970."""
    update_bytes: int
    keyframe_bytes: int
    versions: int
    """How many versions these are."""
    round_ms: int | None = None
    agreement: float | None = None

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.wall / 1000, tz=timezone.utc)


@dataclass(frozen=True)
class Metrics:
    """A run's curves. Of a long run neighbours are taken together, so that a curve has at most 500 points."""

    losses: list[Loss]
    versions: list[Version]

    def dataframe(self, what: str = "losses") -> pandas.DataFrame:
        """`losses` or `versions` as a table of pandas."""
        if what not in ("losses", "versions"):
            raise ValueError(f"{what!r} is no curve: losses or versions")
        return _frame(getattr(self, what))


@dataclass(frozen=True)
class DeviceInfo:
    """A device at a glance."""

    id: str
    name: str
    device: str
    role: str
    state: str
    tokens: int
    leases: int
    tokens_per_s: float
    invite: str
    enrolled_unix_ms: int
    revoked_unix_ms: int | None = None
    public_name: str | None = None
    name_hidden: bool = False


class Devices(Sequence[DeviceInfo]):
    """Devices of a run, as they were when they were asked for."""

    def __init__(self, devices: list[DeviceInfo]) -> None:
        self._devices = devices

    @overload
    def __getitem__(self, at: int) -> DeviceInfo: ...
    @overload
    def __getitem__(self, at: slice) -> Devices: ...
    def __getitem__(self, at: int | slice) -> DeviceInfo | Devices:
        return Devices(self._devices[at]) if isinstance(at, slice) else self._devices[at]

    def __len__(self) -> int:
        return len(self._devices)

    def __repr__(self) -> str:
        return f"Devices({self._devices!r})"

    def dataframe(self) -> pandas.DataFrame:
        """All of them as a table of pandas."""
        return _frame(self._devices)


@dataclass(frozen=True)
class Invite:
    """Whoever has the link can join."""

    nonce: str
    link: str


class Run:
    """A run that a coordinator serves.

    `url` is where its page is. A token is needed for devices, invites and orders: `nightjar-coordinator token create`
    makes one. Without it, status and curves can be read on the coordinator's computer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8433",
        token: str | None = None,
        *,
        token_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._api = Api(url, token_from(token, token_file))

    def __repr__(self) -> str:
        return f"Run({self.url!r})"

    @property
    def url(self) -> str:
        """Where the coordinator's page is."""
        return self._api.url

    def status(self) -> Status:
        """How the run stands."""
        return _of(Status, self._api.get("/api/status"))

    def metrics(self) -> Metrics:
        """The run's curves so far."""
        told = self._api.get("/api/curves")
        return Metrics([_of(Loss, loss) for loss in told["losses"]], [_of(Version, each) for each in told["versions"]])

    def devices(self, *, state: str | None = None, role: str | None = None) -> Devices:
        """Devices, of one state (training, online, offline, left, revoked) or role (volunteer, anchor) where it is given."""
        return Devices(list(self.iter_devices(state=state, role=role)))

    def iter_devices(self, *, state: str | None = None, role: str | None = None) -> Iterator[DeviceInfo]:
        """The same, one after the other: for runs with more devices than memory should hold."""
        begin = None
        while True:
            page = self._api.get("/api/v1/devices", **{"limit": 500, "from": begin, "state": state, "role": role})
            yield from (_of(DeviceInfo, device) for device in page["devices"])
            begin = page["next"]
            if begin is None:
                return

    def revoke(self, device: DeviceInfo | str) -> str:
        """Takes a device out of the run for good, and says so in a sentence."""
        return str(self._api.post(f"/api/v1/devices/{_id(device)}/revoke")["told"])

    def invite(
        self,
        addresses: str | Sequence[str],
        *,
        role: str = "volunteer",
        days: int | None = None,
        devices: int | None = None,
    ) -> Invite:
        """A new invite; `addresses` say where devices reach the coordinator, as HOST:PORT."""
        body: dict[str, Any] = {
            "role": role,
            "addresses": [addresses] if isinstance(addresses, str) else list(addresses),
        }
        body |= {} if days is None else {"expires_days": days}
        body |= {} if devices is None else {"devices_max": devices}
        return _of(Invite, self._api.post("/api/v1/invites/create", body))

    def pause(self) -> None:
        """Gives out no more leases; those that are out are still merged."""
        self._api.post("/api/v1/run/pause")

    def resume(self) -> None:
        """Gives out leases again."""
        self._api.post("/api/v1/run/resume")

    def extend(self, token_budget: int) -> None:
        """Goes on until more tokens are merged."""
        self._api.post("/api/v1/run/extend", {"token_budget": token_budget})

    def wait(
        self,
        until: Callable[[Status], bool] = lambda status: status.finished,
        *,
        timeout_s: float | None = None,
        poll_s: float = 2.0,
    ) -> Status:
        """Waits until the run is over, or until `until` says so of a status, and gives that status.

        A coordinator that is away for a moment is waited for. Raises TimeoutError after `timeout_s`.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                status = self.status()
                if until(status):
                    return status
            except Unreachable:
                if ends is None:
                    raise
            if ends is not None and time.monotonic() >= ends:
                raise TimeoutError(f"{self.url}: it was not so within {timeout_s} s")
            time.sleep(poll_s)

    def follow(self, *, poll_s: float = 2.0) -> Iterator[tuple[Status, list[Loss], list[Version]]]:
        """What is new, again and again, until the run is over: how it stands, and points of its curves.

        Every point is told once. The first turn tells all that there is.
        """
        losses = versions = -1
        while True:
            status, metrics = self.status(), self.metrics()
            new_losses = [loss for loss in metrics.losses if loss.wall > losses]
            new_versions = [version for version in metrics.versions if version.version > versions]
            losses = max((loss.wall for loss in metrics.losses), default=losses)
            versions = max((version.version for version in metrics.versions), default=versions)
            yield status, new_losses, new_versions
            if status.finished:
                return
            time.sleep(poll_s)


def _id(device: DeviceInfo | str) -> str:
    return quote(device.id if isinstance(device, DeviceInfo) else device, safe="")
