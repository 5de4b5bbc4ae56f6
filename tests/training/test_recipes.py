"""Recipes: both values, changes, and what is refused."""

import pytest

from gfp_core.networks.registry import ARCHITECTURES
from gfp_core.training import recipes
from gfp_core.training.recipes import Term, load_recipe, names


@pytest.mark.parametrize("values", ["paper", "released"])
def test_every_recipe_is_complete(values):
    assert names() == [
        "gfpgan",
        "lite",
        "lite-wild",
        "pose-varied",
        "restoreformer",
        "restoreformer-dictionary",
    ]
    for name in names():
        recipe = load_recipe(name, values)
        assert recipe.model.name in {row.name for row in ARCHITECTURES}
        assert recipe.about


def test_paper_and_released_differ_where_the_authors_do():
    paper, released = load_recipe("gfpgan", "paper"), load_recipe("gfpgan", "released")
    assert paper.degradation.noise == (0, 15)
    assert released.degradation.noise == (0, 20)
    assert (paper.degradation.anisotropic, released.degradation.anisotropic) == (0, 0.5)
    assert paper.schedule.milestones == (700000, 750000)
    assert released.loss.style == Term(50)
    assert "style" not in paper.loss.terms()
    dictionary = load_recipe("restoreformer-dictionary", "released")
    assert (dictionary.loss.codebook.weight, dictionary.loss.commitment.weight) == (0.25, 1)


def test_terms_count_from_their_start_to_their_stop():
    pyramid = load_recipe("gfpgan").loss.pyramid
    assert [pyramid.at(step) for step in (0, 49_999, 50_000)] == [1, 1, 0]
    later = load_recipe("lite").loss.adversarial
    assert later.at(later.start - 1) == 0 < later.at(later.start)


def test_values_can_be_changed():
    changes = [
        "data.batch=2",
        "loss.l1.start=5",
        "discriminator.kind=patch",
        "model.args.narrow=.5",
    ]
    recipe = load_recipe("lite", changes=[*changes[:3], "model.args.narrow=0.5"])
    assert recipe.data.batch == 2
    assert recipe.loss.l1 == Term(1.0, start=5)
    assert recipe.discriminator.kind == "patch"
    assert recipe.model.args == {"narrow": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.bach=2", "data has no key 'bach'; the nearest is 'batch'; there are size, batch"),
        ("data.batch=2.5", "'data.batch' cannot be 2.5; it is a whole number"),
        ("data.batch=true", "'data.batch' cannot be True"),
        ("run.precision=half", "'run.precision' must be one of float32"),
        ("degradation.sigma=[3, 1]", "sigma must be a range"),
        ("degradation.motion=1.5", "motion is a chance"),
        ("loss.identity_distance=l3", "identity_distance must be one of"),
        ("batch=2", "table.key=value"),
    ],
)
def test_what_a_recipe_cannot_have_is_named(change, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        load_recipe("lite", changes=[change])


def test_recipe_files(tmp_path):
    with pytest.raises(ValueError, match="no recipe nothing; there are gfpgan, lite"):
        load_recipe("nothing")
    file = tmp_path / "own.toml"
    file.write_text("about = 'x'\n[model]\nname = 'GFPGANLite'\n")
    with pytest.raises(ValueError, match=r"own.toml: 'schedule' is missing"):
        load_recipe(file)
    file.write_text("about = ")
    with pytest.raises(ValueError, match="no TOML"):
        load_recipe(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.mixture.strange=1", "no kind strange; there are clean, mild, paper, severe, wild"),
        ("data.mixture={ mild = -1 }", "a share of at least 0"),
        ("data.mixture={ mild = 0 }", "above 0"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("lite", changes=[change])


def test_the_old_names_of_keys_go_on_working(tmp_path):
    text = (recipes.FOLDER / "gfpgan.toml").read_text()
    old = tmp_path / "old.toml"
    old.write_text(text.replace("[optimizer]", "[optimiser]").replace("gray_", "grey_"))
    assert old.read_text() != text
    changes = ["optimiser.lr=0.5", "degradation.grey_chance=0.25"]
    recipe = load_recipe(old, "released", changes)
    assert (recipe.optimizer.lr, recipe.degradation.gray_chance) == (0.5, 0.25)
