"""The ablations' recipes: each leaves out what it says."""

import torch

from benchmarks import ablations
from gfp_core.training import models
from gfp_core.training.recipes import load_recipe


def test_each_configuration_can_be_trained(tmp_path):
    for name in ablations.CONFIGURATIONS:
        recipe = load_recipe("lite", "paper", ablations.changes(name, 100, tmp_path))
        net = models.build_generator(recipe)
        modulated = net.core.condition_scale[-1][2].weight.shape[0]
        conditions = [p for key, p in net.named_parameters() if ".condition_" in key]
        assert all(p.requires_grad == (name != "no_sft") for p in conditions)
        if name == "sft_all":
            assert modulated == 2 * net.core.condition_scale[-1][0].weight.shape[0]
        judged = recipe.loss.adversarial.at(99) != 0
        assert judged == (name != "no_judges")
        assert recipe.loss.adversarial.at(0) == 0


def test_without_sft_the_features_change_nothing(tmp_path):
    recipe = load_recipe("lite", "paper", ablations.changes("no_sft", 100, tmp_path))
    net = models.build_generator(recipe)
    features = torch.randn(1, net.core.condition_scale[0][0].weight.shape[1], 8, 8)
    assert torch.equal(net.core.condition_scale[0](features).unique(), torch.ones(1))
    assert torch.equal(net.core.condition_shift[0](features).unique(), torch.zeros(1))
