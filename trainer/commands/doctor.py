"""`doctor`: checks a cluster, and what a config needs of it, before money is spent. How, says `cluster.doctor`."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.doctor_config import DoctorConfig
from configs.errors import UserError
from configs.load import describes_run, load_section
from configs.schema import Config, LaunchConfig
from trainer.commands.options import AsJson, Overrides, read_config
from trainer.commands.screen import report

if TYPE_CHECKING:
    from cluster.doctor.examine import Asked
    from cluster.doctor.findings import Finding
    from cluster.doctor.versions import Facts

_CODE = ("configs", "embeddings", "models", "cluster", "trainer")
_SLACK_S = 60.0  # for joining the cluster, and between the checks

ConfigIfAny = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CONFIG]",
        help="YAML file of a run: its folders are checked too; or of its sections `launch` and `doctor`.",
    ),
]


def doctor(config: ConfigIfAny = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check the cluster that a run would use: nodes, versions, network, folders, bandwidth. Exit code 1: an error."""
    run = read_config(config, overrides) if config and describes_run(config, overrides or []) else None
    launch, settings = (run.launch, run.doctor) if run else _sections(config, overrides or [])
    shown = _Report(as_json)
    watch = _Watch(shown)
    watch.wait_at_most(settings.answer_s + _SLACK_S)
    try:
        for finding in _findings(run, launch, settings):
            shown.add(finding)
            watch.wait_at_most(2 * max(settings.answer_s, settings.bandwidth_s, 2 * settings.folder_s) + _SLACK_S)
    finally:
        watch.end()
    shown.end()
    if shown.has_errors:
        raise typer.Exit(1)


def _sections(path: Path | None, overrides: list[str]) -> tuple[LaunchConfig, DoctorConfig]:
    """What matters of a cluster where no run is described."""
    launch = load_section("launch", LaunchConfig, overrides, path)
    return launch, load_section("doctor", DoctorConfig, overrides, path)


class _Report:
    """Shows a finding as it comes."""

    def __init__(self, as_json: bool) -> None:
        self._as_json, self._began = as_json, time.monotonic()
        self.findings: list[Finding] = []

    @property
    def has_errors(self) -> bool:
        return any(one.result == "error" for one in self.findings)

    def add(self, finding: "Finding") -> None:
        self.findings.append(finding)
        lines = [f"{finding.check:<12} {finding.result:<8} {finding.said}"]
        typer.echo("\n".join(lines + [f"{'':<22}-> {finding.remedy}"] * bool(finding.remedy)), err=self._as_json)

    def end(self) -> None:
        counted = [sum(one.result == result for one in self.findings) for result in ("error", "warning")]
        seconds = time.monotonic() - self._began
        said = f"errors {counted[0]}, warnings {counted[1]}, {seconds:.0f} s"
        checks = [one.to_json() for one in self.findings]
        report(said, {"ok": not counted[0], "seconds": round(seconds, 1), "checks": checks}, self._as_json)


class _Watch:
    """Ends the process when no finding comes: something hangs that has no deadline, such as a call of Ray's."""

    def __init__(self, shown: _Report) -> None:
        self._shown, self._timer = shown, threading.Timer(0, lambda: None)

    def wait_at_most(self, seconds: float) -> None:
        """For the next finding."""
        self.end()
        self._timer = threading.Timer(seconds, self._give_up, (seconds,))
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        self._timer.cancel()

    def _give_up(self, seconds: float) -> None:
        from cluster.doctor.findings import Finding

        there = self._shown.findings
        last = f"the check after `{there[-1].check}`" if there else "joining the cluster"
        remedy = "does a folder hang, or Ray's head? Try `ls` on the folders, and `ray status` on the head"
        self._shown.add(Finding("doctor", "error", f"{last} did not end in {seconds:.0f} s", remedy))
        self._shown.end()
        sys.stdout.flush()
        os._exit(1)


def _findings(run: Config | None, launch: LaunchConfig, settings: DoctorConfig) -> "Iterator[Finding]":
    from cluster.doctor.examine import examine
    from trainer.data.reading.allocation import ALLOCATION

    return examine(_asked(run), launch, settings, ALLOCATION)


def _asked(run: Config | None) -> "Asked":
    from cluster.doctor.examine import Asked
    from trainer.run.environment import PACKAGES
    from trainer.run.paths import with_absolute_paths

    if run is None:
        return Asked(PACKAGES, _CODE, {}, judges=[_of_one_line])
    run = with_absolute_paths(run)
    folders, data = {"training.run_dir": run.training.run_dir}, run.data
    if data.generate is not None and not Path(data.root).exists():
        return Asked(PACKAGES, _CODE, folders | {"data.root": data.root}, judges=[_of_one_line])
    looks: dict[str, Any] = {"data.root": (data_seen, (data.root, data.train, data.read_timeout_s))}
    return Asked(PACKAGES, _CODE, folders, looks, judges=[_of_one_line, _precision(run)])


def data_seen(asked: tuple[str, str, float]) -> str:
    """On a node: how much there is of a part of the data set."""
    from trainer.data.dataset.listing import list_files
    from trainer.data.dataset.source import open_source

    root, part, timeout_s = asked
    files = list_files(open_source(root, part), timeout_s).files
    return f"{len(files):,} files, {sum(file.size for file in files):,} bytes"


def _of_one_line(facts: "Facts") -> "Iterator[Finding]":
    """torch, torchrec and fbgemm must belong together."""
    from cluster.doctor.findings import Finding, by_value, named
    from trainer.run.versions import check_versions

    wrong = {}
    for node, one in facts.items():
        try:
            check_versions({name: version for name, version in one["packages"].items() if version})
        except UserError as error:
            wrong[node] = str(error)
    for message, nodes in by_value(wrong).items():
        said, remedy = message.split("\n", 1)
        yield Finding("versions", "error", f"{said}, on {named(nodes)}", remedy)


def _precision(run: Config) -> "Callable[[Facts], Iterator[Finding]]":
    """Of processors that compute BF16 in software."""

    def judge(facts: "Facts") -> "Iterator[Finding]":
        from cluster.doctor.findings import Finding, named
        from trainer.run.processor import BF16

        slow = [node for node, one in facts.items() if BF16.isdisjoint(one["processor"]["features"])]
        if run.training.precision == "bf16" and not any(one["gpus"] for one in facts.values()) and slow:
            said = f"training.precision=bf16, but processors compute BF16 in software on {named(slow)}"
            yield Finding("processors", "warning", said, "use training.precision=fp32: steps take many times as long")

    return judge
