"""``gfp scale``: what a command line asks for, and what is said of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gfp_core.cli import main
from gfp_core.options import RestoreOptions
from gfp_core.scale import ray_data
from gfp_core.scale.ray_data import Report, ScaleError, ScaleJob


@pytest.fixture
def jobs(monkeypatch) -> list[ScaleJob]:
    """In place of the cluster: three rows, one of them an error."""
    asked: list[ScaleJob] = []

    def run(job: ScaleJob, *, progress: Any) -> Report:
        asked.append(job)
        if job.source == "nowhere":
            raise ScaleError("there is no picture below nowhere")
        report = Report(total=5, skipped=2, wall_seconds=2.0)
        errors = ["", "", "b.jpg is empty"]
        rows = {"id": ["a", "c", "b"], "faces": [2, 0, 0], "seconds": [0.5] * 3, "error": errors}
        for index in range(3):
            report.add({name: column[index : index + 1] for name, column in rows.items()})
            progress(report)
        return report

    monkeypatch.setattr(ray_data, "run", run)
    return asked


def test_a_command_line_is_a_job(jobs) -> None:
    words = "s3://b/in s3://b/out --strength 0.5 --actors 2 8 --gpus-per-actor 0.25 --batch 16"
    more = (
        "--write parquet --format png --id-column key --retry-errors --no-download --address auto"
    )
    assert main(["scale", *words.split(), *more.split(), "--address", "auto"]) == 1
    assert jobs == [
        ScaleJob(
            "s3://b/in",
            "s3://b/out",
            RestoreOptions.of(strength=0.5),
            suffix=".png",
            kind="parquet",
            id_column="key",
            actors=(2, 8),
            gpus_per_actor=0.25,
            batch_size=16,
            address="auto",
            retry_errors=True,
            downloads=False,
        )
    ]


def test_what_became_of_a_job_is_said(jobs, capsys) -> None:
    assert main(["scale", "in", "out"]) == 1
    said = capsys.readouterr().err
    assert said.count("error: b.jpg is empty") == 1
    assert "1 restored (2 faces), 1 without a face, 2 finished before, 1 failed; 1.50" in said


def test_a_job_that_cannot_start_is_a_wrong_command(jobs, capsys) -> None:
    assert main(["scale", "nowhere", "out"]) == 2
    assert "there is no picture below nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--actors 0 1", "--batch 0", "--gpus-per-actor -1", "--part x", "--video"]
)
def test_numbers_that_make_no_sense_are_refused(jobs, words: str) -> None:
    assert main(["scale", "in", "out", *words.split()]) == 2
    assert jobs == []


def test_a_report_holds_rates_and_percentiles(tmp_path: Path) -> None:
    report = Report(total=100, wall_seconds=50.0)
    for number in range(100):
        seconds = [0.1 + number / 100]
        report.add({"id": [str(number)], "faces": [1], "seconds": seconds, "error": [""]})
    table = report.to_dict()
    assert table["pictures_per_second"] == 2
    assert table["seconds_per_picture"]["p50"] == pytest.approx(0.595)
    assert table["seconds_per_picture"]["p100"] == pytest.approx(1.09)
