"""Questions to a coordinator, over its HTTP API."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

# Longest answer that is read, in bytes: the coordinator's are bounded well below.
ANSWER_BYTES_MAX = 64 << 20
TIMEOUT_S = 30.0


class Unreachable(ConnectionError):
    """No coordinator answers at the address."""


class ApiError(RuntimeError):
    """The coordinator turned a question down; the text says what to do."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def token_from(token: str | None, token_file: str | os.PathLike[str] | None) -> str | None:
    """A token as it was given, else that of a file, else that of the environment."""
    if token is not None:
        return token.strip()
    if token_file is not None:
        return Path(token_file).read_text(encoding="utf-8").strip()
    return os.environ.get("NIGHTJAR_TOKEN")


class Api:
    """One coordinator."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a coordinator's page; it looks like http://127.0.0.1:8433")
        self.url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._token = token
        # A proxy of the environment is for elsewhere: the page is on this computer, or behind a tunnel.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a question."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask(f"{path}?{urllib.parse.urlencode(given)}" if given else path, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Has something done."""
        return self._ask(path, body or {})

    def _ask(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                try:
                    sentence = str(_read(error)["error"])
                except (ValueError, KeyError, TypeError):
                    sentence = f"{self.url} answers {error.code} {error.reason}: is it a coordinator's page?"
            raise ApiError(error.code, sentence) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(
                f"no coordinator answers at {self.url}: {reason}; `nightjar-coordinator serve` prints its page's address"
            ) from error


def _read(answer: Any) -> Any:
    body = answer.read(ANSWER_BYTES_MAX + 1)
    if len(body) > ANSWER_BYTES_MAX:
        raise ValueError("the answer is longer than any of a coordinator")
    return json.loads(body)
