"""Flags are made from the declarations of options, and former command lines mean what they did."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gfp_core.cli import detect, flags, main, restore
from gfp_core.cli.exit_codes import CannotStart
from gfp_core.cli.main import build_parser
from gfp_core.io.images import Picture, write_image
from gfp_core.options import EXTRAS, Options, RestoreOptions, option, options_of

ALL_TURNS = (0, 90, 180, 270)


def options_from(*words: str, group: type[RestoreOptions] = RestoreOptions) -> RestoreOptions:
    """What a command line of ``gfp restore`` means."""
    arguments = build_parser().parse_args(["restore", "a.png", "-o", "out", *words])
    return flags.read_options(arguments, group)


def flags_of(command: str) -> set[str]:
    parser = build_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {flag for action in commands.choices[command]._actions for flag in action.option_strings}


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("--model m.pth --detector d", {"model": "m.pth", "detector": "d"}),
        ("--device cpu", {"device": "cpu"}),
        ("--strength 0.5 --fidelity 0", {"strength": 0.5, "fidelity": 0}),
        ("--upscale 2", {"upscale": 2}),
        ("--mask hull --feather .05", {"mask": "hull", "feather": 0.05}),
        ("--grow -0.05", {"grow": -0.05}),
        ("--occlusion on --parser bisenet", {"occlusion": "on", "parser": "bisenet"}),
        ("--parts skin,nose", {"parts": ("skin", "nose")}),
        ("--no-auto-strength", {"auto_strength": False}),
        ("--auto-strength", {"auto_strength": True}),
        ("--detail 0 --grain 1", {"detail": 0, "grain": 1}),
        ("--color low_frequency", {"color": "low_frequency"}),
        ("--color-strength 0.5", {"color_strength": 0.5}),
        ("--grey off", {"keep_monochrome": "off"}),
        ("--engine plain --precision bf16", {"engine": "plain", "precision": "bf16"}),
        ("--frames", {"video": True}),
        ("--identity", {"identity_limit": 22}),
        ("--identity 30 --embedder e.bin", {"identity_limit": 30, "embedder": "e.bin"}),
        ("--score 0.3", {"score": 0.3}),
        ("--which none", {"select": "none"}),
        ("--order left-to-right", {"order": "left to right"}),
        ("--min-size 5 --max-size 500", {"min_size": 5, "max_size": 500}),
        ("--turned", {"rotations": ALL_TURNS}),
        ("--max-sharpness 0.5", {"max_sharpness": 0.5}),
    ],
)  # fmt: skip
def test_a_former_command_line_means_what_it_did(words: str, values: dict[str, Any]) -> None:
    assert options_from(*words.split()) == RestoreOptions.of(**values)


def test_a_selection_may_hold_spaces() -> None:
    assert options_from("--which", "first 2") == RestoreOptions.of(select="first 2")
    assert options_from("--select", "0, 2") == RestoreOptions.of(select="0, 2")


def test_former_names_are_logged_and_not_in_the_help(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    options_from("--which", "all", "--turned", "--no-frames", "--border", "reflect")
    assert [record.message for record in caplog.records] == [
        "--which is now called --select; the old name will go.",
        "--turned is now called --rotations 0,90,180,270; the old name will go.",
        "--no-frames is now called --no-video; the old name will go.",
        "--border is now called --padding; the old name will go.",
    ]
    assert main(["restore", "--help"]) == 0
    shown = capsys.readouterr().out.split()
    assert "--select" in shown
    assert not {"--which", "--grey", "--frames", "--turned", "--identity", "--border"} & set(shown)


@pytest.mark.parametrize("command", ["restore", "options"])
def test_every_option_is_a_flag_unless_it_says_why_not(command: str) -> None:
    available = flags_of(command)
    for each in options_of(RestoreOptions):
        flag = "--" + each.name.replace("_", "-")
        assert (flag in available) != ("command" in each.absent), each.name
        assert all(len(reason) > 10 for reason in each.absent.values())
    assert set(restore.EXTRA_FLAGS) == set(EXTRAS)
    if command == "restore":
        assert set(restore.EXTRA_FLAGS.values()) <= available


def test_detect_has_what_detects_and_selects() -> None:
    available = flags_of("detect")
    for each in options_of(RestoreOptions):
        shared = each.group in ("detection", "selection")
        flag = "--" + each.name.replace("_", "-")
        assert (flag in available) == (shared or each.name in ("detector", "device"))


@dataclass(frozen=True)
class Sparkle(Options):
    """What does not exist; yet."""

    glitter: float = option(0.25, "Share of glitter, 100 % at most.", 0, 2)
    dust: bool = option(False, "Whether there is dust.", old_names=("powder",))


@dataclass(frozen=True)
class MoreOptions(RestoreOptions):
    """All options, and one group more."""

    sparkle: Sparkle = field(default_factory=Sparkle)


def test_a_new_option_is_a_flag_without_another_edit(capsys: pytest.CaptureFixture[str]) -> None:
    parser = flags.Parser()
    flags.add_sources(parser)
    flags.add_options(parser, MoreOptions)
    arguments = parser.parse_args(["--glitter", "2", "--powder", "--strength", "0"])
    options = flags.read_options(arguments, MoreOptions)
    assert options == MoreOptions.of(glitter=2, dust=True, strength=0)
    with pytest.raises(SystemExit):
        parser.parse_args(["--glitter", "3"])
    assert "glitter must be a number from 0 to 2, not 3.0" in capsys.readouterr().err
    shown = parser.format_help()
    assert "what does not exist:" in shown
    assert "Share of glitter, 100 % at most (0 to 2; default: 0.25)" in " ".join(shown.split())
    assert "--powder" not in shown
    detection = detect.takes(options_of(MoreOptions)[-1])
    assert not detection


def test_preset_then_file_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("score = 0.7\n[blend]\ngrain = 0.1\n", encoding="utf-8")
    base = RestoreOptions.preset("old-photo")
    assert options_from("--preset", "old-photo") == base
    both = ["--preset", "old-photo", "--options", str(file)]
    assert options_from(*both) == base.replace(score=0.7, grain=0.1)
    assert options_from(*both, "--grain", "0.2") == base.replace(score=0.7, grain=0.2)


def test_options_come_from_a_result(tmp_path: Path) -> None:
    import numpy as np

    made = RestoreOptions.of(strength=0.25, color="match", select="0, 2")
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        path = tmp_path / name
        write_image(path, Picture(np.zeros((8, 8, 3), np.float32)), record=made.to_toml())
        assert options_from("--options", str(path)) == made
    plain = tmp_path / "plain.png"
    write_image(plain, Picture(np.zeros((8, 8, 3), np.float32)))
    with pytest.raises(CannotStart, match=r"plain\.png does not say what was done to it"):
        options_from("--options", str(plain))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "sepia"], "there is no preset 'sepia'"),
        (["--options", "missing.toml"], "missing.toml cannot be read"),
        (["--options", "{folder}"], "cannot be read"),
        (["--options", "{folder}/bad.toml"], "bad.toml: there is no option grains; the nearest"),
        (["--options", "{folder}/bytes.toml"], "--options takes a TOML file, or a result"),
    ],
)
def test_a_wrong_source_of_options_is_named(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "bad.toml").write_text("grains = 1", encoding="utf-8")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CannotStart, match=message):
        options_from(*(word.format(folder=tmp_path) for word in words))


def test_what_is_printed_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--preset", "video", "--strength", "0.4", "--order", "left-to-right", "--identity"]
    assert main(["options", *words]) == 0
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert options_from("--options", str(file)) == options_from(*words)
    assert main(["options", "--changed", "--no-comments", "--strength", "0.4"]) == 0
    assert capsys.readouterr().out == "strength = 0.4\n"
    assert main(["options", "--presets"]) == 0
    assert "old-photo       Prints and scans" in capsys.readouterr().out
