"""Options are declared once, and everything else is made of the declarations."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfp_core import options as module
from gfp_core.options import (
    Blend,
    Mask,
    Option,
    OptionError,
    Options,
    RestoreOptions,
    Video,
    find_option,
    markdown_table,
    option,
    options_of,
    parse_selection,
    presets,
)

ALL = options_of(RestoreOptions)


def test_names_are_unique_also_the_former_ones() -> None:
    names = [name for each in ALL for name in (each.name, *each.old_names)]
    assert len(names) == len(set(names))
    ids = [each.node_id for each in ALL]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_every_default_is_a_value_and_every_help_a_sentence(each: Option) -> None:
    assert each.check(each.default) == each.default
    assert each.help[0].isupper()
    assert each.help.endswith(".")
    if each.bare is not None:
        assert each.check(each.bare) == each.bare


def test_flat_names_reach_their_groups() -> None:
    options = RestoreOptions.of(strength=0.8, grain=0.5, mask="hull", color_strength=0.25)
    assert options.strength == 0.8
    assert options.blend == Blend(grain=0.5)
    assert options.mask == Mask("hull")
    assert options.color.strength == 0.25
    assert options.flat(changed=True) == {
        "strength": 0.8,
        "mask": "hull",
        "grain": 0.5,
        "color_strength": 0.25,
    }


def test_values_are_plain() -> None:
    options = RestoreOptions.of(parts=["eyes", "mouth"], rotations=[0, 180], which=[0, 2])
    assert options.selection.select == "0, 2"
    assert options == pickle.loads(pickle.dumps(options))
    assert hash(options) == hash(RestoreOptions.from_dict(options.to_dict()))
    assert options.mask.parts == ("eyes", "mouth")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grain": 2}, "grain must be a number from 0 to 1, not 2"),
        ({"grain": float("nan")}, "grain must be a number from 0 to 1, not nan"),
        ({"grain": True}, "grain must be a number from 0 to 1, not True"),
        ({"grain": "much"}, "grain must be a number from 0 to 1, not 'much'"),
        ({"mask": "oval"}, "mask must be one of ellipse, box, hull, parts, not 'oval'"),
        ({"parts": "eyes"}, "parts must be a list of skin"),
        ({"parts": []}, "parts must not be empty"),
        ({"parts": ["tail"]}, "parts must be one of skin"),
        ({"rotations": [45]}, "rotations must be one of 0, 90, 180, 270, not 45"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"model": 5}, "model must be a text, not 5"),
        ({"select": 1.5}, "select: numbers of faces are whole numbers"),
        ({"select": "two"}, "select: 'two' does not say which faces"),
        ({"flip": 1}, "flip must be true or false, not 1"),
        ({"feathers": 0.1}, "there is no option feathers; the nearest is feather"),
    ],
)
def test_what_is_no_value_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message.replace("[", r"\[").replace("(", r"\(")):
        RestoreOptions.of(**values)


def test_numbers_are_numbers_and_none_is_the_default() -> None:
    options = RestoreOptions.of(
        strength=1, feather=np.float32(0.25), seed=np.int64(3), select=None, grain=None, score=None
    )
    numbers = (options.strength, options.mask.feather, options.seed)
    assert numbers == (1.0, 0.25, 3)
    assert [type(number) for number in numbers] == [float, float, int]
    assert (options.selection.select, options.blend.grain, options.detection.score) == (
        "all",
        0.0,
        0.9,
    )


def test_a_former_name_works_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    module._say_once.cache_clear()
    for _ in range(2):
        assert RestoreOptions.of(grey="on") == RestoreOptions.of(keep_monochrome="on")
    assert [record.message for record in caplog.records] == [
        "grey is now called keep_monochrome; the old name will go."
    ]


def test_toml_goes_both_ways() -> None:
    options = RestoreOptions.of(
        strength=0.5,
        model='C:\\models\\"odd"\x7f \N{GREEK SMALL LETTER ALPHA}.pth',
        rotations=(0, 90),
        max_sharpness=0.5,
        flip=True,
        seed=2**64 - 1,
    )
    for text in (
        options.to_toml(),
        options.to_toml(changed=True),
        options.to_toml(comments=True),
    ):
        assert RestoreOptions.from_toml(text) == options
    assert RestoreOptions().to_toml(changed=True) == ""


def test_toml_takes_flat_names_and_tables_over_a_base() -> None:
    base = RestoreOptions.of(strength=0.5, grain=0.2)
    text = (
        'grain = 1\nmask = "hull"\n[color]\nmode = "match"\ngrey = "off"\n[made_by]\nversion = "9"'
    )
    options = RestoreOptions.from_toml(text, base)
    assert options == RestoreOptions.of(
        strength=0.5, grain=1, mask="hull", color="match", keep_monochrome="off"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grains = 1", "there is no option grains; the nearest is grain"),
        ("[blend]\nfine = 1", "there is no option fine; the nearest is"),
        ("[blends]\ngrain = 1", r"there is no table \[blends\]; the nearest is \[blend\]"),
        ("grain", "no TOML"),
    ],
)
def test_a_wrong_option_file_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        RestoreOptions.from_toml(text)


@given(st.lists(st.sampled_from([each.name for each in ALL]), max_size=3, unique=True), st.data())
def test_a_text_stands_for_what_toml_says(names: list[str], data: st.DataObject) -> None:
    for name in names:
        each = find_option(name)
        if each.choices and each.is_list:
            value: object = tuple(data.draw(st.lists(st.sampled_from(each.choices), min_size=1)))
            text = ",".join(map(str, value))  # type: ignore[call-overload]
        elif each.choices:
            value = data.draw(st.sampled_from(each.choices))
            text = str(value).replace(" ", "-")
        elif each.kind in (int, float):
            low, high = each.min, min(each.max or 1e9, 1e9)
            number = data.draw(
                st.floats(low, high)
                if each.kind is float
                else st.integers(int(low or 0), int(high))
            )
            value, text = number, repr(number)
        else:
            continue
        assert each.parse(text) == value
        options = RestoreOptions.of(**{name: value})
        assert RestoreOptions.from_toml(options.to_toml()) == options


def test_the_fingerprint_is_of_what_changes_results() -> None:
    one = RestoreOptions().fingerprint()
    assert RestoreOptions.of(batch_size=4, device="cpu").fingerprint() == one
    assert RestoreOptions.of(grain=0.1).fingerprint() != one
    assert RestoreOptions.of(model="gfpgan-1.4").fingerprint() != one


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("All", range(sys.maxsize)),
        ("none", frozenset()),
        ("first", range(1)),
        (" first 3 ", range(3)),
        ("0; 2, 5 7", frozenset({0, 2, 5, 7})),
        ([1, 3], frozenset({1, 3})),
    ],
)
def test_a_selection_names_faces(text: str, numbers: object) -> None:
    assert parse_selection(text) == numbers


@pytest.mark.parametrize("text", ["", "1.5", "-1", "first two", "\xb2", [-1], [True]])
def test_a_selection_that_names_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_selection(text)


@pytest.mark.parametrize("name", presets())
def test_a_preset_changes_something_and_says_why(name: str) -> None:
    assert RestoreOptions.preset(name) != RestoreOptions()
    assert len(presets()[name]) > 20


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(OptionError, match="there is no preset 'sepia'; there are after-diffusion,"):
        RestoreOptions.preset("sepia")


@dataclass(frozen=True)
class Sparkle(Options):
    """A group that does not exist."""

    glitter: float = option(0.25, "Share of glitter.", 0, 2)


@dataclass(frozen=True)
class MoreOptions(RestoreOptions):
    """All options, and one more."""

    sparkle: Sparkle = field(default_factory=Sparkle)


def test_one_more_option_is_checked_and_in_the_table() -> None:
    assert MoreOptions.of(glitter=1, grain=1).sparkle.glitter == 1.0
    with pytest.raises(OptionError, match="glitter must be a number from 0 to 2, not 3"):
        MoreOptions.of(glitter=3)
    assert "| `glitter` | 0.25 | a number from 0 to 2 | Share of glitter. |" in markdown_table(
        MoreOptions
    )
    assert MoreOptions.from_toml("[sparkle]\nglitter = 2").sparkle.glitter == 2.0


def test_options_need_the_standard_library_alone() -> None:
    code = (
        "import sys; import gfp_core.options; "
        "print([m for m in ('torch', 'numpy', 'cv2', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_wrong_faces_of_a_person_name_their_own_option() -> None:
    with pytest.raises(OptionError, match=r"^person_faces: 'who' .* write auto, all"):
        RestoreOptions.of(person_faces="who")


def test_groups_are_made_with_former_names_too() -> None:
    assert Blend(seam=False) == Blend(multiband=False)
    assert Video(frames=True) == Video(video=True)
    assert RestoreOptions(border="reflect") == RestoreOptions(padding="reflect")
    with pytest.raises(TypeError, match="seams"):
        Blend(seams=False)
    with pytest.raises(OptionError, match="seam is now called multiband: give one"):
        Blend(seam=False, multiband=True)
