"""The package against a real coordinator, which whoever starts these tests serves; and against one that it starts itself."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from nightjar import ApiError, Coordinator, ProgramError, Run, Unreachable, track

URL = os.environ.get("NIGHTJAR_TEST_URL")
TOKEN = os.environ.get("NIGHTJAR_TEST_TOKEN")


def has(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


@unittest.skipUnless(URL and TOKEN, "NIGHTJAR_TEST_URL and NIGHTJAR_TEST_TOKEN name a run of three rounds")
class ServedRun(unittest.TestCase):
    def setUp(self) -> None:
        assert URL is not None
        self.run_ = Run(URL, TOKEN)

    def test_status_and_curves(self) -> None:
        status = self.run_.status()
        self.assertEqual((status.run, status.finished), ("bed", False))
        self.assertTrue(0 < status.progress < 1 and status.version is not None and status.version >= 3)
        metrics = self.run_.metrics()
        self.assertEqual(len(metrics.losses), 3)
        self.assertEqual(metrics.losses[-1].loss, status.heldout_loss)
        self.assertEqual([version.version for version in metrics.versions], list(range(len(metrics.versions))))
        self.assertGreater(metrics.losses[0].time.year, 2000)

    def test_devices_come_page_by_page(self) -> None:
        devices = self.run_.devices()
        self.assertEqual(sum(device.role == "anchor" for device in devices), 1)
        self.assertEqual(len(self.run_.devices(role="volunteer")), len(devices) - 1)
        self.assertEqual(sum(device.tokens for device in devices), self.run_.status().tokens)
        with mock.patch.object(self.run_._api, "get", wraps=self.run_._api.get) as get:
            real = get.side_effect = lambda path, **query: Run(self.run_.url, TOKEN)._api.get(
                path, **query | {"limit": 2}
            )
            self.assertEqual([device.id for device in self.run_.iter_devices()], [device.id for device in devices])
            self.assertGreater(get.call_count, 2)
            del real

    def test_invites(self) -> None:
        invite = self.run_.invite("lab.example:4433", days=3, devices=2)
        self.assertTrue(invite.link.startswith("nightjar:"))
        with self.assertRaisesRegex(ApiError, "volunteer or anchor"):
            self.run_.invite("lab.example:4433", role="owl")

    def test_orders_change_the_run(self) -> None:
        self.run_.pause()
        self.assertIsNotNone(self.run_.status().paused_unix_ms)
        self.run_.resume()
        self.run_.wait(lambda status: status.paused_unix_ms is None, timeout_s=30, poll_s=0.1)
        with self.assertRaises(ApiError) as refused:
            self.run_.extend(1)
        self.assertEqual(refused.exception.code, 409)

    def test_refusals_say_what_to_do(self) -> None:
        with mock.patch.dict(os.environ):
            os.environ.pop("NIGHTJAR_TOKEN", None)
            with self.assertRaisesRegex(ApiError, "token create"):
                Run(self.run_.url).devices()
        with self.assertRaisesRegex(ApiError, "not known here"):
            Run(self.run_.url, "nightjar_" + "0" * 52).devices()
        with self.assertRaisesRegex(Unreachable, "prints its page's address"):
            Run("http://127.0.0.1:9").status()
        with self.assertRaisesRegex(ValueError, "looks like http"):
            Run("ftp://nowhere")
        with self.assertRaises(TimeoutError):
            self.run_.wait(timeout_s=0.2, poll_s=0.1)

    @unittest.skipUnless(has("pandas"), "pandas is not installed")
    def test_dataframes(self) -> None:
        losses = self.run_.metrics().dataframe()
        self.assertEqual(list(losses["loss"]), [loss.loss for loss in self.run_.metrics().losses])
        self.assertIn("update_bytes", self.run_.metrics().dataframe("versions").columns)
        self.assertIn("role", self.run_.devices().dataframe().columns)

    def followed(self, *words: str) -> None:
        """`python -m nightjar.track` until two looks are done."""
        looks = 0

        def look(_: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 2:
                raise KeyboardInterrupt

        # Only that module's: others sleep as they do.
        clock = SimpleNamespace(sleep=look, monotonic=time.monotonic)
        quiet = {"NIGHTJAR_TOKEN": TOKEN or "", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with mock.patch("nightjar.run.time", clock), mock.patch.dict(os.environ, quiet):
            self.assertEqual(track.main(["--url", self.run_.url, *words]), 130)

    @unittest.skipUnless(has("mlflow"), "mlflow is not installed")
    def test_mlflow_has_every_point_once_also_after_a_start(self) -> None:
        from mlflow.tracking import MlflowClient

        with tempfile.TemporaryDirectory() as folder:
            uri = (Path(folder) / "mlruns").as_uri()
            with mock.patch.dict(os.environ, {"MLFLOW_ALLOW_FILE_STORE": "true"}):
                for _ in range(2):
                    self.followed("--mlflow", uri, "--experiment", "owls", "--dir", folder)
                client = MlflowClient(tracking_uri=uri)
                experiment = client.get_experiment_by_name("owls")
                assert experiment is not None
                runs = client.search_runs([experiment.experiment_id])
                self.assertEqual([run.info.run_name for run in runs], ["bed"])
                points = client.get_metric_history(runs[0].info.run_id, "heldout/loss")
            told = [(point.step, point.value) for point in points]
            self.assertEqual(told, [(loss.tokens, loss.loss) for loss in self.run_.metrics().losses])

    @unittest.skipUnless(has("wandb"), "wandb is not installed")
    def test_wandb_has_every_point_offline(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            logged: list[dict[str, Any]] = []
            real = track.Wandb.log

            def log(sink: track.Wandb, numbers: dict[str, float], step: int, unix_ms: int) -> None:
                logged.append(numbers)
                real(sink, numbers, step, unix_ms)

            with mock.patch.dict(os.environ, {"WANDB_SILENT": "true"}), mock.patch.object(track.Wandb, "log", log):
                self.followed("--wandb", "owls", "--wandb-mode", "offline", "--dir", folder)
            files = list(Path(folder).glob("wandb/wandb/offline-run-*/run-*.wandb"))
            self.assertEqual(len(files), 1)
            self.assertEqual(sum("heldout/loss" in numbers for numbers in logged), 3)


class OwnCoordinator(unittest.TestCase):
    def test_a_coordinator_from_a_folder_of_text_to_an_export(self) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            try:
                Coordinator(folder / "run")
            except ProgramError as missing:
                self.skipTest(str(missing))
            (folder / "texts").mkdir()
            for name in ("owl", "moth", "lamp"):
                (folder / "texts" / f"{name}.txt").write_text(f"{name} of the night " * 3000)
            made = Coordinator.new(folder / "run", data=[folder / "texts"], model="1M", context=16, tokens="100k")
            with made as coordinator:
                self.assertEqual(coordinator.run.status().version, 0)
                self.assertEqual(len(coordinator.run.devices()), 0)
                self.assertTrue(coordinator.run.invite(coordinator.address).link.startswith("nightjar:"))
                model = coordinator.export(folder / "model", "--dtype", "bf16")
                self.assertTrue((model / "model.safetensors").exists())
                with self.assertRaisesRegex(ProgramError, "there is no version 9"):
                    coordinator.export(folder / "other", "--version", "9")
            with self.assertRaises(Unreachable):
                coordinator.run.status()
            with self.assertRaisesRegex(ProgramError, "name the model|--model|no size"):
                Coordinator.new(folder / "again", data=[folder / "texts"], model="nothing")


if __name__ == "__main__":
    unittest.main()
