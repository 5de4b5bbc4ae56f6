"""The names that other programs import from the package itself."""

import subprocess
import sys

import pytest

import gfp_core


@pytest.mark.parametrize("name", gfp_core.__all__)
def test_public_names_are_those_of_their_modules(name):
    value = getattr(gfp_core, name)
    assert value.__name__ == name
    assert name in dir(gfp_core)
    assert gfp_core._HOMES.keys() == set(gfp_core.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = gfp_core.nonsense
    assert not hasattr(gfp_core, "nonsense")


def test_importing_the_package_and_its_options_takes_no_heavy_package():
    code = (
        "import sys, gfp_core; gfp_core.RestoreOptions.of(strength=0.8);"
        "print([name for name in ('torch', 'numpy', 'cv2', 'PIL') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
